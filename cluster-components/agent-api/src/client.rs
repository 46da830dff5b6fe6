//! The operator's end: one connection to one agent. No retries inside: a broken client stays broken, and its caller connects anew when it
//! decides to.

use crate::claim::{self, Exporter, Statement};
use crate::error::tls_error;
use crate::noting::{LastWords, Noting};
use crate::tunnel::{self, TunnelStream};
use crate::v1::agent_client::AgentClient as Grpc;
use crate::{AgentError, MAX_MESSAGE, OperatorIdentity, UNCLAIMED_SERVER_NAME, server_name, tls, v1};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::SecretString;
use slipway_model::{ArtifactRef, MachinePlan, PlanDigest};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// How long a call may take, and a stream's opening.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long dialling and the TLS handshake may take together.
pub const DIAL: Duration = Duration::from_secs(3);
/// What fits into a message beside the plan is small.
const LARGEST_PLAN: usize = MAX_MESSAGE - 64 * 1024;
/// A silent connection is asked for a sign of life this often, and given up after as long again: a dead machine is noticed in 10 s.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A connection to a claimed agent, both ends proved by the cluster's agent CA.
#[derive(Debug, Clone)]
pub struct AgentClient {
    grpc: Grpc<Channel>,
    machine_uid: String,
    peer: Peer,
}

/// A connection to an agent that nobody has proved yet, in either direction.
#[derive(Debug, Clone)]
pub struct UnclaimedAgent {
    grpc: Grpc<Channel>,
    exporter: Exporter,
    peer: Peer,
}

/// Who a connection leads to, as errors name it, and what TLS said at its end.
#[derive(Debug, Clone)]
struct Peer {
    name: String,
    words: LastWords,
}

impl Peer {
    /// Applies to every call of both kinds.
    async fn call<T>(&self, answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, AgentError> {
        match timeout(DEADLINE, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.explain(&status)),
            Err(_) => Err(AgentError::silent(&self.name, format!("no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    fn explain(&self, status: &Status) -> AgentError {
        let error = AgentError::from_status(&self.name, status);
        match self.words.get() {
            Some(words) if error.is_silence() => AgentError::from_tls(&self.name, &words),
            _ => error,
        }
    }
}

async fn dial(address: SocketAddr) -> Result<TcpStream, AgentError> {
    let peer = address.to_string();
    let stream = timeout(DIAL, TcpStream::connect(address))
        .await
        .map_err(|_| AgentError::silent(&peer, format!("no connection within {} s", DIAL.as_secs())))?
        .map_err(|e| AgentError::silent(&peer, e))?;
    stream.set_nodelay(true).map_err(|e| AgentError::silent(&peer, e))?;
    Ok(stream)
}

async fn handshake<S>(stream: S, config: Arc<ClientConfig>, name: &str, peer: &str) -> Result<TlsStream<S>, AgentError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(name.to_owned()).map_err(|_| {
        AgentError::Own(format!("{name:?} is no DNS name: a machine's UID must be one label of letters, digits and dashes"))
    })?;
    match timeout(DIAL, TlsConnector::from(config).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) => Err(tls_error(&e).map_or_else(|| AgentError::silent(peer, &e), |tls| AgentError::from_tls(peer, tls))),
        Err(_) => Err(AgentError::silent(peer, format!("no TLS handshake within {} s", DIAL.as_secs()))),
    }
}

async fn channel<S>(stream: TlsStream<S>, peer: &str) -> Result<(Grpc<Channel>, Peer), AgentError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (stream, words) = Noting::new(stream);
    // One stream, once: when it breaks, the second call finds none and the caller hears that the agent is unreachable.
    let slot = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = slot.lock().ok().and_then(|mut slot| slot.take());
        std::future::ready(stream.map(TokioIo::new).ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
    });
    let channel = Endpoint::from_static("http://agent.slipway.internal")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| tls_error(&e).map_or_else(|| AgentError::silent(peer, &e), |tls| AgentError::from_tls(peer, tls)))?;
    let grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    Ok((grpc, Peer { name: peer.to_owned(), words }))
}

// === impl AgentClient ===

impl AgentClient {
    /// To an agent whose certificate proves nothing yet.
    pub async fn connect_unclaimed(address: SocketAddr) -> Result<UnclaimedAgent, AgentError> {
        Self::connect_unclaimed_over(dial(address).await?, &address.to_string()).await
    }

