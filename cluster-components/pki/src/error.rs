//! What can go wrong. Never quotes key material: a key that cannot be read is named, not shown.

/// Why a certificate was not made or not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// A Secret lacks an entry.
    #[error("the Secret has no key {key:?}: restore it from a backup, or delete the Secret if the cluster may get a new identity")]
    Missing {
        /// The entry's name.
        key: String,
    },
    /// An entry is not what its name says.
    #[error("{key:?} of the Secret is {problem}: restore it from a backup")]
    Malformed {
        /// The entry's name.
        key: String,
        /// What is wrong, without the content.
        problem: &'static str,
    },
    /// A certificate and a key that do not belong together.
    #[error("{certificate:?} and {key:?} of the Secret do not belong together: restore both from the same backup")]
    Mismatch {
        /// The certificate's entry.
        certificate: String,
        /// The key's entry.
        key: String,
    },
    /// A certificate request that is refused.
    #[error("the certificate request of machine {machine} is refused: {problem}")]
    Request {
        /// The machine's uid, as recorded.
        machine: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The cryptographic library refused.
    #[error("cannot {what}: {problem}")]
    Crypto {
        /// What was being made.
        what: String,
        /// The library's message. It speaks of formats, never of contents.
        problem: String,
    },
}

impl PkiError {
    pub(crate) fn crypto(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Crypto { what: what.into(), problem: problem.to_string() }
    }
}
