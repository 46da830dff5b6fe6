//! HTTP over mutual TLS: who may call what, and a table from method and path to a call. Bodies are small, checked, and refused when they
//! hold fields that nobody knows.

use super::Daemon;
use super::calls::{Press, valid_uid};
use crate::tls::Role;
use crate::wire::{CertificateRequest, Changes, Clusters, Faults, REVISION_HEADER, Routes, Targets, Text};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use slipway_cloud_api::{CloudError, ClusterKey, ErrorClass, InstanceRequest, LoadBalancerRequest};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Largest body.
const BODY_MAX: usize = 1 << 20;
/// How long a client may take for its handshake, its head and its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;

/// The reply is lost on purpose: hyper cuts the connection on an error.
#[derive(Debug, thiserror::Error)]
#[error("the reply is lost (injected)")]
struct Lost;

/// An answer: the JSON and the revision that it shows.
type Answer = Result<(Vec<u8>, Option<u64>), CloudError>;

/// Serves for ever.
pub async fn serve(daemon: Arc<Daemon>, listener: TcpListener, tls: rustls::ServerConfig, start: u64) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(e) => {
                tracing::warn!("accepting a connection: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (daemon, acceptor) = (Arc::clone(&daemon), acceptor.clone());
        tokio::spawn(async move {
            let _place = place;
            connection(daemon, acceptor, tcp, start).await;
        });
    }
}

async fn connection(daemon: Arc<Daemon>, acceptor: TlsAcceptor, tcp: TcpStream, start: u64) {
    let _ = tcp.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(tcp)).await else { return };
    let role = stream.get_ref().1.peer_certificates().and_then(|chain| role(chain.first()?));
    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&daemon), role.clone(), request, start));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(600))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        tracing::debug!("a connection ended: {e}");
    }
}

fn role(certificate: &rustls::pki_types::CertificateDer<'_>) -> Option<Role> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Role::parse(name)
}

