//! `GET` and `POST /plan/NAMESPACE/NAME`. Computed beside the runtime, one at a time and within bounds, so that asking never holds up a pass.
//!
//! | answer | when |
//! |---|---|
//! | 200 | a [`Foreseen`]; as text where the caller accepts text rather than JSON |
//! | 404 | this operator keeps no such cluster (or has not looked at it yet) |
//! | 422 | the spec cannot be acted on; the Status names the field |
//! | 429 | another forecast is being computed |
//! | 503 | this operator does not lead, the management API does not answer, or there is no end within five seconds |
//!
//! Refusals are Kubernetes' own Status objects. A forecast holds names, versions and what is waited for, never a Secret.

use super::{Foreseen, admission, of_look};
use crate::artifacts::ArtifactIndex;
use crate::clock;
use crate::context::ClusterRef;
use crate::looks::{Look, Looks};
use crate::metrics::Metrics;
use crate::validate;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use kube::Client;
use kube::core::Status;
use serde::Serialize;
use serde_json::Value;
use slipway_crds::Cluster;
use slipway_model::{ClusterName, ClusterSpec};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many forecasts are computed at once: passes need the processor, too.
const AT_ONCE: usize = 1;
/// How long one may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Larger clusters are not foreseen here: memory grows with them.
const MOST_MACHINES: u64 = 1000;
/// More than any Cluster is long.
const MOST_BYTES: usize = 256 * 1024;

/// What forecasts are made from.
pub struct Desk {
    looks: Arc<Looks>,
    metrics: Arc<Metrics>,
    client: Client,
    artifacts: ArtifactIndex,
    free: Arc<Semaphore>,
}

