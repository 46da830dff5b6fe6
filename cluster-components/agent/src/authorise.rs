//! Who may call what: a rule per method, decided on the URI path before a byte of the message is read. What has no rule is refused.

use crate::server::Peer;
use crate::service::{Complaints, Machine};
use http::{Request, Response};
use http_body_util::Limited;
use slipway_agent_api::refusal::Refusal;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anybody until the token is burnt; then only the operator.
    UntilSealed,
    /// Whoever knows the token, until it is burnt; then nobody.
    Token,
    /// The operator.
    Operator,
}

/// What strangers may send at most.
const STRANGERS_MESSAGE: usize = 64 * 1024;

/// The rule of a method.
#[must_use]
pub fn rule(path: &str) -> Option<Rule> {
    Some(match path.strip_prefix("/slipway.agent.v1.Agent/")? {
        "GetInfo" => Rule::UntilSealed,
        "Claim" | "Install" => Rule::Token,
        "Renew" | "ApplyPlan" | "Watch" | "Logs" | "Tunnel" | "EtcdSnapshot" | "Update" | "Reset" => Rule::Operator,
        _ => return None,
    })
}

/// What is to be done with a call.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Do it.
    Pass,
    /// Burn the token first: this is the operator's first call.
    SealFirst,
}

fn judge(path: &str, operator: bool, sealed: bool) -> Result<Verdict, Status> {
    let rule = rule(path).ok_or_else(|| Status::permission_denied(format!("{path} is no method of this agent")))?;
    match (rule, operator) {
        (Rule::Operator | Rule::UntilSealed, true) => Ok(if sealed { Verdict::Pass } else { Verdict::SealFirst }),
        (Rule::UntilSealed | Rule::Token, _) if sealed => Err(Refusal::AlreadyClaimed.into()),
        (Rule::UntilSealed | Rule::Token, _) => Ok(Verdict::Pass),
        (Rule::Operator, false) => Err(Refusal::Unauthenticated.into()),
    }
}

/// The layer.
#[derive(Clone)]
pub struct Authorise {
    /// Whose calls these are.
    pub machine: Arc<Machine>,
    /// Where refusals are logged.
    pub complaints: Arc<Complaints>,
}

impl<S> Layer<S> for Authorise {
    type Service = Authorised<S>;

    fn layer(&self, inner: S) -> Authorised<S> {
        Authorised { inner, rules: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Authorised<S> {
    inner: S,
    rules: Authorise,
}

impl<S> Service<Request<Body>> for Authorised<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The instance that was ready takes the call; its clone takes the next.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let Authorise { machine, complaints } = self.rules.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("a connection without a peer").into_http());
            };
            let request = if peer.operator { request } else { request.map(|body| Body::new(Limited::new(body, STRANGERS_MESSAGE))) };
            let verdict = machine.buried(&path).and_then(|()| judge(&path, peer.operator, machine.sealed()));
            let verdict = match verdict {
                Ok(Verdict::SealFirst) => machine.seal().await,
                Ok(Verdict::Pass) => Ok(()),
                Err(status) => Err(status),
            };
            let response = match verdict {
                Ok(()) => inner.call(request).await?,
                Err(status) => status.into_http(),
            };
            let refused = Status::from_header_map(response.headers());
            if peer.operator && refused.is_none() {
                machine.answered();
            }
            if let Some(status) = refused {
                complaints.say(status.message(), &peer.address.ip().to_string(), &path);
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_agent_api::METHODS;

    #[test]
    fn every_method_of_the_contract_has_a_rule() {
        assert!(METHODS.len() >= 9);
        for method in METHODS {
            assert!(rule(method).is_some(), "{method} has none");
        }
    }

    #[test]
    fn what_is_not_in_the_contract_is_refused_even_to_the_operator() {
        for path in ["/slipway.agent.v1.Agent/Exec", "/slipway.agent.v1.Agent/", "/grpc.health.v1.Health/Check", "/", "/GetInfo"] {
            assert!(!METHODS.contains(&path));
            assert_eq!(judge(path, true, true).unwrap_err().code(), tonic::Code::PermissionDenied, "{path}");
        }
    }

    #[test]
    fn the_token_opens_two_doors_until_it_is_burnt_and_the_certificate_all_others() {
        for method in METHODS {
            let open = matches!(rule(method).unwrap(), Rule::Token | Rule::UntilSealed);
            assert_eq!(judge(method, false, false).is_ok(), open, "a stranger before the seal: {method}");
            assert!(judge(method, false, true).is_err(), "a stranger after the seal: {method}");
            let operators = rule(method).unwrap() != Rule::Token;
            assert_eq!(judge(method, true, true).is_ok(), operators, "the operator: {method}");
        }
        assert_eq!(judge("/slipway.agent.v1.Agent/Watch", true, false).unwrap(), Verdict::SealFirst);
    }
}