    /// The same over a stream of the caller's, a tunnel for example. `peer` names it in errors.
    pub async fn connect_unclaimed_over<S>(stream: S, peer: &str) -> Result<UnclaimedAgent, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = handshake(stream, tls::unclaimed_config()?, UNCLAIMED_SERVER_NAME, peer).await?;
        let exporter = Exporter::take(|out, label, context| stream.get_ref().1.export_keying_material(out, label, context))
            .map_err(|e| AgentError::silent(peer, e))?;
        let (grpc, peer) = channel(stream, peer).await?;
        Ok(UnclaimedAgent { grpc, exporter, peer })
    }

    /// To the claimed agent of exactly this machine.
    pub async fn connect(address: SocketAddr, machine_uid: &str, identity: &OperatorIdentity) -> Result<Self, AgentError> {
        Self::connect_over(dial(address).await?, &address.to_string(), machine_uid, identity).await
    }

    /// The same over a stream of the caller's, a tunnel for example. `peer` names it in errors.
    pub async fn connect_over<S>(stream: S, peer: &str, machine_uid: &str, identity: &OperatorIdentity) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = handshake(stream, identity.config.clone(), &server_name(machine_uid), peer).await?;
        let (grpc, peer) = channel(stream, peer).await?;
        Ok(Self { grpc, machine_uid: machine_uid.to_owned(), peer })
    }

    /// Whose agent this is.
    #[must_use]
    pub fn machine_uid(&self) -> &str {
        &self.machine_uid
    }

    /// Who the agent says it is.
    pub async fn get_info(&self) -> Result<v1::Info, AgentError> {
        self.peer.call(self.grpc.clone().get_info(v1::GetInfoRequest {})).await
    }

    /// Replaces the machine's desired state. `expected`: the digest last accepted as the caller knows it, None when there is none yet.
    /// Repeating an accepted plan is accepted, whatever `expected` says.
    pub async fn apply_plan(&self, expected: Option<&PlanDigest>, epoch: u64, plan: &MachinePlan) -> Result<PlanDigest, AgentError> {
        let request = v1::ApplyPlanRequest {
            machine_uid: self.machine_uid.clone(),
            epoch,
            expected_digest: expected.map(|digest| digest.0.clone()).unwrap_or_default(),
            plan: plan.canonical(),
        };
        if request.plan.len() > LARGEST_PLAN {
            let why = format!("the plan has {} bytes, and an agent takes {LARGEST_PLAN} at most", request.plan.len());
            return Err(AgentError::Refused { peer: self.peer.name.clone(), why });
        }
        Ok(PlanDigest(self.peer.call(self.grpc.clone().apply_plan(request)).await?.digest))
    }

    /// The machine's state now, then after each change. Ends with an error when the connection breaks or the machine goes silent.
    pub async fn watch(&self) -> Result<BoxStream<'static, Result<v1::MachineState, AgentError>>, AgentError> {
        let stream = self.peer.call(self.grpc.clone().watch(v1::WatchRequest { machine_uid: self.machine_uid.clone() })).await?;
        let peer = self.peer.clone();
        Ok(stream.map(move |item| item.map_err(|status| peer.explain(&status))).boxed())
    }

    /// Lines of a unit's journal, the last `lines` (0: 100) and, if asked, what follows.
    pub async fn logs(&self, unit: &str, lines: u32, follow: bool) -> Result<BoxStream<'static, Result<String, AgentError>>, AgentError> {
        let request = v1::LogsRequest { machine_uid: self.machine_uid.clone(), unit: unit.to_owned(), lines, follow };
        let stream = self.peer.call(self.grpc.clone().logs(request)).await?;
        let peer = self.peer.clone();
        let lines = stream.flat_map(move |item| {
            futures::stream::iter(match item {
                Ok(batch) => batch.lines.into_iter().map(Ok).collect(),
                Err(status) => vec![Err(peer.explain(&status))],
            })
        });
        Ok(lines.boxed())
    }

    /// A byte stream to `target` (host:port, on the agent's allow-list), e.g. another machine's agent.
    pub async fn tunnel(&self, target: &str) -> Result<TunnelStream, AgentError> {
        let (sender, outgoing) = tunnel::outgoing(&self.machine_uid, target);
        let incoming = self.peer.call(self.grpc.clone().tunnel(outgoing)).await?;
        Ok(TunnelStream::new(sender, incoming))
    }

    /// A verified snapshot of the machine's etcd member: data, and in the last message what it was. Dropping the stream ends it.
    pub async fn etcd_snapshot(&self, epoch: u64) -> Result<BoxStream<'static, Result<v1::EtcdSnapshotPiece, AgentError>>, AgentError> {
        let request = v1::EtcdSnapshotRequest { machine_uid: self.machine_uid.clone(), epoch };
        let stream = self.peer.call(self.grpc.clone().etcd_snapshot(request)).await?;
        let peer = self.peer.clone();
        Ok(stream.map(move |item| item.map_err(|status| peer.explain(&status))).boxed())
    }

    /// Tries another build of the agent in place of `expected` (sha256 of the one that runs). Returns when its trial has begun; how that ends
    /// is in the machine's state. Repeating it is safe. A fetch that takes long is an error to retry: the agent goes on with it.
    pub async fn update(&self, epoch: u64, expected_sha256: &str, build: &ArtifactRef) -> Result<(), AgentError> {
        let artifact = serde_json::to_vec(build).map_err(|e| AgentError::Own(format!("the build of the agent: {e}")))?;
        let request =
            v1::UpdateRequest { machine_uid: self.machine_uid.clone(), epoch, expected_sha256: expected_sha256.to_owned(), artifact };
        self.peer.call(self.grpc.clone().update(request)).await.map(|_| ())
    }

    /// Stops the machine's units and wipes what Slipway wrote. Afterwards the agent takes nothing more.
    pub async fn reset(&self, epoch: u64, machine_name: &str) -> Result<(), AgentError> {
        let request = v1::ResetRequest { machine_uid: self.machine_uid.clone(), epoch, confirm_name: machine_name.to_owned() };
        self.peer.call(self.grpc.clone().reset(request)).await.map(|_| ())
    }

    /// A new certificate request for the agent's key.
    pub async fn renewal_request(&self, epoch: u64) -> Result<String, AgentError> {
        self.renew(epoch, String::new(), String::new()).await
    }

    /// Installs a renewed certificate and the authority to trust from now on.
    pub async fn install_renewed(&self, epoch: u64, certificate_pem: &str, ca_pem: &str) -> Result<(), AgentError> {
        self.renew(epoch, certificate_pem.to_owned(), ca_pem.to_owned()).await.map(|_| ())
    }

    async fn renew(&self, epoch: u64, certificate_pem: String, ca_pem: String) -> Result<String, AgentError> {
        let request = v1::RenewRequest {
            machine_uid: self.machine_uid.clone(),
            epoch,
            certificate_pem: certificate_pem.into_bytes(),
            ca_pem: ca_pem.into_bytes(),
        };
        let answer = self.peer.call(self.grpc.clone().renew(request)).await?;
        String::from_utf8(answer.csr_pem)
            .map_err(|_| AgentError::Failed { peer: self.peer.name.clone(), why: "its request is not PEM".into() })
    }
}

