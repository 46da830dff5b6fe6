//! Refusals as data: the agent writes one into a status' details, the client reads it back.

use crate::v1;
use prost::Message;
use tonic::{Code, Status};

/// Why an agent does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The call needs a claimed agent.
    #[error("this agent is not claimed yet: claim it first")]
    NotClaimed,
    /// The token is burnt.
    #[error("this agent is claimed and its token is burnt: speak to it with the operator's certificate")]
    AlreadyClaimed,
    /// The call names another machine.
    #[error("this is machine {own}, not {asked}")]
    WrongMachine {
        /// Who this is.
        own: String,
        /// Who was asked for.
        asked: String,
    },
    /// Not this machine's token, or not proved in this TLS session.
    #[error("the proof of the token is wrong")]
    WrongProof,
    /// The call needs the operator's certificate.
    #[error("this call needs the operator's certificate, signed by the cluster's agent CA")]
    Unauthenticated,
    /// A later leader has spoken.
    #[error("epoch {asked} is over: epoch {heard} has spoken")]
    StaleEpoch {
        /// Highest epoch heard.
        heard: u64,
        /// The caller's.
        asked: u64,
    },
    /// Another plan was accepted meanwhile.
    #[error("the plan last accepted is {}, not {}: look again before changing it", shown(current), shown(expected))]
    DigestMismatch {
        /// Digest of the plan last accepted, empty before the first.
        current: String,
        /// What the caller thought.
        expected: String,
    },
    /// What was sent cannot be right.
    #[error("{0}")]
    Invalid(String),
    /// This machine was reset.
    #[error("this machine was reset and takes nothing more")]
    Reset,
    /// The agent is another build than the caller thinks.
    #[error("this agent is build {}, not {}: look again before replacing it", shown(current), shown(expected))]
    OtherBuild {
        /// sha256 of the build that runs.
        current: String,
        /// What the caller thought.
        expected: String,
    },
    /// Another build is on trial.
    #[error("build {} is on trial here: wait for its end", shown(build))]
    OnTrial {
        /// sha256 of the build on trial.
        build: String,
    },
    /// This build was tried here and did not stay.
    #[error("build {} was tried here and did not stay ({why}): make another build", shown(build))]
    RefusedBuild {
        /// sha256 of the build.
        build: String,
        /// What was wrong with it.
        why: String,
    },
}

fn shown(digest: &str) -> &str {
    if digest.is_empty() { "none" } else { digest.get(..12).unwrap_or(digest) }
}

impl Refusal {
    fn reason(&self) -> v1::refusal::Reason {
        use v1::refusal::Reason;
        match self {
            Self::NotClaimed => Reason::NotClaimed,
            Self::AlreadyClaimed => Reason::AlreadyClaimed,
            Self::WrongMachine { .. } => Reason::WrongMachine,
            Self::WrongProof => Reason::WrongProof,
            Self::Unauthenticated => Reason::Unauthenticated,
            Self::StaleEpoch { .. } => Reason::StaleEpoch,
            Self::DigestMismatch { .. } => Reason::DigestMismatch,
            Self::Invalid(_) => Reason::Invalid,
            Self::Reset => Reason::Reset,
            Self::OtherBuild { .. } => Reason::OtherBuild,
            Self::OnTrial { .. } => Reason::OnTrial,
            Self::RefusedBuild { .. } => Reason::RefusedBuild,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::WrongProof | Self::AlreadyClaimed => Code::PermissionDenied,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotClaimed
            | Self::WrongMachine { .. }
            | Self::StaleEpoch { .. }
            | Self::DigestMismatch { .. }
            | Self::Reset
            | Self::OtherBuild { .. }
            | Self::OnTrial { .. }
            | Self::RefusedBuild { .. } => Code::FailedPrecondition,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = v1::Refusal { reason: refusal.reason().into(), ..v1::Refusal::default() };
        match &refusal {
            Refusal::StaleEpoch { heard, .. } => details.epoch = *heard,
            Refusal::DigestMismatch { current, .. } | Refusal::OtherBuild { current, .. } => details.current_digest.clone_from(current),
            Refusal::OnTrial { build } | Refusal::RefusedBuild { build, .. } => details.current_digest.clone_from(build),
            _ => {}
        }
        Status::with_details(refusal.code(), refusal.to_string(), details.encode_to_vec().into())
    }
}

/// The refusal in a status, if there is one.
pub(crate) fn read(status: &Status) -> Option<v1::Refusal> {
    if status.details().is_empty() {
        return None;
    }
    v1::Refusal::decode(status.details()).ok().filter(|refusal| refusal.reason() != v1::refusal::Reason::Unspecified)
}