async fn answer(daemon: Arc<Daemon>, role: Option<Role>, request: Request<Incoming>, start: u64) -> Result<Response<Full<Bytes>>, Lost> {
    let (head, body) = request.into_parts();
    let refused = |call: String, status, message: &str| Ok(reply(&Err(CloudError::terminal(call, message)), Some(status)));
    let path = head.uri.path().to_owned();
    let segments: Vec<String> = path.trim_start_matches('/').split('/').map(ToOwned::to_owned).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let what = format!("{} {path}", head.method);
    let Some(call) = Call::parse(&head.method, &segments) else {
        return refused(what, StatusCode::NOT_FOUND, "there is no such call");
    };
    if !call.allowed(role.as_ref()) {
        return refused(what, StatusCode::FORBIDDEN, "the client's certificate does not allow this call");
    }
    let body = match tokio::time::timeout(PATIENCE, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return refused(what, StatusCode::PAYLOAD_TOO_LARGE, "the body broke off, or is larger than 1 MiB"),
        Err(_) => return refused(what, StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time"),
    };
    let verdict = daemon.faults.judge(call.name());
    if verdict.delay > Duration::ZERO {
        tokio::time::sleep(verdict.delay).await;
    }
    if verdict.fail {
        return Ok(reply(&Err(CloudError::retry(what, "injected fault")), None));
    }
    let query = head.uri.query().unwrap_or_default().to_owned();
    // A task of its own: a client that hangs up must not break off what it began.
    let done = tokio::spawn(async move { call.run(&daemon, &query, &body, start).await }).await;
    if verdict.lose {
        return Err(Lost);
    }
    Ok(reply(&done.unwrap_or_else(|e| Err(CloudError::retry(what, format!("the call broke down: {e}")))), None))
}

fn reply(answer: &Answer, status: Option<StatusCode>) -> Response<Full<Bytes>> {
    let (default, body, revision) = match answer {
        Ok((body, revision)) => (StatusCode::OK, body.clone(), *revision),
        Err(e) => {
            let status = match e.class {
                ErrorClass::Retry => StatusCode::SERVICE_UNAVAILABLE,
                ErrorClass::Wait => StatusCode::CONFLICT,
                ErrorClass::Terminal => StatusCode::BAD_REQUEST,
            };
            (status, serde_json::to_vec(e).unwrap_or_default(), None)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.unwrap_or(default);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    if let Some(revision) = revision {
        response.headers_mut().insert(REVISION_HEADER, revision.into());
    }
    response
}

/// A call, as its method and path tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Status,
    GetFaults,
    SetFaults,
    IssueCertificate,
    Clusters,
    Inventory(String),
    Changed(String),
    EnsureNetwork(String),
    DeleteNetwork(String),
    SetRoutes(String),
    EnsureLoadBalancer(String),
    DeleteLoadBalancer(String),
    SetTargets(String),
    CreateInstance(String),
    DeleteInstance(String, String),
    Power(String, String, Press),
    Journal(String, String),
    Console(String, String),
}

impl Call {
    fn parse(method: &Method, path: &[&str]) -> Option<Self> {
        let (get, put, post, delete) = (Method::GET, Method::PUT, Method::POST, Method::DELETE);
        let ["v1", rest @ ..] = path else { return None };
        if let ["clusters", uid, rest @ ..] = rest {
            if !valid_uid(uid) || rest.iter().any(|s| s.is_empty()) {
                return None;
            }
            let (uid, id) = ((*uid).to_owned(), |id: &str| id.to_owned());
            return Some(match rest {
                ["inventory"] if method == get => Self::Inventory(uid),
                ["changes"] if method == get => Self::Changed(uid),
                ["network"] if method == put => Self::EnsureNetwork(uid),
                ["network"] if method == delete => Self::DeleteNetwork(uid),
                ["routes"] if method == put => Self::SetRoutes(uid),
                ["load-balancer"] if method == put => Self::EnsureLoadBalancer(uid),
                ["load-balancer"] if method == delete => Self::DeleteLoadBalancer(uid),
                ["load-balancer", "targets"] if method == put => Self::SetTargets(uid),
                ["instances"] if method == post => Self::CreateInstance(uid),
                ["instances", i] if method == delete => Self::DeleteInstance(uid, id(i)),
                ["instances", i, "start"] if method == post => Self::Power(uid, id(i), Press::Start),
                ["instances", i, "power-off"] if method == post => Self::Power(uid, id(i), Press::PowerOff),
                ["instances", i, "reboot"] if method == post => Self::Power(uid, id(i), Press::Reboot),
                ["instances", i, "journal"] if method == get => Self::Journal(uid, id(i)),
                ["instances", i, "console"] if method == get => Self::Console(uid, id(i)),
                _ => return None,
            });
        }
        match rest {
            ["status"] if method == get => Some(Self::Status),
            ["clusters"] if method == get => Some(Self::Clusters),
            ["faults"] if method == get => Some(Self::GetFaults),
            ["faults"] if method == put => Some(Self::SetFaults),
            ["certificates"] if method == post => Some(Self::IssueCertificate),
            _ => None,
        }
    }

    /// Name for fault injection: that of the method of the client.
    fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::GetFaults => "faults",
            Self::SetFaults => "set_faults",
            Self::IssueCertificate => "issue_certificate",
            Self::Clusters => "clusters",
            Self::Inventory(_) => "inventory",
            Self::Changed(_) => "changed",
            Self::EnsureNetwork(_) => "ensure_network",
            Self::DeleteNetwork(_) => "delete_network",
            Self::SetRoutes(_) => "set_routes",
            Self::EnsureLoadBalancer(_) => "ensure_load_balancer",
            Self::DeleteLoadBalancer(_) => "delete_load_balancer",
            Self::SetTargets(_) => "set_targets",
            Self::CreateInstance(_) => "create_instance",
            Self::DeleteInstance(..) => "delete_instance",
            Self::Power(_, _, Press::Start) => "start_instance",
            Self::Power(_, _, Press::PowerOff) => "power_off",
            Self::Power(_, _, Press::Reboot) => "reboot",
            Self::Journal(..) => "journal",
            Self::Console(..) => "console",
        }
    }

    /// A cloud-controller-manager sees its own cluster, and sets its routes; nothing else.
    fn allowed(&self, role: Option<&Role>) -> bool {
        match role {
            None => false,
            Some(Role::Admin | Role::Operator) => true,
            Some(Role::Ccm(own)) => match self {
                Self::Inventory(uid) | Self::Changed(uid) | Self::SetRoutes(uid) => uid == own,
                Self::Status => true,
                _ => false,
            },
        }
    }

    async fn run(self, daemon: &Arc<Daemon>, query: &str, body: &Bytes, start: u64) -> Answer {
        let call = self.name();
        match self {
            Self::Status => json(call, &daemon.status()),
            Self::GetFaults => json(call, &daemon.faults.get()),
            Self::SetFaults => {
                let faults: Faults = parse(call, body)?;
                super::faults::check(&faults).map_err(|e| CloudError::terminal(call, e))?;
                daemon.faults.set(faults);
                json(call, &())
            }
            Self::IssueCertificate => json(call, &daemon.issue_certificate(&parse::<CertificateRequest>(call, body)?.role)?),
            Self::Clusters => json(call, &Clusters { clusters: daemon.world().clusters() }),
            Self::Inventory(uid) => {
                // Taken before the inventory: a change in between is told once too often, never too seldom.
                let revision = daemon.revision(&uid, start);
                let inventory = daemon.world().inventory(&daemon.layout, &uid);
                json(call, &inventory).map(|(body, _)| (body, Some(revision)))
            }
            Self::Changed(uid) => {
                let (mut since, mut wait) = (0, 30_000);
                for (key, value) in pairs(call, query)? {
                    match key {
                        "since" => since = number(call, key, value)?,
                        "timeoutMs" => wait = number(call, key, value)?,
                        _ => return Err(unknown(call, key)),
                    }
                }
                let revision = daemon.changes(&uid, since, Duration::from_millis(wait), start).await;
                json(call, &Changes { revision })
            }
            Self::EnsureNetwork(uid) => {
                let cluster: ClusterKey = parse(call, body)?;
                same(call, &uid, &cluster.uid)?;
                json(call, &daemon.ensure_network(&cluster).await?)
            }
            Self::DeleteNetwork(uid) => json(call, &daemon.delete_network(&uid).await?),
            Self::SetRoutes(uid) => json(call, &daemon.set_routes(&uid, parse::<Routes>(call, body)?.routes).await?),
            Self::EnsureLoadBalancer(uid) => {
                let request: LoadBalancerRequest = parse(call, body)?;
                same(call, &uid, &request.cluster.uid)?;
                json(call, &daemon.ensure_load_balancer(&request).await?)
            }
            Self::DeleteLoadBalancer(uid) => json(call, &daemon.delete_load_balancer(&uid).await?),
            Self::SetTargets(uid) => json(call, &daemon.set_targets(&uid, parse::<Targets>(call, body)?.targets).await?),
            Self::CreateInstance(uid) => {
                let request: InstanceRequest = parse(call, body)?;
                same(call, &uid, &request.cluster.uid)?;
                json(call, &daemon.create_instance(&request).await?)
            }
            Self::DeleteInstance(uid, id) => json(call, &daemon.delete_instance(&uid, &id).await?),
            Self::Power(uid, id, press) => json(call, &daemon.power(&uid, &id, press).await?),
            Self::Journal(uid, id) => {
                let (mut unit, mut lines) = (None, 200);
                for (key, value) in pairs(call, query)? {
                    match key {
                        "unit" => unit = Some(value),
                        "lines" => lines = u32::try_from(number(call, key, value)?).unwrap_or(u32::MAX),
                        _ => return Err(unknown(call, key)),
                    }
                }
                json(call, &Text { text: daemon.journal(&uid, &id, unit, lines).await? })
            }
            Self::Console(uid, id) => json(call, &Text { text: daemon.console(&uid, &id).await? }),
        }
    }
}

