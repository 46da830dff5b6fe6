//! A cluster's agent CA and the operator's identity, for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use slipway_agent_api::{OPERATOR_COMMON_NAME, OperatorIdentity, server_name};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "agent CA");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Signs a request for the machine, whatever the request says of names.
    pub fn sign(&self, csr_pem: &str, machine_uid: &str) -> String {
        self.sign_until(csr_pem, machine_uid, 4000)
    }

    /// The same, good until a year begins.
    pub fn sign_until(&self, csr_pem: &str, machine_uid: &str, year: i32) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        request.params = leaf(&server_name(machine_uid), ExtendedKeyUsagePurpose::ServerAuth);
        request.params.not_after = rcgen::date_time_ymd(year, 1, 1);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    pub fn client(&self, common_name: &str) -> OperatorIdentity {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(common_name, ExtendedKeyUsagePurpose::ClientAuth).signed_by(&key, &self.issuer).unwrap();
        OperatorIdentity::from_pem(&certificate.pem(), &key.serialize_pem(), &self.pem).unwrap()
    }

    /// TLS settings of an operator that keeps to no rule.
    pub fn rustls(&self) -> rustls::ClientConfig {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(OPERATOR_COMMON_NAME, ExtendedKeyUsagePurpose::ClientAuth).signed_by(&key, &self.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }

    pub fn operator(&self) -> OperatorIdentity {
        self.client(OPERATOR_COMMON_NAME)
    }

    /// Trusts this authority's agents, but shows a certificate of another's.
    pub fn impostor(&self) -> OperatorIdentity {
        let other = Self::new();
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(OPERATOR_COMMON_NAME, ExtendedKeyUsagePurpose::ClientAuth).signed_by(&key, &other.issuer).unwrap();
        OperatorIdentity::from_pem(&certificate.pem(), &key.serialize_pem(), &self.pem).unwrap()
    }
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::new(vec![common_name.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    params
}
