//! One member of etcd over a byte stream, usually a tunnel: TLS 1.3 to a member of exactly this machine's name, then gRPC.
//!
//! A connection that breaks stays broken; whoever holds it opens another one.

use super::{Etcd, EtcdError, Listed, Report};
use async_trait::async_trait;
use etcd_client::{Channel, Client, GetOptions, MemberAddOptions};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::ExposeSecret;
use slipway_model::MachineName;
use slipway_pki::Leaf;
use slipway_plan::MemberId;
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::Code;
use tonic::transport::Endpoint;

/// TLS and the first frames.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// A question.
const QUESTION: Duration = Duration::from_secs(2);
/// A change: etcd itself waits for its quorum for up to 7 s at its usual timers.
const CHANGE: Duration = Duration::from_secs(8);
/// What is read so that the list of members that follows is not older than the call: any key does, and none need be there.
const BARRIER: &str = "/slipway.dev/barrier";

/// The operator towards one cluster's etcd.
#[derive(Clone)]
pub struct EtcdIdentity(Arc<ClientConfig>);

impl EtcdIdentity {
    /// From a client certificate that the cluster's etcd authority signed, and that authority (PEM).
    pub fn new(leaf: &Leaf, authority: &str) -> Result<Self, EtcdError> {
        let own = |error: &dyn Display| EtcdError::Own(error.to_string());
        let chain = CertificateDer::pem_slice_iter(leaf.certificate().as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|e| own(&e))?;
        let key = PrivateKeyDer::from_pem_slice(leaf.key().expose_secret().as_bytes()).map_err(|e| own(&e))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.map_err(|e| own(&e))?).map_err(|e| own(&e))?;
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| own(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| own(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }
}

/// A member over a stream.
#[derive(Clone)]
pub struct GrpcEtcd {
    machine: MachineName,
    client: Client,
}

impl GrpcEtcd {
    /// To the member of a machine: its certificate has to name it.
    pub async fn connect<S>(stream: S, machine: &MachineName, identity: &EtcdIdentity) -> Result<Self, EtcdError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let silent = |why: String| EtcdError::Silent { machine: machine.clone(), why };
        let name = ServerName::try_from(machine.to_string()).map_err(|e| silent(e.to_string()))?;
        let connecting = async {
            let stream = TlsConnector::from(identity.0.clone()).connect(name, stream).await.map_err(|e| silent(e.to_string()))?;
            // One stream, once: a second try to connect finds none, and the caller hears that the member is silent.
            let slot = Arc::new(Mutex::new(Some(stream)));
            let connector = tower::service_fn(move |_: http::Uri| {
                let stream = slot.lock().ok().and_then(|mut slot| slot.take());
                std::future::ready(stream.map(TokioIo::new).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
            });
            let endpoint = Endpoint::from_static("http://etcd.slipway.internal");
            let channel = endpoint.connect_with_connector(connector).await.map_err(|e| silent(e.to_string()))?;
            Client::from_channel(Channel::Tonic(channel), None).await.map_err(|e| silent(e.to_string()))
        };
        let client = timeout(HANDSHAKE, connecting).await.map_err(|_| silent(format!("no TLS session within {HANDSHAKE:?}")))??;
        Ok(Self { machine: machine.clone(), client })
    }

    async fn within<T>(&self, deadline: Duration, call: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, EtcdError> {
        let machine = self.machine.clone();
        match timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(etcd_client::Error::GRpcStatus(status))) => {
                let why = status.message().to_owned();
                Err(match status.code() {
                    Code::NotFound => EtcdError::NoSuchMember { machine, why },
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                        EtcdError::Silent { machine, why }
                    }
                    _ => EtcdError::Refused { machine, why },
                })
            }
            Ok(Err(error)) => Err(EtcdError::Silent { machine, why: error.to_string() }),
            Err(_) => Err(EtcdError::Silent { machine, why: format!("no answer within {deadline:?}") }),
        }
    }
}

#[async_trait]
impl Etcd for GrpcEtcd {
    async fn report(&self) -> Result<Report, EtcdError> {
        let mut client = self.client.clone();
        let said = self.within(QUESTION, client.status()).await?;
        Ok(Report {
            id: MemberId(said.header().map_or(0, etcd_client::ResponseHeader::member_id)),
            leader: Some(said.leader()).filter(|id| *id != 0).map(MemberId),
            learner: said.is_learner(),
            term: said.raft_term(),
            committed: said.raft_index(),
            applied: said.raft_applied_index(),
            version: said.version().to_owned(),
            db_bytes: u64::try_from(said.db_size()).unwrap_or(0),
            errors: said.errors().to_vec(),
        })
    }

    /// The client library asks for the member's own list. A linearizable read right before it waits until the member has applied all that was
    /// committed when it was asked, changes of the membership among it: which is what etcd itself does for a linearizable list.
    async fn members(&self) -> Result<Vec<Listed>, EtcdError> {
        let mut client = self.client.clone();
        let nothing = Some(GetOptions::new().with_keys_only().with_limit(1));
        self.within(QUESTION, client.get(BARRIER, nothing)).await?;
        let list = self.within(QUESTION, client.member_list()).await?;
        let listed = |m: &etcd_client::Member| Listed {
            id: MemberId(m.id()),
            name: m.name().to_owned(),
            peer_urls: m.peer_urls().to_vec(),
            learner: m.is_learner(),
        };
        Ok(list.members().iter().map(listed).collect())
    }

    async fn add_learner(&self, peer_url: &str) -> Result<MemberId, EtcdError> {
        let mut client = self.client.clone();
        let added = self.within(CHANGE, client.member_add([peer_url], Some(MemberAddOptions::new().with_is_learner()))).await?;
        let nobody = || EtcdError::Silent { machine: self.machine.clone(), why: "it added a member and does not say which".to_owned() };
        added.member().map(|m| MemberId(m.id())).ok_or_else(nobody)
    }

    async fn promote(&self, member: MemberId) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        self.within(CHANGE, client.member_promote(member.0)).await.map(|_| ())
    }

    async fn remove(&self, member: MemberId) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        self.within(CHANGE, client.member_remove(member.0)).await.map(|_| ())
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), EtcdError> {
        let mut client = self.client.clone();
        self.within(CHANGE, client.move_leader(to.0)).await.map(|_| ())
    }
}
