//! Who this machine is: `/etc/slipway/identity.json`, written by user data. Its token is the seal: emptied, it is burnt.

use crate::root::{self, Access, Root};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The identity file.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `metadata.uid` of the Machine.
    pub machine_uid: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid` of the Cluster.
    pub cluster_uid: String,
    /// The one-time token; empty when it is burnt.
    pub token: SecretString,
    /// Where to listen.
    pub listen: SocketAddr,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Json {
    machine_uid: String,
    name: String,
    cluster_uid: String,
    token: String,
    listen: SocketAddr,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not there: user data has not run.
    #[error("{0} is missing: the machine's user data writes it at the first boot")]
    Missing(String),
    /// There, but not as expected. The error never quotes the file: it holds the token.
    #[error("{0} is not the identity of a machine: {1}")]
    Malformed(String, String),
    /// The file system's own words.
    #[error("{0}: {words}", words = root::words(.1))]
    Io(String, std::io::Error),
}

impl Identity {
    /// Reads it.
    pub fn read(root: &Root) -> Result<Self, IdentityError> {
        let path = root.identity();
        let shown = path.display().to_string();
        let bytes = root::read(&path).map_err(|e| IdentityError::Io(shown.clone(), e))?;
        let bytes = bytes.ok_or_else(|| IdentityError::Missing(shown.clone()))?;
        let malformed = |why: &str| IdentityError::Malformed(shown.clone(), why.to_owned());
        let json: Json = serde_json::from_slice(&bytes).map_err(|e| malformed(&format!("line {}, column {}", e.line(), e.column())))?;
        let label = |text: &str| !text.is_empty() && text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !label(&json.machine_uid) {
            return Err(malformed("machineUid must be 1 to 63 letters, digits and dashes"));
        }
        let Json { machine_uid, name, cluster_uid, token, listen } = json;
        Ok(Self { machine_uid, name, cluster_uid, token: token.into(), listen })
    }

    /// Burns the token: durably before it returns.
    pub fn burn(&self, root: &Root) -> Result<Self, IdentityError> {
        let burnt = Self { token: String::new().into(), ..self.clone() };
        let Self { machine_uid, name, cluster_uid, listen, .. } = burnt.clone();
        let path = root.identity();
        let io = |e: std::io::Error| IdentityError::Io(path.display().to_string(), e);
        let bytes = serde_json::to_vec(&Json { machine_uid, name, cluster_uid, token: String::new(), listen }).map_err(|e| io(e.into()))?;
        root::replace_durably(&path, &bytes, Access::SECRET).map_err(io)?;
        Ok(burnt)
    }

    /// Whether the token is burnt.
    #[must_use]
    pub fn sealed(&self) -> bool {
        self.token.expose_secret().is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TEXT: &str = r#"{"machineUid":"uid-1","name":"demo-cp-0","clusterUid":"uid-0","token":"70ken","listen":"0.0.0.0:7443"}"#;

    #[test]
    fn burning_empties_the_token_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root::replace(&root.identity(), TEXT.as_bytes(), Access::SECRET).unwrap();
        let identity = Identity::read(&root).unwrap();
        assert!(!identity.sealed());
        identity.burn(&root).unwrap();
        let again = Identity::read(&root).unwrap();
        assert!(again.sealed());
        assert_eq!((again.machine_uid.as_str(), again.name.as_str()), ("uid-1", "demo-cp-0"));
    }

    #[test]
    fn a_malformed_identity_is_refused_without_showing_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root::replace(&root.identity(), TEXT.replace("7443", "seven").as_bytes(), Access::SECRET).unwrap();
        let error = Identity::read(&root).unwrap_err().to_string();
        assert!(!error.contains("70ken"), "{error}");
    }
}
