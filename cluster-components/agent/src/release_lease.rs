//! `slipway-agent release-lease`: gives back the Lease of a controller that has ended on this machine (as ExecStopPost), so that another leads within
//! its next try and not when the Lease has run out. kube-controller-manager and kube-scheduler do not do so themselves.
//!
//! It is safe because it is systemd that calls it: every process of the unit is gone, and none is started again before this ends. Of a Lease that another
//! machine holds nothing is touched, and one that changes meanwhile is not written (its resourceVersion goes with it).

use crate::http::{HttpError, Target, Trust, exchange};
use http::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// A stop lasts no longer for it: its API server may be gone as well.
const WITHIN: Duration = Duration::from_secs(1);

/// Why a Lease was not given back.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Nobody could be asked.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The API server is silent.
    #[error("no answer within {} ms", WITHIN.as_millis())]
    Timeout,
    /// It refuses.
    #[error("{asked}: answered {status}")]
    Refused {
        /// GET or PUT.
        asked: Method,
        /// Its status: 409 where another was quicker.
        status: StatusCode,
    },
    /// What it answers is no Lease.
    #[error("no Lease in the answer: {0}")]
    Lease(#[from] serde_json::Error),
}

/// What was done with a Lease.
#[derive(Debug, PartialEq, Eq)]
pub enum Released {
    /// It was this machine's, and is nobody's now.
    Yes,
    /// Another holds it, or nobody.
    NotOurs,
}

/// Clears the holder of the Lease at `lease` (its URL) where a process of the machine `host` holds it.
pub async fn release(lease: &Target, trust: &Trust, host: &str) -> Result<Released, ReleaseError> {
    timeout(WITHIN, async {
        let found: Value = serde_json::from_slice(&asked(Method::GET, lease, trust, vec![]).await?)?;
        let Some(free) = without_holder(found, host) else { return Ok(Released::NotOurs) };
        asked(Method::PUT, lease, trust, serde_json::to_vec(&free)?).await?;
        Ok(Released::Yes)
    })
    .await
    .map_err(|_| ReleaseError::Timeout)?
}

async fn asked(method: Method, lease: &Target, trust: &Trust, body: Vec<u8>) -> Result<Vec<u8>, ReleaseError> {
    match exchange(method.clone(), lease, trust, body).await? {
        (StatusCode::OK, body) => Ok(body.to_vec()),
        (status, _) => Err(ReleaseError::Refused { asked: method, status }),
    }
}

/// The Lease without its holder, where that is a process of `host`: identities are `<host name>_<uuid>`.
fn without_holder(mut lease: Value, host: &str) -> Option<Value> {
    let spec = lease.get_mut("spec")?.as_object_mut()?;
    let (machine, _) = spec.get("holderIdentity")?.as_str()?.rsplit_once('_')?;
    if machine != host {
        return None;
    }
    spec.remove("holderIdentity");
    Some(lease)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_lease_that_this_machine_holds_is_given_back_and_nothing_else_of_it_changes() {
        let lease = |holder: &str| {
            json!({"metadata": {"name": "kube-scheduler", "resourceVersion": "7"},
                   "spec": {"holderIdentity": holder, "leaseDurationSeconds": 9, "leaseTransitions": 3}})
        };
        let free = without_holder(lease("demo-cp-1_5f8c"), "demo-cp-1").unwrap();
        assert_eq!(
            free,
            json!({"metadata": {"name": "kube-scheduler", "resourceVersion": "7"}, "spec": {"leaseDurationSeconds": 9, "leaseTransitions": 3}})
        );
        for other in ["demo-cp-2_5f8c", "demo-cp-11_5f8c", "demo-cp-1", ""] {
            assert_eq!(without_holder(lease(other), "demo-cp-1"), None, "{other}");
        }
        assert_eq!(without_holder(free, "demo-cp-1"), None, "nobody holds it");
        assert_eq!(without_holder(json!({"kind": "Status"}), "demo-cp-1"), None);
    }

    /// Answers each request with the next status and body; what was asked comes back.
    async fn server(answers: Vec<(u16, String)>) -> (Target, tokio::task::JoinHandle<Vec<String>>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}/lease", listener.local_addr().unwrap())).unwrap();
        let asked = tokio::spawn(async move {
            let mut asked = vec![];
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = String::new();
                let mut buffer = [0; 4096];
                let whole = |request: &str| {
                    let (head, body) = request.split_once("\r\n\r\n")?;
                    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    (body.len() >= length.unwrap_or(0)).then_some(())
                };
                while whole(&request).is_none() {
                    let read = stream.read(&mut buffer).await.unwrap();
                    request.push_str(std::str::from_utf8(buffer.get(..read).unwrap()).unwrap());
                }
                asked.push(request);
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (target, asked)
    }

    #[tokio::test]
    async fn what_is_written_is_what_was_read_without_the_holder() {
        let lease = json!({"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": "a_1", "leaseTransitions": 3}}).to_string();
        let (target, asked) = server(vec![(200, lease.clone()), (200, "{}".to_owned())]).await;
        assert_eq!(release(&target, &Trust::anybody().unwrap(), "a").await.unwrap(), Released::Yes);
        let asked = asked.await.unwrap();
        assert!(asked.first().unwrap().starts_with("GET /lease "));
        let put = asked.get(1).unwrap();
        assert!(put.starts_with("PUT /lease "), "{put}");
        assert!(put.ends_with(r#"{"metadata":{"resourceVersion":"7"},"spec":{"leaseTransitions":3}}"#), "{put}");

        let (target, asked) = server(vec![(200, lease.clone())]).await;
        assert_eq!(release(&target, &Trust::anybody().unwrap(), "b").await.unwrap(), Released::NotOurs);
        assert_eq!(asked.await.unwrap().len(), 1, "nothing is written");

        let (target, _) = server(vec![(200, lease), (409, "{}".to_owned())]).await;
        let refused = release(&target, &Trust::anybody().unwrap(), "a").await.unwrap_err();
        assert!(matches!(refused, ReleaseError::Refused { asked: Method::PUT, status: StatusCode::CONFLICT }), "{refused}");
    }

    #[tokio::test]
    async fn an_api_server_that_is_silent_holds_up_a_stop_for_a_second_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::parse(&format!("http://{}/lease", listener.local_addr().unwrap())).unwrap();
        assert!(matches!(release(&target, &Trust::anybody().unwrap(), "a").await, Err(ReleaseError::Timeout)));
    }
}
