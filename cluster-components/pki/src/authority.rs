//! One certificate authority: its certificate, its key, and signing.

use crate::leaf::{Leaf, Subject};
use crate::{Identity, PkiError};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Clocks of machines differ: everything is valid a little earlier than it was made.
const EARLIER: SignedDuration = SignedDuration::from_mins(5);
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// Life of an authority, in days.
const AUTHORITY_DAYS: i32 = 3652;
/// Life of everything it signs, in days.
pub(crate) const LEAF_DAYS: i32 = 365;
/// The longest life of an agent's certificate, and its usual one.
pub const AGENT_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);

/// A certificate authority. Its key is wiped on drop and never shown.
#[derive(Clone)]
pub struct Authority {
    certificate: String,
    key: SecretString,
    subject: Subject,
}

impl Authority {
    /// Makes one that may sign leaves, and no authority below it.
    pub(crate) fn generate(common_name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let failed = |error: rcgen::Error| PkiError::crypto(format!("make the authority {common_name:?}"), error);
        let pair = KeyPair::generate().map_err(failed)?;
        let mut params = params(common_name, None, &[], now, DAY * AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&pair).map_err(failed)?.pem();
        Self::new(certificate, SecretString::from(pair.serialize_pem()))
            .map_err(|problem| PkiError::crypto("read back an authority", problem))
    }

