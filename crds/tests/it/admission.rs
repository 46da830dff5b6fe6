//! The table, and what only a real API server can say, against a real API server.

use crate::cases::{self, By};
use crate::plane::Plane;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_crds::{Cluster, EtcdSnapshot, Machine, NodePool, all};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "it";

/// Makes an object, or replaces it where it has a resourceVersion, with strict validation: unknown fields are errors.
async fn write(client: &Client, kind: &str, object: &Value, dry_run: bool) -> Result<DynamicObject, kube::Error> {
    let mut path = format!("/apis/slipway.dev/v1alpha1/namespaces/{NAMESPACE}/{kind}");
    let replaced = object.pointer("/metadata/resourceVersion").is_some();
    if replaced {
        path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
    }
    path.push_str("?fieldValidation=Strict");
    if dry_run {
        path.push_str("&dryRun=All");
    }
    let request =
        http::Request::builder().method(if replaced { "PUT" } else { "POST" }).uri(path).header("Content-Type", "application/json");
    client.request(request.body(serde_json::to_vec(object).unwrap()).unwrap()).await
}

async fn make<K: DeserializeOwned>(client: &Client, kind: &str, object: &Value) -> K {
    let made = write(client, kind, object, false).await.unwrap();
    serde_json::from_value(serde_json::to_value(made).unwrap()).unwrap()
}

/// What the API server answers when an object is made or, with `before`, changed: its message where it refuses.
async fn answer(client: &Client, kind: &str, before: Option<&Value>, after: &Value) -> Option<String> {
    let result = match before {
        None => write(client, kind, after, true).await.map(drop),
        Some(before) => {
            let mut made = write(client, kind, before, false).await.unwrap();
            let name = made.name_any();
            if let Some(status) = before.get("status") {
                made = told(client, kind, &name, status).await;
            }
            let change = json!({ "metadata": { "resourceVersion": made.resource_version() } });
            let result = write(client, kind, &cases::merged(after, &change), false).await.map(drop);
            let resource =
                ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(slipway_crds::GROUP, slipway_crds::VERSION, "Any"), kind);
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
            if result.is_err() {
                assert_eq!(api.get(&name).await.unwrap().data, made.data, "a refused change must change nothing");
            }
            api.delete(&name, &Default::default()).await.unwrap();
            result
        }
    };
    match result {
        Ok(()) => None,
        Err(kube::Error::Api(status)) => Some(status.message.clone()),
        Err(other) => panic!("{kind}: {other}"),
    }
}

/// Writes a status beside the spec.
async fn told(client: &Client, kind: &str, name: &str, status: &Value) -> DynamicObject {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(slipway_crds::GROUP, slipway_crds::VERSION, "Any"), kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&json!({ "status": status }))).await.unwrap()
}

#[tokio::test]
async fn a_real_api_server_enforces_every_rule() {
    let (plane, client) = Plane::start().await;
    applies_every_definition(&client).await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap())
        .await
        .unwrap();

    accepts_what_is_right(&client).await;
    refuses_what_is_wrong(&client).await;
    keeps_old_versions_that_left_the_catalogue(&client).await;
    status_is_written_apart(&plane, &client).await;
    pools_are_scaled(&plane, &client).await;
    machines_are_selected_by_their_cluster(&plane, &client).await;
    snapshots_are_selected_and_shown(&plane, &client).await;
    explains(&plane);
}

/// What is served is what was sent, and the API server had nothing to warn of.
async fn applies_every_definition(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in all() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply("slipway-it").validation_strict(), &Patch::Apply(&crd))
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let conditions = api.get(&name).await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
            assert!(!conditions.iter().any(|c| c.type_ == "NonStructuralSchema"), "{name}: {conditions:?}");
            if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
                break;
            }
            assert!(Instant::now() < deadline, "{name} is not established: {conditions:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn accepts_what_is_right(client: &Client) {
    let good = cases::good("clusters");
    for change in cases::accepted() {
        assert_eq!(answer(client, "clusters", None, &cases::merged(&good, &change)).await, None, "{change}");
    }
    for (before, after) in cases::accepted_changes() {
        let (before, after) = cases::change(&good, &before, &after);
        assert_eq!(answer(client, "clusters", Some(&before), &after).await, None, "{after}");
    }
    for kind in ["nodepools", "machines", "etcdsnapshots"] {
        assert_eq!(answer(client, kind, None, &cases::good(kind)).await, None);
    }
    for path in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).unwrap() {
        let path = path.unwrap().path();
        let example: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(answer(client, "clusters", None, &example).await, None, "{}", path.display());
    }
}