fn json(call: &str, answer: &impl Serialize) -> Answer {
    serde_json::to_vec(answer).map(|body| (body, None)).map_err(|e| CloudError::retry(call, e))
}

fn parse<T: DeserializeOwned>(call: &str, body: &Bytes) -> Result<T, CloudError> {
    serde_json::from_slice(body).map_err(|e| CloudError::terminal(call, format!("the body is not as it should be: {e}")))
}

fn same(call: &str, path: &str, body: &str) -> Result<(), CloudError> {
    if path == body {
        Ok(())
    } else {
        Err(CloudError::terminal(call, format!("cluster uid {path:?} in the path and {body:?} in the body")))
    }
}

fn pairs<'a>(call: &str, query: &'a str) -> Result<Vec<(&'a str, &'a str)>, CloudError> {
    let split = |pair: &'a str| pair.split_once('=').ok_or_else(|| CloudError::terminal(call, format!("query {pair:?} is no key=value")));
    query.split('&').filter(|p| !p.is_empty()).map(split).collect()
}

fn number(call: &str, key: &str, value: &str) -> Result<u64, CloudError> {
    value.parse().map_err(|_| CloudError::terminal(call, format!("query {key}={value}: not a number")))
}

fn unknown(call: &str, key: &str) -> CloudError {
    CloudError::terminal(call, format!("query {key:?} is not known"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn call(method: Method, path: &str) -> Option<Call> {
        Call::parse(&method, &path.split('/').collect::<Vec<_>>())
    }

    #[test]
    fn a_controller_manager_reads_its_cluster_and_sets_its_routes_only() {
        let ccm = Role::Ccm("u1".into());
        let allowed = |method, path| call(method, path).unwrap().allowed(Some(&ccm));
        assert!(allowed(Method::GET, "v1/clusters/u1/inventory") && allowed(Method::PUT, "v1/clusters/u1/routes"));
        assert!(!allowed(Method::GET, "v1/clusters/u2/inventory") && !allowed(Method::PUT, "v1/clusters/u2/routes"));
        assert!(!allowed(Method::POST, "v1/clusters/u1/instances") && !allowed(Method::POST, "v1/certificates"));
        assert!(!allowed(Method::PUT, "v1/faults") && !allowed(Method::GET, "v1/clusters"));
        assert!(!call(Method::GET, "v1/status").unwrap().allowed(None));
    }

    #[test]
    fn paths_that_are_no_calls_are_none() {
        for path in
            ["v1/clusters/../inventory", "v1/clusters/u1/instances/", "v2/status", "v1/clusters/u1", "v1/clusters/u%2F1/inventory", ""]
        {
            assert_eq!(call(Method::GET, path), None, "{path}");
        }
        assert_eq!(call(Method::DELETE, "v1/status"), None);
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let said = parse::<Targets>("set_targets", &Bytes::from_static(b"{\"targets\":[],\"colour\":1}")).unwrap_err();
        assert_eq!(said.class, ErrorClass::Terminal);
        assert!(said.message.contains("colour"), "{said}");
        assert!(pairs("x", "a").is_err());
    }
}
