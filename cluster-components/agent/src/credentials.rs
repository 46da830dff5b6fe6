//! The agent's key, made on the machine and never leaving it; its certificate; and the TLS settings that follow from them.
//!
//! ```text
//! agent.key ─┬─ self-signed certificate              until Install: proves nothing, the token does
//!            └─ agent.crt + ca.crt                    from Install on: operators are asked for a certificate of that CA
//! ```

use crate::root::{self, Access, Root};
use arc_swap::ArcSwap;
use rcgen::{CertificateParams, DnType, KeyPair, PublicKeyData};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use slipway_agent_api::refusal::Refusal;
use slipway_agent_api::{UNCLAIMED_SERVER_NAME, server_name};
use std::sync::Arc;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file system's words.
    #[error("the agent's credentials in /var/lib/slipway/agent: {0}")]
    Io(#[from] std::io::Error),
    /// rcgen's words.
    #[error("making the agent's key or certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls' words.
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
    /// What was installed does not parse any more.
    #[error("{0} is damaged: {1}")]
    Damaged(&'static str, String),
}

/// Key, certificate and TLS settings.
pub struct Credentials {
    root: Root,
    machine_uid: String,
    key: KeyPair,
    current: ArcSwap<Current>,
}

/// What changes at Install and Renew.
struct Current {
    tls: Arc<ServerConfig>,
    claimed: bool,
    expires_ms: i64,
}

impl Credentials {
    /// Loads them, or makes the key at the first start.
    pub fn load(root: &Root, machine_uid: &str) -> Result<Self, CredentialError> {
        root::private_dir(&root.state(""))?;
        let path = root.state("agent.key");
        let key = match root::read(&path)? {
            Some(pem) => KeyPair::from_pem(&String::from_utf8_lossy(&pem))?,
            None => {
                let key = KeyPair::generate()?;
                root::replace_durably(&path, key.serialize_pem().as_bytes(), Access::SECRET)?;
                key
            }
        };
        let installed = root::read(&root.state("agent.crt"))?.zip(root::read(&root.state("ca.crt"))?);
        let current = match installed {
            Some((certificate, ca)) => claimed(&key, &certificate, &ca)?,
            None => unclaimed(&key)?,
        };
        Ok(Self { root: root.clone(), machine_uid: machine_uid.to_owned(), key, current: ArcSwap::from_pointee(current) })
    }

    /// Settings for the next connection.
    #[must_use]
    pub fn tls(&self) -> Arc<ServerConfig> {
        self.current.load().tls.clone()
    }

    /// Whether a certificate is installed.
    #[must_use]
    pub fn claimed(&self) -> bool {
        self.current.load().claimed
    }

    /// When the certificate ends, milliseconds since 1970; 0 without one.
    #[must_use]
    pub fn expires_ms(&self) -> i64 {
        self.current.load().expires_ms
    }

    /// A certificate request for the key. What it says of names is for people: the signer takes them from the Machine's record.
    pub fn request(&self) -> Result<String, CredentialError> {
        let params = params(&server_name(&self.machine_uid))?;
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// Checks a certificate with its authority, keeps both durably and shows them from the next connection on.
    pub fn install(&self, certificate_pem: &[u8], ca_pem: &[u8]) -> Result<(), InstallError> {
        let invalid = |why: String| InstallError::Refused(Refusal::Invalid(why));
        let chain = chain("certificate", certificate_pem).map_err(|e| invalid(e.to_string()))?;
        let leaf = chain.first().ok_or_else(|| invalid("no certificate was sent".into()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|e| invalid(format!("the certificate: {e}")))?;
        if parsed.public_key().raw != self.key.subject_public_key_info() {
            return Err(invalid("the certificate is not for this agent's key".into()));
        }
        let name = ServerName::try_from(server_name(&self.machine_uid)).map_err(|e| invalid(e.to_string()))?;
        let roots = roots(ca_pem).map_err(|e| invalid(e.to_string()))?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|e| invalid(format!("the CA: {e}")))?
            .verify_server_cert(leaf, chain.get(1..).unwrap_or_default(), &name, &[], UnixTime::now())
            .map_err(|e| invalid(format!("the certificate does not speak for {}: {e}", server_name(&self.machine_uid))))?;
        let current = claimed(&self.key, certificate_pem, ca_pem).map_err(|e| invalid(e.to_string()))?;
        let (ca, certificate) = (self.root.state("ca.crt"), self.root.state("agent.crt"));
        // A machine that dies between two writes must hear the caller who repeats this, whichever CA is his by then; its token is burnt.
        if let Some(before) = root::read(&ca)?.filter(|before| self.claimed() && before != ca_pem) {
            root::replace_durably(&ca, &[ca_pem, b"\n", &before].concat(), Access::PUBLIC)?;
            root::replace_durably(&certificate, certificate_pem, Access::PUBLIC)?;
        }
        // The CA first: a certificate without its CA counts as not installed, and the claim is repeated.
        root::replace_durably(&ca, ca_pem, Access::PUBLIC)?;
        root::replace_durably(&certificate, certificate_pem, Access::PUBLIC)?;
        self.current.store(Arc::new(current));
        Ok(())
    }
}

/// Why a certificate is not installed.
#[derive(Debug)]
pub enum InstallError {
    /// It cannot be right.
    Refused(Refusal),
    /// It could not be kept.
    Io(std::io::Error),
}

impl From<std::io::Error> for InstallError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn chain(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(|e| CredentialError::Damaged(what, e.to_string()))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, CredentialError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain("ca.crt", pem)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(CredentialError::Damaged("ca.crt", "no certificate in it".into()));
    }
    Ok(roots)
}

fn private(key: &KeyPair) -> Result<PrivateKeyDer<'static>, CredentialError> {
    PrivateKeyDer::try_from(key.serialize_der()).map_err(|e| CredentialError::Damaged("agent.key", e.to_owned()))
}

fn unclaimed(key: &KeyPair) -> Result<Current, CredentialError> {
    let certificate = params(UNCLAIMED_SERVER_NAME)?.self_signed(key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private(key)?)?;
    Ok(Current { tls: finish(config), claimed: false, expires_ms: 0 })
}

fn claimed(key: &KeyPair, certificate_pem: &[u8], ca_pem: &[u8]) -> Result<Current, CredentialError> {
    let chain = chain("agent.crt", certificate_pem)?;
    let leaf = chain.first().ok_or_else(|| CredentialError::Damaged("agent.crt", "no certificate in it".into()))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|e| CredentialError::Damaged("agent.crt", e.to_string()))?;
    let expires_ms = parsed.validity().not_after.timestamp().saturating_mul(1000);
    // Optional: an unclaimed caller repeats the claim without one, and is told by a typed refusal when it is too late.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| CredentialError::Damaged("ca.crt", e.to_string()))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private(key)?)?;
    Ok(Current { tls: finish(config), claimed: true, expires_ms })
}

fn finish(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry the authority of a certificate that may have been replaced.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}