// === impl UnclaimedAgent ===

impl UnclaimedAgent {
    /// Who the agent says it is. Unproved: good for finding out whose token to try.
    pub async fn get_info(&self) -> Result<v1::Info, AgentError> {
        self.peer.call(self.grpc.clone().get_info(v1::GetInfoRequest {})).await
    }

    /// Proves the token and returns the agent's certificate request, which the agent has vouched for with the same token.
    pub async fn claim(&self, token: &SecretString, machine_uid: &str) -> Result<String, AgentError> {
        let proof = claim::prove(token, Statement::Operator, &self.exporter, machine_uid);
        let request = v1::ClaimRequest { machine_uid: machine_uid.to_owned(), proof };
        let answer = self.peer.call(self.grpc.clone().claim(request)).await?;
        let wrong = |why: &str| AgentError::WrongIdentity { peer: self.peer.name.clone(), why: why.to_owned() };
        if !claim::verify(token, Statement::Agent { csr_pem: &answer.csr_pem }, &self.exporter, machine_uid, &answer.proof) {
            return Err(wrong("it does not know the machine's token"));
        }
        String::from_utf8(answer.csr_pem).map_err(|_| wrong("its certificate request is not PEM"))
    }

    /// Installs the signed certificate and the agent CA. May be repeated until the first call over mTLS.
    pub async fn install(&self, token: &SecretString, machine_uid: &str, certificate_pem: &str, ca_pem: &str) -> Result<(), AgentError> {
        let (certificate, ca) = (certificate_pem.as_bytes(), ca_pem.as_bytes());
        let statement = Statement::Install { certificate_pem: certificate, ca_pem: ca };
        let request = v1::InstallRequest {
            machine_uid: machine_uid.to_owned(),
            proof: claim::prove(token, statement, &self.exporter, machine_uid),
            certificate_pem: certificate.to_vec(),
            ca_pem: ca.to_vec(),
        };
        self.peer.call(self.grpc.clone().install(request)).await.map(|_| ())
    }
}
