//! Forecasts over HTTP: what is answered, to whom, and what is refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::ask::{AskError, Question, ask};
use super::{Desk, Foreseen, Source, router};
use crate::artifacts::{ArtifactIndex, IndexEntry, OWN_COMPONENT};
use crate::context::ClusterRef;
use crate::looks::{Look, Looks};
use crate::metrics::Metrics;
use axum::body::{Body, to_bytes};
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use slipway_artifacts::{Component, catalogue};
use slipway_crds::Cluster;
use slipway_plan::{Observed, ToldEnd};
use std::sync::Arc;
use tower::ServiceExt;

fn object(spec: &Value) -> Value {
    json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "demo", "namespace": "default"}, "spec": spec})
}

fn spec(version: &str, replicas: u32) -> Value {
    json!({"kubernetesVersion": version, "provider": {"local": {}}, "controlPlane": {"replicas": replicas}, "pools": [{"name": "w", "replicas": 1}]})
}

/// What the catalogue's versions need, but for those of one minor.
fn index(without: &str) -> ArtifactIndex {
    let entry = |component: &str, version: &str, name: &str| IndexEntry {
        component: component.into(),
        version: version.into(),
        name: name.into(),
        sha256: "ab".repeat(32),
        size: 1,
    };
    let sets = catalogue::supported().iter().filter(|set| !set.kubernetes.starts_with(without));
    let mut entries: Vec<IndexEntry> = sets
        .flat_map(|set| Component::ALL.iter().map(move |c| (c, set)))
        .flat_map(|(c, set)| c.artifacts().map(|name| entry(c.name(), c.version(set), name)).collect::<Vec<_>>())
        .collect();
    entries.extend(["slipway-agent", "slipway-ccm-local"].map(|own| entry(OWN_COMPONENT, "0.1.0", own)));
    ArtifactIndex::new(entries, "file:///store")
}

/// A management API that has this Cluster, or none, and says this to every dry run; what it does not say it takes.
fn api(there: Option<Value>, refusal: Option<(u16, Value)>) -> Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (there, refusal) = (there.clone(), refusal.clone());
        async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let (code, answer) = if request.method() == http::Method::GET {
                there.map_or_else(|| (404, json!({"code": 404, "reason": "NotFound", "message": "no"})), |object| (200, object))
            } else {
                assert!(query.contains("dryRun=All") && query.contains("fieldValidation=Strict"), "{query}");
                let body = request.into_body().collect_bytes().await.unwrap();
                refusal.unwrap_or_else(|| (200, serde_json::from_slice(&body).unwrap()))
            };
            Ok::<_, std::io::Error>(Response::builder().status(code).body(Body::from(answer.to_string())).unwrap())
        }
    });
    Client::new(service, "default")
}

fn looked(generation: i64) -> Looks {
    let cluster: Cluster = serde_json::from_value(object(&spec("v1.36.4", 1))).unwrap();
    let looks = Looks::default();
    let look = Look {
        at: Timestamp::UNIX_EPOCH,
        generation: Some(generation),
        spec: Arc::new(crate::records::spec(&cluster).unwrap()),
        observed: Observed::nothing("uid", Timestamp::UNIX_EPOCH),
        outdated: 0,
    };
    looks.keep(&ClusterRef::new("default", "demo"), look);
    looks
}

fn desk(looks: Looks, client: Client) -> Arc<Desk> {
    let metrics = Arc::new(Metrics::default());
    metrics.leads(1);
    Arc::new(Desk::new(Arc::new(looks), metrics, client, index("v1.35")))
}

async fn answer(desk: &Arc<Desk>, request: Request<Body>) -> (StatusCode, Value) {
    let response = router(desk.clone()).oneshot(request).await.unwrap();
    let code = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (code, serde_json::from_slice(&body).unwrap_or_else(|_| Value::String(String::from_utf8(body.to_vec()).unwrap())))
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).body(body.into()).unwrap()
}

const DEMO: &str = "/plan/default/demo";

