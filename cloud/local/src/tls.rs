//! The daemon's certificate authority, the certificates of its clients' roles, and TLS settings for both ends.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key could not be read.
    #[error("the {what} is not PEM as expected: {why}")]
    Pem {
        /// Which.
        what: &'static str,
        /// Parser's words.
        why: String,
    },
    /// rustls refuses.
    #[error("TLS settings: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verifier of client certificates refuses.
    #[error("verifier of client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(TlsError::Pem { what, why: "no certificate in it".into() }),
        Err(e) => Err(TlsError::Pem { what, why: e.to_string() }),
    }
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| TlsError::Pem { what: "key", why: e.to_string() })
}

fn roots(ca_pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for ca in certificates("CA certificate", ca_pem)? {
        roots.add(ca)?;
    }
    Ok(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Settings of a client that shows `cert_pem` and trusts only `ca_pem`.
pub fn client_config(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(ca_pem)?)
        .with_client_auth_cert(certificates("client certificate", cert_pem)?, key(key_pem)?)?)
}

/// Settings of a server that wants a certificate of `ca_pem` from every client.
pub fn server_config(ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider()).build()?;
    Ok(ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates("server certificate", cert_pem)?, key(key_pem)?)?)
}

/// The daemon's certificate authority: made at the first start, kept in `<state>/pki`.
pub struct Authority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
}

/// CAs outlive any local cloud; leaves are made anew by whoever needs one.
const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;

/// What a client may do, by the common name of its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything.
    Operator,
    /// Read that cluster's inventory, set its routes.
    Ccm(String),
}

impl Role {
    /// From a common name, or from what somebody asks a certificate for.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "admin" => Some(Self::Admin),
            "operator" => Some(Self::Operator),
            _ => name.strip_prefix("ccm:").filter(|uid| crate::daemon::calls::valid_uid(uid)).map(|uid| Self::Ccm(uid.to_owned())),
        }
    }
}

fn params(common_name: &str, days: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::now_utc();
    // Clocks of machines are the host's; a minute is for leap seconds and rounding.
    params.not_before = now - Duration::minutes(1);
    params.not_after = now + Duration::days(days);
    Ok(params)
}

impl Authority {
    /// Opens the authority in a directory, or makes it.
    pub fn open(directory: &Path) -> Result<Self, TlsError> {
        let at = |path: PathBuf| move |why| TlsError::File { path, why };
        std::fs::create_dir_all(directory).map_err(at(directory.into()))?;
        let (cert, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        // The key is written first: a certificate without its key would be taken for a whole authority.
        let (ca_pem, key) = if cert.exists() {
            let read = |path: &Path| std::fs::read_to_string(path).map_err(at(path.into()));
            (read(&cert)?, KeyPair::from_pem(&read(&key)?)?)
        } else {
            let pair = KeyPair::generate()?;
            let mut params = params("slipway-local CA", CA_DAYS)?;
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            let pem = params.self_signed(&pair)?.pem();
            keep(&key, &pair.serialize_pem())?;
            keep(&cert, &pem)?;
            (pem, pair)
        };
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)?;
        Ok(Self { ca_pem, issuer, directory: directory.into() })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// (certificate, key) of a client.
    pub fn client(&self, common_name: &str) -> Result<(String, String), TlsError> {
        self.leaf(common_name, ExtendedKeyUsagePurpose::ClientAuth, None)
    }

    fn leaf(&self, common_name: &str, usage: ExtendedKeyUsagePurpose, address: Option<Ipv4Addr>) -> Result<(String, String), TlsError> {
        let key = KeyPair::generate()?;
        let mut params = params(common_name, LEAF_DAYS)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.subject_alt_names.extend(address.map(|a| rcgen::SanType::IpAddress(IpAddr::V4(a))));
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// A server certificate for an address and the administrator's client certificate, both made anew at each start and kept beside the CA.
    pub fn server(&self, address: Ipv4Addr) -> Result<ServerConfig, TlsError> {
        let (cert, key) = self.leaf("slipway-local", ExtendedKeyUsagePurpose::ServerAuth, Some(address))?;
        keep(&self.directory.join("server.key"), &key)?;
        keep(&self.directory.join("server.crt"), &cert)?;
        server_config(&self.ca_pem, &cert, &key)
    }

    /// The administrator's client certificate, made anew where it is missing or has less than half of its life left.
    pub fn ensure_admin(&self) -> Result<(), TlsError> {
        let (cert, key) = (self.directory.join("admin.crt"), self.directory.join("admin.key"));
        let fresh = std::fs::metadata(&cert)
            .and_then(|m| m.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() < u64::try_from(LEAF_DAYS).unwrap_or(0) * 86_400 / 2));
        if !fresh || !key.exists() {
            let (new_cert, new_key) = self.client("admin")?;
            keep(&key, &new_key)?;
            keep(&cert, &new_cert)?;
        }
        Ok(())
    }
}

fn keep(path: &Path, pem: &str) -> Result<(), TlsError> {
    crate::host::write_durable(path, pem.as_bytes()).map_err(|e| TlsError::File { path: path.into(), why: std::io::Error::other(e) })
}
