//! A certificate that speaks for somebody, and its key.

use crate::PkiError;
use crate::authority::Reading;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use slipway_model::{Content, Credential};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A certificate chain with its private key. The key is wiped on drop and never shown.
#[derive(Clone)]
pub struct Leaf {
    certificate: String,
    key: SecretString,
    subject: Subject,
}

/// What a certificate says, read back from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub common_name: String,
    pub organization: Option<String>,
    pub names: BTreeSet<String>,
    /// Key identifier of the authority that signed.
    pub authority: Vec<u8>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Leaf {
    pub(crate) fn new(certificate: String, key: SecretString) -> Result<Self, PkiError> {
        let problem = |problem: &'static str| PkiError::crypto("read back a certificate", problem);
        let subject = Reading::of(&certificate).and_then(|reading| reading.subject()).map_err(problem)?;
        Ok(Self { certificate, key, subject })
    }

    /// The chain, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key, PKCS #8 PEM.
    #[must_use]
    pub fn key(&self) -> &SecretString {
        &self.key
    }

    /// When it ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.subject.not_after
    }

    /// When it shall be replaced: after two thirds of its life.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let (from, to) = (self.subject.not_before.as_second(), self.subject.not_after.as_second());
        Timestamp::from_second(from + (to - from) / 3 * 2).unwrap_or(self.subject.not_after)
    }

    /// The same, as the model's plain type for rendering.
    #[must_use]
    pub fn credential(&self) -> Credential {
        Credential { certificate: self.certificate.clone(), key: Content::from(self.key.expose_secret()) }
    }

    pub(crate) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Writes `<name>.crt` and `<name>.key`.
    pub(crate) fn put(&self, name: &str, secret: &mut BTreeMap<String, Vec<u8>>) {
        secret.insert(format!("{name}.crt"), self.certificate.clone().into_bytes());
        secret.insert(format!("{name}.key"), self.key.expose_secret().as_bytes().to_vec());
    }

    /// Reads `<name>.crt` and `<name>.key`, and checks that they belong together.
    pub(crate) fn take(name: &str, secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, PkiError> {
        let (certificate_entry, key_entry) = (format!("{name}.crt"), format!("{name}.key"));
        let certificate = text(&certificate_entry, secret)?;
        let key = SecretString::from(text(&key_entry, secret)?);
        let malformed = |problem| PkiError::Malformed { key: certificate_entry.clone(), problem };
        let reading = Reading::of(&certificate).map_err(malformed)?;
        let subject = reading.subject().map_err(malformed)?;
        let pair = rcgen::KeyPair::from_pem(key.expose_secret())
            .map_err(|_| PkiError::Malformed { key: key_entry.clone(), problem: "no private key in PEM" })?;
        if !reading.belongs_to(&pair).map_err(malformed)? {
            return Err(PkiError::Mismatch { certificate: certificate_entry, key: key_entry });
        }
        Ok(Self { certificate, key, subject })
    }
}

/// An entry of a Secret that is text.
pub(crate) fn text(key: &str, secret: &BTreeMap<String, Vec<u8>>) -> Result<String, PkiError> {
    let bytes = secret.get(key).ok_or_else(|| PkiError::Missing { key: key.to_owned() })?;
    // `from_utf8`'s own error carries the bytes: it must not travel.
    String::from_utf8(bytes.clone()).map_err(|_| PkiError::Malformed { key: key.to_owned(), problem: "no text" })
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("subject", &self.subject).finish_non_exhaustive()
    }
}