impl Desk {
    /// One per process.
    #[must_use]
    pub fn new(looks: Arc<Looks>, metrics: Arc<Metrics>, client: Client, artifacts: ArtifactIndex) -> Self {
        Self { looks, metrics, client, artifacts, free: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The right to compute, or that somebody else does.
    pub(super) fn turn(&self) -> Result<OwnedSemaphorePermit, Box<Status>> {
        let busy = |_| failure(429, "TooManyRequests", "another forecast is being computed: ask again in a second");
        self.free.clone().try_acquire_owned().map_err(busy)
    }

    fn leads(&self) -> Result<(), Box<Status>> {
        if self.metrics.is_leading() {
            return Ok(());
        }
        Err(failure(503, "ServiceUnavailable", "this operator does not lead: it has seen no cluster"))
    }

    async fn stored(&self, cluster: &ClusterRef) -> Result<Foreseen, Box<Status>> {
        self.leads()?;
        let missing =
            || failure(404, "NotFound", &format!("no cluster {} in namespace {} has been looked at", cluster.name, cluster.namespace));
        let known = self.looks.of(cluster).ok_or_else(missing)?;
        if let Some(invalid) = known.refused {
            return Err(admission::invalid(&cluster.name, invalid.field(), &invalid.to_string()));
        }
        let look = known.look.ok_or_else(missing)?;
        foresee(self.turn()?, look.spec.clone(), Some(look)).await
    }

    async fn candidate(&self, cluster: &ClusterRef, candidate: &Value) -> Result<Foreseen, Box<Status>> {
        self.leads()?;
        // Asking the API costs something, too.
        let turn = self.turn()?;
        let invalid = |field: &str, problem: &str| admission::invalid(&cluster.name, field, problem);
        for (field, pointer, wanted) in
            [("metadata.name", "/metadata/name", &cluster.name), ("metadata.namespace", "/metadata/namespace", &cluster.namespace)]
        {
            let said = candidate.pointer(pointer).and_then(Value::as_str);
            if said.is_some_and(|said| said != wanted) {
                return Err(invalid(field, &format!("is not {wanted}, which the path names")));
            }
        }
        let admitted = admission::admit(&self.client, cluster, candidate).await?;
        let spec = self.spec(&admitted.wanted).map_err(|(field, problem)| invalid(field, &problem))?;
        let look = self.looks.of(cluster).and_then(|known| known.look);
        if look.as_ref().and_then(|l| l.generation) < admitted.generation {
            return Err(failure(503, "ServiceUnavailable", "the Cluster as it is now has not been looked at yet: ask again in a second"));
        }
        foresee(turn, Arc::new(spec), look).await
    }

    /// The candidate in the model's types, or which field says what cannot be.
    fn spec(&self, wanted: &Cluster) -> Result<ClusterSpec, (&'static str, String)> {
        let spec = validate::validate(wanted, &self.artifacts).map_err(|e| (e.field(), e.to_string()))?;
        let machines = u64::from(spec.control_plane.replicas) + spec.pools.iter().map(|p| u64::from(p.replicas.unwrap_or(1))).sum::<u64>();
        if machines > MOST_MACHINES {
            return Err(("spec.pools", format!("{machines} machines are more than the {MOST_MACHINES} that are foreseen")));
        }
        Ok(spec)
    }
}

async fn foresee(turn: OwnedSemaphorePermit, spec: Arc<ClusterSpec>, look: Option<Arc<Look>>) -> Result<Foreseen, Box<Status>> {
    let now = clock::now();
    let compute = move || {
        let begin = Instant::now();
        let foreseen = of_look(&spec, look.as_deref(), now, || begin.elapsed() < WITHIN);
        // Kept to the end even if the caller has gone: what bounds the work is the work itself.
        drop(turn);
        foreseen
    };
    match tokio::task::spawn_blocking(compute).await {
        Ok(Some(foreseen)) => Ok(foreseen),
        Ok(None) => Err(failure(503, "Timeout", &format!("no end was found within {WITHIN:?}"))),
        Err(error) => Err(failure(500, "InternalError", &format!("the forecast ended unexpectedly: {error}"))),
    }
}

/// The routes.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new().route("/plan/{namespace}/{name}", get(stored).post(candidate)).layer(DefaultBodyLimit::max(MOST_BYTES)).with_state(desk)
}

async fn stored(State(desk): State<Arc<Desk>>, Path((namespace, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let answer = match reference(&namespace, &name) {
        Ok(cluster) => desk.stored(&cluster).await,
        Err(status) => Err(status),
    };
    respond(answer, &headers)
}

async fn candidate(
    State(desk): State<Arc<Desk>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = match (reference(&namespace, &name), parse(&name, &body)) {
        (Ok(cluster), Ok(candidate)) => desk.candidate(&cluster, &candidate).await,
        (Err(status), _) | (_, Err(status)) => Err(status),
    };
    respond(answer, &headers)
}

/// Names that can be a cluster's. They become parts of the management API's paths.
fn reference(namespace: &str, name: &str) -> Result<ClusterRef, Box<Status>> {
    name.parse::<ClusterName>().map_err(|e| admission::invalid(name, "metadata.name", &e.to_string()))?;
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if namespace.is_empty() || namespace.len() > 63 || !namespace.bytes().all(letters) {
        return Err(admission::invalid(name, "metadata.namespace", &format!("{namespace:?} is no name of a namespace")));
    }
    Ok(ClusterRef::new(namespace, name))
}

/// JSON is YAML.
fn parse(name: &str, body: &[u8]) -> Result<Value, Box<Status>> {
    let wrong = |problem: &str| failure(400, "BadRequest", &format!("the candidate for Cluster {name} is not understood: {problem}"));
    let text = std::str::from_utf8(body).map_err(|e| wrong(&e.to_string()))?;
    let object: Value = serde_saphyr::from_str(text).map_err(|e| wrong(&e.to_string()))?;
    let says = |field: &str, wanted: &str| object.get(field).and_then(Value::as_str) == Some(wanted);
    if !says("kind", "Cluster") || !says("apiVersion", "slipway.dev/v1alpha1") {
        return Err(wrong("a Cluster of slipway.dev/v1alpha1 is expected"));
    }
    Ok(object)
}

fn failure(code: u16, reason: &str, message: &str) -> Box<Status> {
    Status::failure(message, reason).with_code(code).boxed()
}

/// As the Kubernetes API refuses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Refusal {
    kind: &'static str,
    api_version: &'static str,
    #[serde(flatten)]
    status: Box<Status>,
}

fn respond(answer: Result<Foreseen, Box<Status>>, headers: &HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match answer {
        Ok(foreseen) if accepts.starts_with("text/") => foreseen.to_string().into_response(),
        Ok(foreseen) => Json(foreseen).into_response(),
        Err(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (code, Json(Refusal { kind: "Status", api_version: "v1", status })).into_response();
            if matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            }
            response
        }
    }
}