    fn new(certificate: String, key: SecretString) -> Result<Self, &'static str> {
        let subject = Reading::of(&certificate)?.subject()?;
        Ok(Self { certificate, key, subject })
    }

    /// Its certificate, PEM: what others trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, PKCS #8 PEM.
    #[must_use]
    pub fn key(&self) -> &SecretString {
        &self.key
    }

    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.subject.not_after
    }

    /// Whether it signed this leaf, by key identifier.
    pub(crate) fn signed(&self, leaf: &Leaf) -> bool {
        key_identifier(&self.certificate).is_some_and(|own| own == leaf.subject().authority)
    }

    /// Makes a key and a certificate for an identity, valid for a number of days.
    pub(crate) fn issue(&self, identity: &Identity, now: Timestamp, days: i32) -> Result<Leaf, PkiError> {
        let name = identity.common_name();
        let failed = |error: rcgen::Error| PkiError::crypto(format!("make a certificate for {name:?}"), error);
        let pair = KeyPair::generate().map_err(failed)?;
        let mut params = params(&name, identity.organization(), &identity.alternative_names(), now, DAY * days)?;
        params.extended_key_usages = identity.usages();
        let certificate = params.signed_by(&pair, &self.issuer()?).map_err(failed)?.pem();
        Leaf::new(certificate, SecretString::from(pair.serialize_pem()))
    }

    /// Signs the key of an agent's request, for the uid and addresses of the Machine *record*: whatever else the request claims is dropped.
    pub(crate) fn sign_agent(
        &self,
        csr: &str,
        machine_uid: &str,
        addresses: &[String],
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<String, PkiError> {
        let refused = |problem| PkiError::Request { machine: machine_uid.to_owned(), problem };
        // Verifies the request's own signature: the agent holds the key it asks for.
        let request =
            CertificateSigningRequestParams::from_pem(csr).map_err(|_| refused("it is no valid request, or its signature is wrong"))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(refused("its key is not P-256"));
        }
        let names = [vec![crate::agent_server_name(machine_uid)], addresses.to_vec()].concat();
        let mut params = params(machine_uid, None, &names, now, life.min(AGENT_LIFE))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = params.signed_by(&request.public_key, &self.issuer()?);
        Ok(signed.map_err(|error| PkiError::crypto(format!("sign the certificate of the agent on {machine_uid}"), error))?.pem())
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, PkiError> {
        let what = || format!("use the authority {:?}", self.subject.common_name);
        let pair = KeyPair::from_pem(self.key.expose_secret()).map_err(|_| PkiError::crypto(what(), "its key is unreadable"))?;
        Issuer::from_ca_cert_pem(&self.certificate, pair).map_err(|error| PkiError::crypto(what(), error))
    }

    pub(crate) fn put(&self, name: &str, secret: &mut BTreeMap<String, Vec<u8>>) {
        secret.insert(format!("{name}.crt"), self.certificate.clone().into_bytes());
        secret.insert(format!("{name}.key"), self.key.expose_secret().as_bytes().to_vec());
    }

    pub(crate) fn take(name: &str, secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, PkiError> {
        let leaf = Leaf::take(name, secret)?;
        let malformed = |problem| PkiError::Malformed { key: format!("{name}.crt"), problem };
        if !Reading::of(leaf.certificate()).and_then(|reading| reading.is_authority()).map_err(malformed)? {
            return Err(malformed("not an authority's certificate"));
        }
        Ok(Self { certificate: leaf.certificate().to_owned(), key: leaf.key().clone(), subject: leaf.subject().clone() })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// What all certificates share. Names that are addresses become address entries.
fn params(
    common_name: &str,
    organization: Option<&str>,
    names: &[String],
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateParams, PkiError> {
    let what = || format!("make a certificate for {common_name:?}");
    let mut params = CertificateParams::new(names.to_vec()).map_err(|error| PkiError::crypto(what(), error))?;
    let at = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|error| PkiError::crypto(what(), error));
    params.not_before = at(now.saturating_sub(EARLIER).unwrap_or(now))?;
    params.not_after = at(now.saturating_add(life).unwrap_or(Timestamp::MAX))?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    // rcgen would derive the serial from the key, and a renewed agent keeps its key.
    let mut serial = [0u8; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| PkiError::crypto(what(), "the random source failed"))?;
    // Positive, and of full length: the first bit is the sign (RFC 5280, 4.1.2.2).
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn key_identifier(certificate: &str) -> Option<Vec<u8>> {
    Reading::of(certificate)
        .ok()?
        .with(|x509| {
            let own = x509.extensions().iter().find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
            own.ok_or("without a key identifier")
        })
        .ok()
}

/// A certificate that is being read. Messages name what is wrong and never quote.
pub(crate) struct Reading(Vec<u8>);

impl Reading {
    /// Takes the first certificate of a chain.
    pub(crate) fn of(pem: &str) -> Result<Self, &'static str> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|_| "no PEM")?;
        if block.label != "CERTIFICATE" {
            return Err("PEM, but no certificate");
        }
        Ok(Self(block.contents))
    }

    fn with<T>(&self, read: impl FnOnce(&X509Certificate<'_>) -> Result<T, &'static str>) -> Result<T, &'static str> {
        let (_, x509) = X509Certificate::from_der(&self.0).map_err(|_| "no X.509 certificate")?;
        read(&x509)
    }

    pub(crate) fn is_authority(&self) -> Result<bool, &'static str> {
        self.with(|x509| Ok(x509.is_ca()))
    }

    pub(crate) fn belongs_to(&self, pair: &KeyPair) -> Result<bool, &'static str> {
        self.with(|x509| Ok(x509.public_key().raw == pair.subject_public_key_info()))
    }

    pub(crate) fn subject(&self) -> Result<Subject, &'static str> {
        self.with(|x509| {
            let first = |mut entries: Vec<&str>| if entries.is_empty() { None } else { Some(entries.remove(0).to_owned()) };
            let time = |at: i64| Timestamp::from_second(at).map_err(|_| "dated beyond all time");
            let names = x509.subject_alternative_name().map_err(|_| "with unreadable names")?;
            let names = names.map(|ext| ext.value.general_names.iter().filter_map(name).collect()).unwrap_or_default();
            let authority = x509.extensions().iter().find_map(|e| match e.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
                _ => None,
            });
            Ok(Subject {
                common_name: first(x509.subject().iter_common_name().filter_map(|a| a.as_str().ok()).collect()).unwrap_or_default(),
                organization: first(x509.subject().iter_organization().filter_map(|a| a.as_str().ok()).collect()),
                names,
                authority: authority.unwrap_or_default(),
                not_before: time(x509.validity().not_before.timestamp())?,
                not_after: time(x509.validity().not_after.timestamp())?,
            })
        })
    }
}

fn name(general: &GeneralName<'_>) -> Option<String> {
    match general {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b)).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b)).to_string()),
            _ => None,
        },
        _ => None,
    }
}
