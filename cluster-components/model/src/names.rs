//! Names of clusters, pools and machines: DNS labels whose lengths are chosen so that every name made of them is one too.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest cluster name. `<cluster>-<pool>-<ordinal>` is a Node name, a host name and a label value: at most 63 characters.
const CLUSTER_MAX: usize = 30;
/// Longest pool name: 30 + 1 + 20 + 1 + 11 digits of an ordinal = 63.
const POOL_MAX: usize = 20;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("{what} is empty: give it 1 to {max} lower-case letters, digits or '-'")]
    Empty {
        /// What was being named.
        what: &'static str,
        /// The longest that is allowed.
        max: usize,
    },
    /// Longer than the names made of it can bear.
    #[error("{what} {name:?} has {len} characters: at most {max} are allowed, since machine names are made of it")]
    TooLong {
        /// What was being named.
        what: &'static str,
        /// The text.
        name: String,
        /// Its length in characters.
        len: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// Not a DNS label (RFC 1123).
    #[error("{what} {name:?} must be lower-case letters, digits and '-', and begin and end with a letter or digit")]
    NotALabel {
        /// What was being named.
        what: &'static str,
        /// The text.
        name: String,
    },
}

fn label(what: &'static str, max: usize, name: &str) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what, max });
    }
    let len = name.chars().count();
    if len > max {
        return Err(NameError::TooLong { what, name: name.to_owned(), len, max });
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
        return Err(NameError::NotALabel { what, name: name.to_owned() });
    }
    Ok(name.to_owned())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                label($what, $max, name).map(Self)
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                name.parse()
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A cluster's name: a DNS label of at most 30 characters.
    ClusterName, "the cluster name", CLUSTER_MAX
);
name!(
    /// A node pool's name: a DNS label of at most 20 characters. `cp` is the control plane's and cannot be taken by a pool of the user's.
    PoolName, "the pool name", POOL_MAX
);
name!(
    /// A machine's name, `<cluster>-<pool>-<ordinal>`: its Machine object, its host name, and on the local cloud its Node.
    MachineName, "the machine name", 63
);

impl PoolName {
    /// The control plane's pool.
    #[must_use]
    pub fn control_plane() -> Self {
        Self("cp".to_owned())
    }

    /// Whether this is the control plane's.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.0 == "cp"
    }
}

impl MachineName {
    /// The machine of a pool with this ordinal. Ordinals are never used twice.
    #[must_use]
    pub fn of(cluster: &ClusterName, pool: &PoolName, ordinal: u32) -> Self {
        Self(format!("{cluster}-{pool}-{ordinal}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_names_still_make_a_label() {
        let cluster: ClusterName = "c".repeat(CLUSTER_MAX).parse().unwrap();
        let pool: PoolName = "p".repeat(POOL_MAX).parse().unwrap();
        assert!(MachineName::of(&cluster, &pool, u32::MAX).as_str().parse::<MachineName>().is_ok());
    }

    #[test]
    fn what_is_no_label_is_refused_with_its_reason() {
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
        let long = "x".repeat(31).parse::<ClusterName>().unwrap_err().to_string();
        assert!(long.contains("31 characters: at most 30"), "{long}");
    }
}
