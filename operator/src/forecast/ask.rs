//! The other side of [`super::serve`]: asks an operator over a stream of the caller's, a tunnel for example.

use super::Foreseen;
use axum::body::{Body, to_bytes};
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use kube::core::Status;
use slipway_crds::Cluster;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// Longer than the operator computes.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any forecast is long.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The candidate, or the stored Cluster, cannot be acted on. Asking again does not help.
    #[error("{0}")]
    Refused(String),
    /// Not now.
    #[error("the operator cannot tell now: {0}")]
    NotNow(String),
    /// It was not reached, or does not speak as it should.
    #[error("the operator does not answer: {0}")]
    Silent(String),
}

/// What is to be foreseen.
#[derive(Debug, Clone, Copy)]
pub enum Question<'a> {
    /// The Cluster as it is stored.
    Stored,
    /// This one in its place.
    Candidate(&'a Cluster),
}

/// Asks once.
pub async fn ask<S>(stream: S, namespace: &str, name: &str, question: Question<'_>) -> Result<Foreseen, AskError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let silent = |e: &dyn std::fmt::Display| AskError::Silent(e.to_string());
    let path = format!("/plan/{namespace}/{name}");
    let request = match question {
        Question::Stored => Request::get(path).body(Body::empty()),
        Question::Candidate(cluster) => {
            // A plain type: writing it cannot fail.
            let body = serde_json::to_vec(cluster).unwrap_or_default();
            Request::post(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body))
        }
    };
    let mut request = request.map_err(|e| silent(&e))?;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("slipway-operator"));
    let answer = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| silent(&e))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(request).await.map_err(|e| silent(&e))?;
        let code = response.status();
        let body = to_bytes(Body::new(response.into_body()), MOST_BYTES).await.map_err(|e| silent(&e))?;
        drop(connection);
        read(code, &body)
    };
    tokio::time::timeout(PATIENCE, answer).await.map_err(|_| AskError::Silent(format!("not within {PATIENCE:?}")))?
}

fn read(code: StatusCode, body: &[u8]) -> Result<Foreseen, AskError> {
    if code.is_success() {
        return serde_json::from_slice(body).map_err(|e| AskError::Silent(format!("its answer is not understood: {e}")));
    }
    let said = serde_json::from_slice::<Status>(body).map_or_else(|_| String::from_utf8_lossy(body).into_owned(), |status| status.message);
    match code.as_u16() {
        400 | 422 => Err(AskError::Refused(said)),
        404 | 429 | 503 => Err(AskError::NotNow(said)),
        _ => Err(AskError::Silent(format!("{code}: {said}"))),
    }
}