#[tokio::test]
async fn a_stored_cluster_is_foreseen_from_what_was_seen_of_it() {
    let desk = desk(looked(3), api(None, None));
    let (code, body) = answer(&desk, get(DEMO)).await;
    assert_eq!(code, 200, "{body}");
    let foreseen: Foreseen = serde_json::from_value(body.clone()).unwrap();
    assert_eq!((foreseen.from, foreseen.generation, foreseen.told.end), (Source::Operator, Some(3), ToldEnd::Done));
    assert_eq!(serde_json::to_value(&foreseen).unwrap(), body, "the JSON is read back whole");
    let text = Request::get(DEMO).header("accept", "text/plain").body(Body::empty()).unwrap();
    assert_eq!(answer(&desk, text).await, (StatusCode::OK, Value::String(foreseen.to_string())));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_who_does_not_lead_knows_nothing() {
    let desk = desk(looked(1), api(None, None));
    assert_eq!(answer(&desk, get("/plan/default/other")).await.0, 404);
    assert_eq!(answer(&desk, get("/plan/other/demo")).await.0, 404);
    let follower = Arc::new(Desk::new(Arc::new(looked(1)), Arc::default(), api(None, None), index("none")));
    for request in [get(DEMO), post(DEMO, object(&spec("v1.36.4", 1)).to_string())] {
        let response = router(follower.clone()).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    }
}

#[tokio::test]
async fn a_candidate_is_foreseen_as_json_and_as_yaml_whether_or_not_there_is_such_a_cluster() {
    let bigger = object(&spec("v1.36.4", 3));
    let yaml = serde_saphyr::to_string(&bigger).unwrap();
    let mut there = object(&spec("v1.36.4", 1));
    there["metadata"]["generation"] = json!(2);
    for (looks, client) in [(looked(2), api(Some(there), None)), (Looks::default(), api(None, None))] {
        let desk = desk(looks, client);
        let (code, from_json) = answer(&desk, post(DEMO, bigger.to_string())).await;
        assert_eq!(code, 200, "{from_json}");
        assert_eq!(answer(&desk, post(DEMO, yaml.clone())).await.1["steps"], from_json["steps"]);
        assert!(from_json.to_string().contains("demo-cp-2"), "{from_json}");
    }
}

#[tokio::test]
async fn a_candidate_that_is_refused_names_the_field() {
    let causes = json!([{"reason": "FieldValueInvalid", "field": "spec.controlPlane.replicas", "message": "2 is even"}]);
    let by_rule = json!({"kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid", "message": "Cluster demo is invalid", "details": {"causes": causes}});
    let strict = json!({"kind": "Status", "status": "Failure", "code": 400, "reason": "BadRequest", "message": "strict decoding error: unknown field \"spec.pols\""});
    let even = object(&spec("v1.36.4", 2)).to_string();
    let other = object(&spec("v1.36.4", 1)).to_string().replace("demo", "other");
    let far = |pools: u32| {
        let mut object = object(&spec("v1.36.4", 1));
        object["spec"]["pools"][0]["replicas"] = json!(pools);
        object["spec"]["network"] = json!({"podCIDR": "10.0.0.0/9", "serviceCIDR": "10.250.0.0/16"});
        object.to_string()
    };
    for (refusal, body, field) in [
        (Some((422, by_rule)), even.clone(), "spec.controlPlane.replicas"),
        (Some((400, strict)), even.clone(), "spec.pols"),
        // What gets past an API with other rules.
        (None, even, "spec.controlPlane.replicas"),
        (None, object(&spec("v1.35.8", 1)).to_string(), "spec.kubernetesVersion"),
        (None, other, "metadata.name"),
        (None, far(5000), "spec.pools"),
    ] {
        let (code, said) = answer(&desk(Looks::default(), api(None, refusal)), post(DEMO, body)).await;
        assert_eq!(
            (code.as_u16(), said["kind"].as_str(), said["details"]["causes"][0]["field"].as_str()),
            (422, Some("Status"), Some(field)),
            "{said}"
        );
    }
    let desk = desk(Looks::default(), api(None, None));
    assert_eq!(answer(&desk, post(DEMO, "{")).await.0, 400);
    assert_eq!(answer(&desk, post(DEMO, "x".repeat(300_000))).await.0, 413);
    assert_eq!(answer(&desk, get("/plan/..%2f..%2fapi/demo")).await.0, 422, "names become parts of paths");
}

#[tokio::test]
async fn who_asks_while_another_one_is_answered_is_told_to_come_again() {
    let desk = desk(looked(1), api(None, None));
    let turn = desk.turn().unwrap();
    assert_eq!(answer(&desk, get(DEMO)).await.0, 429);
    assert_eq!(answer(&desk, post(DEMO, object(&spec("v1.36.4", 1)).to_string())).await.0, 429);
    drop(turn);
    assert_eq!(answer(&desk, get(DEMO)).await.0, 200);
}

#[tokio::test]
async fn a_change_that_was_not_looked_at_and_an_api_that_is_away_are_waited_for() {
    let mut newer = object(&spec("v1.36.4", 1));
    newer["metadata"]["generation"] = json!(2);
    let candidate = || post(DEMO, object(&spec("v1.36.4", 3)).to_string());
    assert_eq!(answer(&desk(looked(1), api(Some(newer), None)), candidate()).await.0, 503);
    let away = (500, json!({"code": 500, "reason": "InternalError", "message": "etcd is away"}));
    assert_eq!(answer(&desk(looked(1), api(None, Some(away))), candidate()).await.0, 503);
}

#[test]
fn a_forecast_ends_when_its_time_is_up() {
    let looks = looked(1);
    let look = looks.of(&ClusterRef::new("default", "demo")).unwrap().look.unwrap();
    let mut passes = 0;
    let mut three = || {
        passes += 1;
        passes <= 3
    };
    assert_eq!(super::of_look(&look.spec, Some(&look), Timestamp::UNIX_EPOCH, &mut three), None);
}

#[tokio::test]
async fn the_other_side_reads_what_is_answered() {
    let desk = desk(looked(3), api(None, None));
    let asked = async |name: &'static str, question: Question<'_>| {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let service = hyper_util::service::TowerToHyperService::new(router(desk.clone()));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(hyper_util::rt::TokioIo::new(there), service));
        ask(here, "default", name, question).await
    };
    assert_eq!(asked("demo", Question::Stored).await.unwrap().generation, Some(3));
    assert!(matches!(asked("other", Question::Stored).await, Err(AskError::NotNow(_))));
    let wanted: Cluster = serde_json::from_value(object(&spec("v1.35.8", 1))).unwrap();
    let refused = asked("demo", Question::Candidate(&wanted)).await;
    assert!(matches!(&refused, Err(AskError::Refused(why)) if why.contains("spec.kubernetesVersion")), "{refused:?}");
}
