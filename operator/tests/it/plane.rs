//! The control plane after its founding: growing, shrinking, healing, with etcd's own refusals.

use crate::house::House;
use serde_json::json;
use slipway_operator::effects::Effects;
use tokio_util::sync::CancellationToken;

fn quiet() -> Effects {
    Effects::new(None)
}

fn scale(house: &House, replicas: u32) {
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"controlPlane": {"replicas": replicas}}}));
}

async fn settled(house: &House, replicas: usize) {
    let what = format!("{replicas} voters, {replicas} machines, Ready");
    let machines = || house.machines().len() == replicas && house.cloud.all_instances().len() == replicas;
    house.within(60, &what, || house.agents.etcd.voters().len() == replicas && machines() && house.condition("Ready") == "True").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_grows_and_shrinks_one_member_at_a_time_and_no_leader_goes_without_handing_over() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(1, None);
    settled(&house, 1).await;
    scale(&house, 3);
    settled(&house, 3).await;
    assert_eq!(house.agents.etcd.voters(), ["demo-cp-0", "demo-cp-1", "demo-cp-2"]);
    let later: Vec<_> = house.machines().into_iter().filter(|m| m["metadata"]["name"] != "demo-cp-0").collect();
    assert!(later.iter().all(|m| m["spec"]["join"]["member"].is_string()), "{later:#?}");
    scale(&house, 1);
    settled(&house, 1).await;
    assert_eq!(house.agents.etcd.elections(), 0);
    assert_eq!(house.agents.workload.all("/nodes").len(), 1, "Nodes go with their machines");
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_a_person_deletes_is_replaced_before_it_leaves() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(3, None);
    settled(&house, 3).await;
    let leader = house.agents.etcd.leader().unwrap();
    house.api.delete("slipway.dev/machines", "default", &leader);
    house.within(30, "a fourth vote", || house.agents.etcd.voters().len() == 4).await;
    house.within(30, "its leave", || !house.agents.etcd.is_member(&leader)).await;
    settled(&house, 3).await;
    assert!(house.api.get("slipway.dev/machines", &leader).is_none());
    assert_eq!(house.agents.etcd.elections(), 0, "it led, and handed over");
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_is_lost_leaves_etcd_first_and_then_another_one_joins() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(3, None);
    settled(&house, 3).await;
    let uid = house.api.get("slipway.dev/clusters", "demo").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    house.cloud.lose(&uid, "demo-cp-1");
    house.agents.power_etcd("demo-cp-1", false);
    house.within(30, "two votes", || house.agents.etcd.voters().len() == 2).await;
    settled(&house, 3).await;
    assert_eq!(house.agents.etcd.voters(), ["demo-cp-0", "demo-cp-2", "demo-cp-3"]);
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_lost_control_planes_are_left_alone_and_it_says_what_to_do() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, quiet());
    house.apply(3, None);
    settled(&house, 3).await;
    let uid = house.api.get("slipway.dev/clusters", "demo").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    for machine in ["demo-cp-1", "demo-cp-2"] {
        house.cloud.lose(&uid, machine);
        house.agents.power_etcd(machine, false);
    }
    let told = || {
        let cluster = house.api.get("slipway.dev/clusters", "demo").unwrap();
        cluster["status"].to_string().contains("RestoreNeeded")
    };
    house.within(30, "RestoreNeeded", told).await;
    assert_eq!((house.machines().len(), house.agents.etcd.voters().len()), (3, 3), "nothing was taken away");
    assert_eq!(house.agents.etcd.calls().get("remove"), None);
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_dies_right_after_a_member_was_added_goes_on_with_that_member() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let first = house.operator(1, &stop, quiet());
    house.apply(1, None);
    settled(&house, 1).await;
    house.agents.etcd.lose_answers(2);
    scale(&house, 3);
    let added = || house.agents.etcd.calls().contains_key("add");
    house.within(30, "a member added", added).await;
    first.end();
    let second = house.operator(2, &stop, quiet());
    settled(&house, 3).await;
    assert_eq!(house.agents.etcd.voters(), ["demo-cp-0", "demo-cp-1", "demo-cp-2"]);
    assert_eq!(house.agents.etcd.calls().get("remove"), None, "no member was left over");
    stop.cancel();
    second.end();
}
