//! The life of a cluster.

use crate::house::House;
use serde_json::json;
use slipway_cloud_api::InstanceState;
use slipway_operator::effects::Effects;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn quiet() -> Effects {
    Effects::new(None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_becomes_ready_then_nothing_is_written_and_deletion_leaves_nothing() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(3, Some(2));
    let requested = house.until("five instances", || house.cloud.all_instances().len() == 5).await;
    let ready = house.until("Ready", || house.condition("Ready") == "True").await;
    eprintln!("instances after {requested:?}, Ready {ready:?} later; requests {:?}", house.api.requests());
    let machines = house.machines();
    assert_eq!(machines.len(), 5);
    assert!(machines.iter().all(|m| m["spec"]["agentKey"].is_string() && m["spec"]["instance"]["id"].is_string()), "{machines:#?}");
    assert_eq!(house.cloud.all_instances().len(), 5, "one instance per machine");
    assert_eq!(house.agents.claims(), 5);
    assert_eq!(house.agents.applies(), 5, "each machine is configured once");
    let recorded = house.api.get("slipway.dev/clusters", "demo").unwrap()["status"]["recorded"].clone();
    let founders: Vec<_> = machines.iter().filter(|m| m["spec"]["role"] == "ControlPlane").collect();
    for founder in &founders {
        let name = founder["metadata"]["name"].as_str().unwrap();
        assert_eq!(recorded["founderAddresses"][name], founder["spec"]["instance"]["address"], "the others are told of it when it is gone");
        assert_eq!(founder["spec"]["programs"][0]["name"], "slipway-ccm-local", "a new release must not restart it");
    }
    assert_eq!(founders.len(), 3);
    let secrets: Vec<String> = house.api.all("/secrets").iter().map(|s| s["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    assert!(secrets.contains(&"demo-pki".to_owned()) && secrets.contains(&"demo-kubeconfig".to_owned()), "{secrets:?}");
    assert!(!secrets.iter().any(|s| s.ends_with("-bootstrap")), "tokens are dropped after the claim: {secrets:?}");
    assert!(house.agents.workload.get("/configmaps", "slipway-addons").is_some());

    // Settled: whatever is said, nothing is written.
    house.until("settled", || house.condition("Progressing") == "False").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let (requests, writes, calls) = (house.api.requests(), house.api.writes(), house.cloud.calls());
    let before = (house.api.all("slipway.dev/clusters"), house.machines());
    let asked = || house.agents.etcd.calls()["report"];
    let asked_before = asked();
    for _ in 0..5 {
        house.agents.chatter();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert_eq!((house.api.all("slipway.dev/clusters"), house.machines()), before);
    assert_eq!(house.api.writes(), writes, "{:?}", house.api.requests());
    assert_eq!(house.cloud.calls(), calls);
    assert_eq!(house.api.requests(), requests, "nor is anything read for mere signs of life");
    assert!(
        asked() <= asked_before + 3,
        "etcd of a settled cluster is asked three times a minute, not once a second: {asked_before}, {}",
        asked()
    );

    house.api.delete("slipway.dev/clusters", "default", "demo");
    house.until("nothing", || house.api.get("slipway.dev/clusters", "demo").is_none()).await;
    assert!(house.cloud.is_empty());
    assert_eq!(house.machines(), Vec::<serde_json::Value>::new());
    assert_eq!(house.api.all("/secrets"), Vec::<serde_json::Value>::new());
    assert_eq!(house.api.all("slipway.dev/nodepools"), Vec::<serde_json::Value>::new());
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_grow_and_shrink_and_a_deleted_machine_is_replaced() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, Some(1));
    house.until("Ready", || house.condition("Ready") == "True").await;
    let pools = |n: u32| json!({"spec": {"pools": [{"name": "workers", "replicas": n}]}});
    house.api.patch("slipway.dev/clusters", "default", "demo", pools(3));
    house.until("three workers", || house.cloud.all_instances().len() == 4 && house.condition("Ready") == "True").await;
    house.api.patch("slipway.dev/clusters", "default", "demo", pools(1));
    house.until("one worker", || house.cloud.all_instances().len() == 2 && house.machines().len() == 2).await;
    let worker =
        house.machines().iter().map(|m| m["metadata"]["name"].as_str().unwrap().to_owned()).find(|n| n.contains("workers")).unwrap();
    house.api.delete("slipway.dev/machines", "default", &worker);
    house.until("a new one", || house.machines().len() == 2 && house.api.get("slipway.dev/machines", &worker).is_none()).await;
    house.until("Ready again", || house.condition("Ready") == "True").await;
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_make_no_second_machine() {
    let (house, stop) = (House::new(), CancellationToken::new());
    house.api.lose_answers(6);
    house.cloud.lose_answers(4);
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, Some(1));
    house.until("Ready", || house.condition("Ready") == "True").await;
    assert_eq!((house.machines().len(), house.cloud.all_instances().len()), (2, 2));
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_dies_again_and_again_still_ends_with_the_same_cluster() {
    let (house, stop) = (House::new(), CancellationToken::new());
    house.apply(1, Some(1));
    let mut lives = 0;
    while house.condition("Ready") != "True" {
        lives += 1;
        assert!(lives < 200, "it gets nowhere");
        let operator = house.operator(lives, &stop, quiet());
        // Long enough for a few effects, short enough to be in the middle of some.
        tokio::time::sleep(Duration::from_millis(20 + 10 * lives)).await;
        operator.end();
    }
    assert_eq!((house.machines().len(), house.cloud.all_instances().len()), (2, 2), "after {lives} lives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_without_power_is_started_again() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, None);
    house.until("Ready", || house.condition("Ready") == "True").await;
    let uid = house.api.get("slipway.dev/clusters", "demo").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    house.cloud.set_state(&uid, "demo-cp-0", InstanceState::Stopped);
    house.until("power", || house.cloud.inventory_of(&uid).instances[0].state == InstanceState::Running).await;
    assert_eq!(house.cloud.calls()["create instance"], 1);
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_never_written_down_is_found_out_and_written_down() {
    let (house, stop) = (House::new(), CancellationToken::new());
    house.apply(1, None);
    // The first life ends before anything is claimed; what it leaves looks as if it had died between claim and record.
    let first = house.operator(1, &stop, quiet());
    house.until("a machine", || house.machines().len() == 1).await;
    let uid = house.machines()[0]["metadata"]["uid"].as_str().unwrap().to_owned();
    house.agents.seal(&uid);
    first.end();
    let second = house.operator(2, &stop, quiet());
    house.until("Ready", || house.condition("Ready") == "True").await;
    assert_eq!(house.agents.claims(), 0, "its token was burnt: nothing was left to claim");
    assert!(house.machines()[0]["spec"]["agentKey"].is_string());
    stop.cancel();
    second.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scaled_pool_is_followed_where_the_cluster_leaves_its_size_out_and_put_back_where_it_does_not() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, Some(1));
    house.until("Ready", || house.condition("Ready") == "True").await;
    let scale = |n: u32| house.api.patch("slipway.dev/nodepools", "default", "demo-workers", json!({"spec": {"replicas": n}}));
    let size = || house.api.get("slipway.dev/nodepools", "demo-workers").unwrap()["spec"]["replicas"].clone();
    scale(3);
    house.until("put back", || size() == 1).await;
    assert_eq!(house.machines().len(), 2);
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"pools": [{"name": "workers"}]}}));
    scale(2);
    house.until("two workers", || house.cloud.all_instances().len() == 3 && house.condition("Ready") == "True").await;
    assert_eq!(size(), 2);
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orphaned_cluster_keeps_its_machines_and_secrets_and_loses_its_records() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, Some(1));
    house.until("Ready", || house.condition("Ready") == "True").await;
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"deletionPolicy": "Orphan"}}));
    let secrets = house.api.all("/secrets").len();
    house.api.delete("slipway.dev/clusters", "default", "demo");
    house.until("no Cluster", || house.api.get("slipway.dev/clusters", "demo").is_none()).await;
    assert_eq!((house.machines().len(), house.cloud.all_instances().len(), house.api.all("/secrets").len()), (0, 2, secrets));
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_cannot_be_is_told_and_not_acted_on_and_heals() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    // What admission refuses; a CRD of another release might not.
    house.api.put(
        "slipway.dev/clusters",
        "default",
        json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "demo"},
            "spec": {"kubernetesVersion": "v1.36.4", "provider": {"local": {}}, "controlPlane": {"replicas": 2}, "pools": []},
        }),
    );
    house.until("told", || house.condition("Ready") == "False").await;
    assert!(house.cloud.calls().is_empty() && house.machines().is_empty());
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"controlPlane": {"replicas": 1}}}));
    house.until("Ready", || house.condition("Ready") == "True").await;
    stop.cancel();
    operator.end();
}
