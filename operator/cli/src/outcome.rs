//! How a command ends, as a number for scripts and as words for people.
//!
//! Commands return `anyhow::Result<Outcome>`. An error is a failure (5) unless it carries one of the types below, which say more.

use std::process::ExitCode;

/// The end of a command. The numbers are part of the interface: docs/reference/cli.md lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, or nothing to do.
    Done,
    /// The command line was not understood.
    Usage,
    /// Not done, and nothing was changed: the message says what is in the way.
    Refused,
    /// The time was up before the condition was met. What was begun goes on.
    TimedOut,
    /// Something broke on the way. Running the same command again carries on.
    Failed,
    /// `slipway plan`: applying the file would change something.
    WouldChange,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::TimedOut => 4,
            Self::Failed => 5,
            Self::WouldChange => 6,
        }
    }

    /// Every outcome with what it means, for the reference.
    #[must_use]
    pub fn all() -> [(Self, &'static str); 6] {
        [
            (Self::Done, "done, or nothing to do"),
            (Self::Usage, "the command line was not understood"),
            (Self::Refused, "refused, and nothing was changed: the message says what is in the way"),
            (Self::TimedOut, "the time was up before the condition was met; what was begun goes on"),
            (Self::Failed, "something broke on the way; the same command again carries on"),
            (Self::WouldChange, "`slipway plan` only: applying the file would change something"),
        ]
    }

    /// What an error means for the exit code.
    #[must_use]
    pub fn of_error(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(stop) = cause.downcast_ref::<Stop>() {
                return match stop {
                    Stop::Usage(_) => Self::Usage,
                    Stop::Refused(_) => Self::Refused,
                    Stop::TimedOut(_) => Self::TimedOut,
                };
            }
            if let Some(kube::Error::Api(status)) = cause.downcast_ref::<kube::Error>()
                && matches!(status.code, 400 | 403 | 409 | 422)
            {
                return Self::Refused;
            }
        }
        Self::Failed
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

/// Errors that end a command in their own way. The text names the thing and the way out.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The arguments do not fit together.
    #[error("{0}")]
    Usage(String),
    /// Somebody who may do so said no, or something is missing: nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The deadline passed.
    #[error("{0}")]
    TimedOut(String),
}

/// An error that refuses.
pub fn refused(text: impl Into<String>) -> anyhow::Error {
    Stop::Refused(text.into()).into()
}

/// An error about the command line.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Stop::Usage(text.into()).into()
}

/// An error of a passed deadline.
pub fn timed_out(text: impl Into<String>) -> anyhow::Error {
    Stop::TimedOut(text.into()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_numbers_are_the_documented_ones() {
        let codes: Vec<u8> = Outcome::all().iter().map(|(o, _)| o.code()).collect();
        assert_eq!(codes, [0, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn context_does_not_hide_what_an_error_means() {
        let wrapped = |e: anyhow::Error| Outcome::of_error(&Err::<(), _>(e).context("on the way").unwrap_err());
        assert_eq!(wrapped(refused("no")), Outcome::Refused);
        assert_eq!(wrapped(usage("what?")), Outcome::Usage);
        assert_eq!(wrapped(timed_out("late")), Outcome::TimedOut);
        assert_eq!(wrapped(anyhow::anyhow!("broken")), Outcome::Failed);
    }

    #[test]
    fn an_apiserver_that_rejects_an_object_refuses() {
        let rejected = |code| {
            let status = kube::core::Status::failure("Cluster \"x\" is invalid", "Invalid").with_code(code).boxed();
            Outcome::of_error(&kube::Error::Api(status).into())
        };
        assert_eq!(rejected(422), Outcome::Refused);
        assert_eq!(rejected(500), Outcome::Failed);
    }
}
