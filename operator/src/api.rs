//! One way to call a Kubernetes API: with a deadline, without hidden repetition, and with errors whose class is plain.
//!
//! kube's client has no read timeout and by default repeats 429s itself for minutes, which would hide a disruption budget's refusal: clients made by
//! [`crate::clients`] switch that off, and every call goes through [`call`].

use std::future::Future;
use std::time::Duration;

/// How long one call may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Why a call to a Kubernetes API failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time: it may or may not have had its effect.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// Refused, or not reached.
    #[error("{}", text(.0))]
    Kube(Box<kube::Error>),
}

/// A refusal's message without its wrapping; of transport errors the whole chain, since the outermost says nothing.
fn text(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return if status.message.is_empty() { format!("{} ({})", status.reason, status.code) } else { status.message.clone() };
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

impl CallError {
    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Deadline(_) => None,
        }
    }

    /// The object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// It was there before.
    #[must_use]
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_already_exists)
    }

    /// Somebody else wrote first, or a precondition did not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// 429: of an eviction, a disruption budget's refusal.
    #[must_use]
    pub fn is_too_many_requests(&self) -> bool {
        self.status().is_some_and(|s| s.code == 429)
    }
}

/// A call with the usual deadline.
pub async fn call<T>(future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    call_within(DEADLINE, future).await
}

/// A call with a deadline of its own.
pub async fn call_within<T>(deadline: Duration, future: impl Future<Output = Result<T, kube::Error>>) -> Result<T, CallError> {
    match tokio::time::timeout(deadline, future).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(CallError::Kube(Box::new(error))),
        Err(_) => Err(CallError::Deadline(deadline)),
    }
}
