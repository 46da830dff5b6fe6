//! Kubernetes versions, `v1.36.4`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A full Kubernetes version. Ordered as versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubernetesVersion {
    /// 36 of v1.36.4. The major version is 1.
    pub minor: u32,
    /// 4 of v1.36.4.
    pub patch: u32,
}

/// Why a text is no Kubernetes version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no Kubernetes version: write it as v1.36.4")]
pub struct VersionError {
    /// The text.
    pub text: String,
}

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    /// Takes exactly `v1.MINOR.PATCH`, without leading zeros, pre-releases or build tags.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let parsed = || {
            let rest = text.strip_prefix("v1.")?;
            let (minor, patch) = rest.split_once('.')?;
            Some(Self { minor: minor.parse().ok()?, patch: patch.parse().ok()? })
        };
        parsed().filter(|v| v.to_string() == text).ok_or_else(|| VersionError { text: text.to_owned() })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1.{}.{}", self.minor, self.patch)
    }
}

impl TryFrom<String> for KubernetesVersion {
    type Error = VersionError;
    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<KubernetesVersion> for String {
    fn from(version: KubernetesVersion) -> String {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_full_versions_are_versions() {
        assert_eq!("v1.36.4".parse::<KubernetesVersion>().unwrap().to_string(), "v1.36.4");
        for bad in ["1.36.4", "v1.36", "v2.0.0", "v1.036.4", "v1.36.4-rc.1", "v1.36.+4", ""] {
            assert!(bad.parse::<KubernetesVersion>().is_err(), "{bad}");
        }
        assert!("v1.9.10".parse::<KubernetesVersion>().unwrap() < "v1.36.0".parse().unwrap());
    }
}
