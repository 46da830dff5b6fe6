//! Snapshots of etcd, asked for by people and by upgrades.

use crate::fake_agents::Spoilt;
use crate::house::House;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slipway_operator::effects::Effects;
use tokio_util::sync::CancellationToken;

fn ask(house: &House, name: &str) {
    // As people write it: without a label.
    let object = json!({
        "apiVersion": "slipway.dev/v1alpha1", "kind": "EtcdSnapshot", "metadata": {"name": name}, "spec": {"cluster": "demo"},
    });
    house.api.put("slipway.dev/etcdsnapshots", "default", object);
}

fn complete(house: &House, name: &str) -> (String, String) {
    let object = house.api.get("slipway.dev/etcdsnapshots", name).unwrap_or_default();
    let found = object["status"]["conditions"].as_array().cloned().unwrap_or_default().into_iter().find(|c| c["type"] == "Complete");
    let text = |field: &str| found.as_ref().and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_snapshot_object_is_made_real_and_outlives_its_cluster() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(7, &stop, Effects::new(None));
    house.apply(3, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    ask(&house, "monday");
    house.until("Complete", || complete(&house, "monday").0 == "True").await;

    let status = house.api.get("slipway.dev/etcdsnapshots", "monday").unwrap()["status"].clone();
    let cluster = house.api.get("slipway.dev/clusters", "demo").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let folder = house.kept.path().join("default/demo").join(&cluster);
    let data = std::fs::read(folder.join("monday.db")).unwrap();
    assert!(String::from_utf8(data.clone()).unwrap().ends_with("in epoch 7"), "the leader's term goes with the call");
    let sha256 = hex::encode(Sha256::digest(&data));
    assert_eq!((&status["sha256"], &status["bytes"], &status["revision"]), (&json!(sha256), &json!(data.len()), &json!(42)));
    assert_eq!(status["location"], json!(format!("file://{}", folder.join("monday.db").display())));
    let told: Value = serde_json::from_slice(&std::fs::read(folder.join("monday.json")).unwrap()).unwrap();
    assert_eq!(
        (&told["clusterUid"], &told["kubernetesVersion"], &told["etcdVersion"], &told["sha256"], &told["revision"]),
        (&json!(cluster), &json!("v1.36.4"), &json!("v3.6.14"), &json!(sha256), &json!(42))
    );

    // A complete one is taken once, whatever else happens.
    ask(&house, "tuesday");
    house.until("Complete", || complete(&house, "tuesday").0 == "True").await;
    assert_eq!(house.agents.snapshots(), 2);

    house.api.delete("slipway.dev/clusters", "default", "demo");
    house.until("nothing", || house.api.get("slipway.dev/clusters", "demo").is_none()).await;
    assert_eq!(house.api.all("slipway.dev/etcdsnapshots").len(), 2);
    assert!(folder.join("monday.db").exists());
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_come_whole_is_told_and_taken_again() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    house.agents.spoil_snapshots(&[Spoilt::BrokenOff, Spoilt::Altered]);
    ask(&house, "monday");
    house.until("the first failure", || complete(&house, "monday").1.contains("before its last word")).await;
    house.until("the second failure", || complete(&house, "monday").1.contains("were sent")).await;
    house.within(20, "Complete", || complete(&house, "monday").0 == "True").await;
    assert_eq!(house.agents.snapshots(), 3);
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_begins_when_nothing_speaks_against_it_and_its_snapshot_is_complete() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    assert_eq!(house.agents.workload.metrics_asked(), 0, "nobody looks while no upgrade is wanted");
    let used = "apiserver_requested_deprecated_apis{group=\"batch\",removed_release=\"1.37\",resource=\"cronjobs\",subresource=\"\",version=\"v1beta1\"} 1\n";
    house.agents.workload.set_metrics(used);
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"kubernetesVersion": "v1.37.2"}}));
    let told = |words: &str| house.api.get("slipway.dev/clusters", "demo").unwrap()["status"].to_string().contains(words);
    house
        .until("the API in use is named", || {
            told("batch/v1beta1 cronjobs was used since the API servers were started and is not served by v1.37.2 any more")
        })
        .await;
    assert_eq!(house.api.all("slipway.dev/etcdsnapshots"), Vec::<Value>::new());

    house.agents.workload.set_metrics("");
    house.within(20, "the snapshot", || complete(&house, "demo-before-v1.37.2-1").0 == "True").await;
    let label =
        house.api.get("slipway.dev/etcdsnapshots", "demo-before-v1.37.2-1").unwrap()["metadata"]["labels"]["slipway.dev/cluster"].clone();
    assert_eq!(label, "demo");
    house.until("the upgrade is recorded", || told("\"snapshot\":\"demo-before-v1.37.2-1\"")).await;
    let asked = house.agents.workload.metrics_asked();
    house.until("nobody looks any more", || !house.condition("UpToDate").is_empty()).await;
    assert!(house.agents.workload.metrics_asked() <= asked + 1);
    stop.cancel();
    operator.end();
}
