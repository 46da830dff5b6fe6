//! TLS of the operator's end: TLS 1.3 only, no resumption (a connection's authority ends with it).

use crate::{AgentError, AnyCertificate, UNCLAIMED_SERVER_NAME};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// The operator towards one cluster's agents: its certificate and the authority that signs theirs.
#[derive(Debug, Clone)]
pub struct OperatorIdentity {
    pub(crate) config: Arc<ClientConfig>,
}

impl OperatorIdentity {
    /// From PEM: a client certificate (CN `slipway-operator`) with its key, and the cluster's agent CA.
    pub fn from_pem(cert_pem: &str, key_pem: &str, ca_pem: &str) -> Result<Self, AgentError> {
        let own = |what: &'static str| move |e: rustls::pki_types::pem::Error| AgentError::Own(format!("{what}: {e}"));
        let tls = |e: rustls::Error| AgentError::Own(e.to_string());
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(cert_pem.as_bytes()).collect::<Result<_, _>>().map_err(own("the client certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(own("the client key"))?;
        let mut roots = RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(ca.map_err(own("the agent CA"))?).map_err(tls)?;
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| AgentError::Own(format!("the agent CA: {e}")))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Claimed { webpki }))
            .with_client_auth_cert(chain, key)
            .map_err(tls)?;
        finish(&mut config);
        Ok(Self { config: Arc::new(config) })
    }
}

/// Towards an agent that can prove nothing yet by its certificate: the token does.
pub(crate) fn unclaimed_config() -> Result<Arc<ClientConfig>, AgentError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| AgentError::Own(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    finish(&mut config);
    Ok(Arc::new(config))
}

fn finish(config: &mut ClientConfig) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What a verifier says when it meets a self-signed agent where it expects a claimed one.
pub(crate) const UNCLAIMED: &str = "the agent is not claimed";

#[derive(Debug, thiserror::Error)]
#[error("{UNCLAIMED}")]
struct UnclaimedMet;

/// webpki's own verification, with a better word for an agent that is merely not claimed.
#[derive(Debug)]
struct Claimed {
    webpki: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Claimed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(|error| {
            if says_unclaimed(end_entity) {
                rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(UnclaimedMet))))
            } else {
                error
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

fn says_unclaimed(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    parsed.subject().iter_common_name().any(|name| name.as_str() == Ok(UNCLAIMED_SERVER_NAME))
}