async fn refuses_what_is_wrong(client: &Client) {
    let mut wrong = Vec::new();
    for case in cases::refused() {
        let good = cases::good(case.kind);
        let (before, object) = case.objects(&good);
        let said = answer(client, case.kind, before.as_ref(), &object).await;
        let said = said.unwrap_or_else(|| "accepted".to_owned());
        // Of a rule, the message is all that follows the path; of the others, their wording may differ between minors in what surrounds it.
        let complaints = said.matches(": Invalid value").count() + said.matches(": Duplicate value").count();
        let one = case.by != By::Rule || complaints <= if case.message.contains(" more than once") { 2 } else { 1 };
        if !said.contains(&case.message) || !one {
            wrong.push(format!("{:?} {}\n  wanted: {}\n  said:   {said}", case.by, case.change, case.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An object whose version this release no longer knows must still be served, changed and deleted.
async fn keeps_old_versions_that_left_the_catalogue(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut older = all().remove(0);
    let text = serde_json::to_string(&older).unwrap().replace("v1.35.8", "v1.34.7");
    older = serde_json::from_str(&text).unwrap();
    let manager = PatchParams::apply("slipway-it").force();
    definitions.patch("clusters.slipway.dev", &manager, &Patch::Apply(&older)).await.unwrap();
    let old = cases::merged(&cases::good("clusters"), &json!({ "spec": { "kubernetesVersion": "v1.34.7" } }));
    takes(client, &old, true).await;
    let made: Cluster = make(client, "clusters", &old).await;
    definitions.patch("clusters.slipway.dev", &manager, &Patch::Apply(&all()[0])).await.unwrap();
    takes(client, &cases::merged(&old, &json!({ "metadata": { "name": "other" } })), false).await;
    let change =
        json!({ "metadata": { "resourceVersion": made.metadata.resource_version }, "spec": { "controlPlane": { "replicas": 5 } } });
    let changed: Cluster = make(client, "clusters", &cases::merged(&old, &change)).await;
    assert_eq!((changed.spec.kubernetes_version.as_str(), changed.spec.control_plane.replicas), ("v1.34.7", 5));
    Api::<Cluster>::namespaced(client.clone(), NAMESPACE).delete("demo", &Default::default()).await.unwrap();
}

/// Waits until an object is accepted or refused: a definition is in force a moment after it is written.
async fn takes(client: &Client, object: &Value, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let answer = answer(client, "clusters", None, object).await;
        if answer.is_none() == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A status needs no field, a change of it is no change of the spec, and the columns show it.
async fn status_is_written_apart(plane: &Plane, client: &Client) {
    let api: Api<Cluster> = Api::namespaced(client.clone(), NAMESPACE);
    make::<Cluster>(client, "clusters", &cases::good("clusters")).await;
    let head = json!({ "apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster" });
    let status = |status: Value| cases::merged(&head, &json!({ "status": status }));
    let apply = |manager: &'static str| PatchParams::apply(manager).validation_strict();
    let recorded = status(
        json!({ "recorded": { "endpoint": { "host": "198.18.1.2", "port": 6443 }, "ordinals": { "cp": { "settled": 0, "next": 3 } } } }),
    );
    api.patch_status("demo", &apply("recorder"), &Patch::Apply(&recorded)).await.unwrap();
    let told = status(json!({
        "observedGeneration": 1,
        "endpoint": "https://198.18.1.2:6443",
        "controlPlane": { "ready": 2, "wanted": 3, "summary": "2/3" },
        "workers": { "ready": 0, "wanted": 2, "summary": "0/2" },
        "waits": [{ "what": "the machine to boot", "machine": "demo-workers-0", "since": "2026-01-01T00:00:00.123456Z" }],
        "conditions": [{ "type": "Ready", "status": "False", "reason": "Creating", "message": "2 of 5 machines are ready",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1 }]
    }));
    let seen = api.patch_status("demo", &apply("reporter"), &Patch::Apply(&told)).await.unwrap();
    assert_eq!(seen.metadata.generation, Some(1));
    let status = seen.status.unwrap();
    assert_eq!(status.recorded.unwrap().ordinals.get("cp").unwrap().next, 3, "two managers share the status");
    assert_eq!(status.waits[0].since.unwrap().to_string(), "2026-01-01T00:00:00.123456Z");
    let table = plane.kubectl(&["get", "cl", "-n", NAMESPACE]);
    let words: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "VERSION", "CONTROL-PLANE", "WORKERS", "ENDPOINT", "READY", "REASON", "AGE"]);
    assert_eq!(words[1][..7], ["demo", "v1.36.4", "2/3", "0/2", "https://198.18.1.2:6443", "False", "Creating"]);
    api.delete("demo", &Default::default()).await.unwrap();
}

async fn pools_are_scaled(plane: &Plane, client: &Client) {
    let api: Api<NodePool> = Api::namespaced(client.clone(), NAMESPACE);
    let mut value = cases::good("nodepools");
    value["spec"].as_object_mut().unwrap().remove("replicas");
    let made: NodePool = make(client, "nodepools", &value).await;
    assert_eq!(made.spec.replicas, 1, "a pool starts with one machine");
    plane.kubectl(&["scale", "nodepool", "demo-workers", "--replicas=4", "-n", NAMESPACE]);
    assert_eq!(api.get("demo-workers").await.unwrap().spec.replicas, 4);
    let status = json!({ "status": { "replicas": 3, "readyReplicas": 2, "selector": "slipway.dev/pool=workers" } });
    api.patch_status("demo-workers", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let scale = api.get_scale("demo-workers").await.unwrap();
    assert_eq!(scale.spec.and_then(|s| s.replicas), Some(4));
    assert_eq!(scale.status.map(|s| (s.replicas, s.selector)), Some((3, Some("slipway.dev/pool=workers".to_owned()))));
    let too_many = json!({ "spec": { "replicas": 1001 } });
    assert!(api.patch_scale("demo-workers", &PatchParams::default(), &Patch::Merge(&too_many)).await.is_err());
    let all = plane.kubectl(&["get", "slipway", "-n", NAMESPACE]);
    assert!(all.contains("nodepool.slipway.dev/demo-workers"), "{all}");
    api.delete("demo-workers", &Default::default()).await.unwrap();
}

async fn machines_are_selected_by_their_cluster(plane: &Plane, client: &Client) {
    let good = cases::good("machines");
    for cluster in ["demo", "other"] {
        let change = json!({ "metadata": { "name": format!("{cluster}-workers-0") }, "spec": { "cluster": cluster } });
        make::<Machine>(client, "machines", &cases::merged(&good, &change)).await;
    }
    let found = plane.kubectl(&["get", "ma", "-n", NAMESPACE, "--field-selector=spec.cluster=other", "-o", "name"]);
    assert_eq!(found.trim(), "machine.slipway.dev/other-workers-0");
}

/// What became of a snapshot is seen in its columns, and the operator finds those that people made for a cluster.
async fn snapshots_are_selected_and_shown(plane: &Plane, client: &Client) {
    let api: Api<EtcdSnapshot> = Api::namespaced(client.clone(), NAMESPACE);
    for (name, cluster) in [("monday", "demo"), ("elsewhere", "other")] {
        let change = json!({ "metadata": { "name": name }, "spec": { "cluster": cluster } });
        make::<EtcdSnapshot>(client, "etcdsnapshots", &cases::merged(&cases::good("etcdsnapshots"), &change)).await;
    }
    let found = api.list(&ListParams::default().fields("spec.cluster=demo")).await.unwrap();
    assert_eq!(found.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["monday"]);
    let condition =
        json!({ "type": "Complete", "status": "True", "reason": "Verified", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let status = json!({
        "apiVersion": "slipway.dev/v1alpha1", "kind": "EtcdSnapshot",
        "status": { "bytes": 12, "revision": 42, "completed": "2026-01-01T00:00:00Z", "conditions": [condition] },
    });
    api.patch_status("monday", &PatchParams::apply("it").validation_strict(), &Patch::Apply(&status)).await.unwrap();
    let table = plane.kubectl(&["get", "es", "monday", "-n", NAMESPACE]);
    let words: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "CLUSTER", "COMPLETE", "BYTES", "REVISION", "AGE"]);
    assert_eq!(words[1][..5], ["monday", "demo", "True", "12", "42"]);
}

/// People's questions have answers, and every field of a spec has one.
fn explains(plane: &Plane) {
    let text = plane.kubectl(&["explain", "cluster.spec.controlPlane"]);
    println!("{text}");
    for word in ["The machines that run etcd, kube-apiserver", "replicas\t<integer> -required-", "1, 3, 5 or 7"] {
        assert!(text.contains(word), "{text}");
    }
    for kind in ["cluster", "nodepool", "machine", "etcdsnapshot"] {
        let text = plane.kubectl(&["explain", &format!("{kind}.spec"), "--recursive=false"]);
        assert!(!text.contains("<no description>"), "{text}");
    }
}
