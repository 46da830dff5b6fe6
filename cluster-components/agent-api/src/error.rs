//! What can go wrong between operator and agent, by what the caller should do about it.

use crate::{refusal, v1};
use std::error::Error as StdError;
use tonic::{Code, Status};

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call may well succeed in a moment.
    Retry,
    /// Something else has to happen first: look at the machine again, then decide.
    Wait,
    /// The same call never succeeds.
    Terminal,
}

/// Why a call to an agent did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody answers, or the connection broke, or the answer took too long.
    #[error("the agent at {peer} does not answer: {why}")]
    Unreachable {
        /// Address or machine.
        peer: String,
        /// The transport's words.
        why: String,
    },
    /// Whoever answers is not the machine's agent.
    #[error("whoever answers at {peer} is not the agent that was meant: {why}")]
    WrongIdentity {
        /// Address or machine.
        peer: String,
        /// What is wrong.
        why: String,
    },
    /// The agent is not claimed (or says so: an unclaimed agent can prove nothing).
    #[error("the agent at {peer} is not claimed yet")]
    NotClaimed {
        /// Address or machine.
        peer: String,
    },
    /// The agent's token is burnt.
    #[error("the agent at {peer} is claimed already and its token is burnt")]
    AlreadyClaimed {
        /// Address or machine.
        peer: String,
    },
    /// A later leader has spoken to the agent: this operator must step back.
    #[error("the agent at {peer} has heard epoch {heard}: this operator is not the leader any more")]
    StaleEpoch {
        /// Address or machine.
        peer: String,
        /// Highest epoch heard by the agent.
        heard: u64,
    },
    /// Another plan was accepted since the caller looked.
    #[error("the agent at {peer} has accepted another plan meanwhile ({current:.12}): observe again")]
    DigestMismatch {
        /// Address or machine.
        peer: String,
        /// Digest of the plan last accepted, empty when there is none.
        current: String,
    },
    /// The agent is another build than the caller thinks.
    #[error("the agent at {peer} is build {current:.12} by now: observe again")]
    OtherBuild {
        /// Address or machine.
        peer: String,
        /// sha256 of the build that runs.
        current: String,
    },
    /// Another build of the agent is on trial.
    #[error("build {build:.12} is on trial at {peer}: wait for its end")]
    OnTrial {
        /// Address or machine.
        peer: String,
        /// sha256 of the build on trial.
        build: String,
    },
    /// This build of the agent was tried there and did not stay.
    #[error("the agent at {peer} does not take build {build:.12}: {why}")]
    RefusedBuild {
        /// Address or machine.
        peer: String,
        /// sha256 of the build.
        build: String,
        /// The agent's words.
        why: String,
    },
    /// The machine was reset.
    #[error("the machine at {peer} was reset")]
    Reset {
        /// Address or machine.
        peer: String,
    },
    /// The agent says no: certificate, proof, content or method.
    #[error("the agent at {peer} refuses: {why}")]
    Refused {
        /// Address or machine.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The agent could not do it.
    #[error("the agent at {peer} failed: {why}")]
    Failed {
        /// Address or machine.
        peer: String,
        /// Its words.
        why: String,
    },
    /// The caller's own certificates are unusable.
    #[error("the operator's own certificates for agents are unusable: {0}")]
    Own(String),
}

impl AgentError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } | Self::Failed { .. } => ErrorClass::Retry,
            Self::NotClaimed { .. }
            | Self::AlreadyClaimed { .. }
            | Self::DigestMismatch { .. }
            | Self::OtherBuild { .. }
            | Self::OnTrial { .. } => ErrorClass::Wait,
            Self::WrongIdentity { .. }
            | Self::StaleEpoch { .. }
            | Self::RefusedBuild { .. }
            | Self::Reset { .. }
            | Self::Refused { .. }
            | Self::Own(_) => ErrorClass::Terminal,
        }
    }

    /// Whether the machine is silent, as opposed to saying no.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(crate) fn silent(peer: &str, why: impl std::fmt::Display) -> Self {
        Self::Unreachable { peer: peer.to_owned(), why: why.to_string() }
    }

    pub(crate) fn from_status(peer: &str, status: &Status) -> Self {
        let (peer, why) = (peer.to_owned(), status.message().to_owned());
        if let Some(refusal) = refusal::read(status) {
            use v1::refusal::Reason;
            return match refusal.reason() {
                Reason::NotClaimed => Self::NotClaimed { peer },
                Reason::AlreadyClaimed => Self::AlreadyClaimed { peer },
                Reason::WrongMachine => Self::WrongIdentity { peer, why },
                Reason::StaleEpoch => Self::StaleEpoch { peer, heard: refusal.epoch },
                Reason::DigestMismatch => Self::DigestMismatch { peer, current: refusal.current_digest },
                Reason::Reset => Self::Reset { peer },
                Reason::OtherBuild => Self::OtherBuild { peer, current: refusal.current_digest },
                Reason::OnTrial => Self::OnTrial { peer, build: refusal.current_digest },
                Reason::RefusedBuild => Self::RefusedBuild { peer, build: refusal.current_digest, why },
                Reason::WrongProof | Reason::Unauthenticated | Reason::Invalid | Reason::Unspecified => Self::Refused { peer, why },
            };
        }
        // In TLS 1.3 the client's handshake is over before the server has looked at the client's certificate: its refusal arrives as an alert
        // in place of the first answer.
        if let Some(alert) = tls_error(status) {
            return Self::from_tls(&peer, alert);
        }
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Self::Unreachable { peer, why: reason(status) },
            Code::Internal | Code::Aborted | Code::DataLoss => Self::Failed { peer, why },
            _ => Self::Refused { peer, why },
        }
    }

    pub(crate) fn from_tls(peer: &str, error: &rustls::Error) -> Self {
        use rustls::{AlertDescription as Alert, CertificateError, Error};
        let (peer, why) = (peer.to_owned(), error.to_string());
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) if other.to_string() == crate::tls::UNCLAIMED => {
                Self::NotClaimed { peer }
            }
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => Self::WrongIdentity { peer, why },
            Error::AlertReceived(
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::AccessDenied
                | Alert::DecryptError
                | Alert::UnsupportedCertificate,
            ) => Self::Refused { peer, why: format!("it does not accept the operator's certificate ({why})") },
            _ => Self::Unreachable { peer, why },
        }
    }
}

/// The innermost words of a transport's error: `transport error` alone helps nobody.
fn reason(status: &Status) -> String {
    let mut words = status.message().to_owned();
    let mut source = StdError::source(status);
    while let Some(error) = source {
        words = error.to_string();
        source = error.source();
    }
    words
}

/// TLS's own error behind a status or an I/O error.
pub(crate) fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io::Error's source() is its inner error's source, and skips the inner error itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
