//! Events: one per change, none when nothing happens, and nothing told twice by the operator that leads next.

use crate::house::House;
use serde_json::{Value, json};
use slipway_operator::effects::Effects;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often each reason was told, repetitions counted.
fn told(house: &House) -> BTreeMap<String, u64> {
    let mut told = BTreeMap::new();
    for event in house.api.all("events.k8s.io/events") {
        *told.entry(event["reason"].as_str().unwrap().to_owned()).or_default() += event["series"]["count"].as_u64().unwrap_or(1);
    }
    told
}

fn of(house: &House, reason: &str) -> u64 {
    told(house).get(reason).copied().unwrap_or_default()
}

fn notes(house: &House, reason: &str) -> Vec<String> {
    let all = house.api.all("events.k8s.io/events");
    let of = |e: &&Value| e["reason"] == reason;
    all.iter()
        .filter(of)
        .map(|e| format!("{} {}: {}", e["type"].as_str().unwrap(), e["regarding"]["name"].as_str().unwrap(), e["note"].as_str().unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_told_once_and_an_idle_cluster_tells_nothing() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let first = house.operator(1, &stop, Effects::new(None));
    house.apply(3, Some(2));
    house.until("Ready", || house.condition("Ready") == "True").await;
    house.until("that it is told", || of(&house, "ClusterReady") == 1).await;
    let wanted = [("Bootstrapped", 1), ("ClusterReady", 1), ("MachineClaimed", 5), ("MachineCreated", 5), ("MachineReady", 5)];
    let wanted: BTreeMap<String, u64> = wanted.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
    house.until("each machine to be told ready", || told(&house) == wanted).await;
    house.until("settled", || house.condition("Progressing") == "False").await;

    // The next one knows from the statuses what was told.
    first.end();
    let second = house.operator(2, &stop, Effects::new(None));
    let lists = || house.api.requests().get("GET slipway.dev/machines").copied().unwrap_or_default();
    let before = lists();
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"metadata": {"annotations": {"look": "again"}}}));
    house.until("a look", || lists() > before).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1500) {
        // It has not seen a Node yet: what was told of them stands.
        assert!(house.machines().iter().all(|m| m["status"]["phase"] == "Ready"), "{:#?}", house.machines());
        assert_eq!(house.api.get("slipway.dev/clusters", "demo").unwrap()["status"]["workers"]["ready"], 2);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(told(&house), wanted);

    let worker = "demo-workers-1";
    house.api.delete("slipway.dev/machines", "default", worker);
    house.until("its end and its successor", || of(&house, "MachineDeleted") == 1 && of(&house, "MachineReady") == 6).await;
    assert_eq!(notes(&house, "MachineDeleted"), [format!("Normal {worker}: {worker}: nothing of it is left")]);
    house.api.delete("slipway.dev/clusters", "default", "demo");
    house.until("nothing", || house.api.get("slipway.dev/clusters", "demo").is_none()).await;
    assert_eq!(of(&house, "Deleting"), 1);
    stop.cancel();
    second.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_that_is_lost_and_comes_back_is_told_once_each_whoever_leads() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let first = house.operator(1, &stop, Effects::new(None));
    house.apply(3, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    assert_eq!((of(&house, "QuorumLost"), of(&house, "QuorumRegained")), (0, 0));
    for machine in ["demo-cp-1", "demo-cp-2"] {
        house.agents.power_etcd(machine, false);
    }
    house.within(30, "the loss to be told", || of(&house, "QuorumLost") == 1).await;
    house.until("the loss to stand in the status", || house.condition("EtcdHealthy") == "False").await;
    // The next one learns from the status that it was told.
    first.end();
    let second = house.operator(2, &stop, Effects::new(None));
    let looks = || house.api.requests().get("GET slipway.dev/machines").copied().unwrap_or_default();
    let before = looks();
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"metadata": {"annotations": {"look": "again"}}}));
    house.until("a look", || looks() > before).await;
    for machine in ["demo-cp-1", "demo-cp-2"] {
        house.agents.power_etcd(machine, true);
    }
    house.within(30, "its return to be told", || of(&house, "QuorumRegained") == 1).await;
    house.within(30, "Ready again", || house.condition("Ready") == "True").await;
    assert_eq!((of(&house, "QuorumLost"), of(&house, "QuorumRegained")), (1, 1));
    let lost = notes(&house, "QuorumLost");
    assert!(lost[0].starts_with("Warning demo: ") && lost[0].contains("of 3 etcd members healthy"), "{lost:?}");
    let regained = notes(&house, "QuorumRegained");
    assert!(regained[0].starts_with("Normal demo: ") && regained[0].contains("3 of 3 etcd members healthy"), "{regained:?}");
    stop.cancel();
    second.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_stops_and_is_called_off_is_told_once_each() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    // No Node ever says that it has another kubelet here.
    let to = |version: &str| {
        let held = json!({"spec": {"kubernetesVersion": version, "componentVersions": {"etcd": "v3.6.14"}}});
        house.api.patch("slipway.dev/clusters", "default", "demo", held);
    };
    to("v1.37.2");
    house.within(30, "its beginning to be told", || of(&house, "UpgradeBegun") == 1).await;
    let machine = || house.api.get("slipway.dev/machines", "demo-cp-0").unwrap();
    house.within(30, "a kubelet that does not follow", || machine()["spec"]["versions"]["kubelet"] == "v1.37.2").await;
    assert_eq!(of(&house, "UpgradeStopped"), 0);
    // Its time is over.
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(200);
    house.api.patch("slipway.dev/machines", "default", "demo-cp-0", json!({"spec": {"changed": {"at": long_ago.to_string()}}}));
    house.within(30, "its stop to be told", || of(&house, "UpgradeStopped") == 1).await;
    house.within(30, "its old kubelet", || machine()["spec"]["versions"]["kubelet"] == "v1.36.4").await;
    to("v1.36.4");
    house.within(30, "its end to be told", || of(&house, "UpgradeUndone") == 1).await;
    let stopped = notes(&house, "UpgradeStopped");
    let why = "its Node to say that its kubelet is v1.37.2";
    assert!(stopped[0].starts_with("Warning demo: demo-cp-0 did not come back after ") && stopped[0].contains(why), "{stopped:?}");
    assert!(notes(&house, "UpgradeCalledOff")[0].starts_with("Normal demo: back to etcd v3.6.14, kube-apiserver v1.36.4"));
    for reason in ["UpgradeBegun", "UpgradeStopped", "UpgradeCalledOff", "UpgradeUndone"] {
        assert_eq!(of(&house, reason), 1, "{reason}: {:?}", told(&house));
    }
    assert_eq!((of(&house, "UpgradeFinished"), of(&house, "UpgradeResumed")), (0, 0));
    stop.cancel();
    operator.end();
}
