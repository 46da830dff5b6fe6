//! Agents' own builds and certificates, as the operator keeps them.

use crate::house::House;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use slipway_operator::effects::Effects;
use std::collections::BTreeSet;
use tokio_util::sync::CancellationToken;

/// What the operator's index names, and what machines are made with here.
fn given() -> String {
    "ab".repeat(32)
}

fn old() -> String {
    "cd".repeat(32)
}

fn waits(house: &House) -> Vec<Value> {
    let cluster = house.api.get("slipway.dev/clusters", "demo").unwrap_or_default();
    cluster["status"]["waits"].as_array().cloned().unwrap_or_default()
}

fn machine(house: &House, name: &str) -> Value {
    house.machines().into_iter().find(|m| m["metadata"]["name"] == name).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_exchanged_one_at_a_time_workers_first_and_nothing_else_is_touched() {
    let (house, stop) = (House::new(), CancellationToken::new());
    house.agents.are_made_with(&old());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, Some(2));
    house.until("Ready", || house.condition("Ready") == "True").await;
    for tried in 1..=3 {
        house.until("a trial", || house.agents.tried().len() == tried).await;
        assert_eq!(house.condition("Ready"), "True");
        house.agents.end_trials(None);
    }
    let order: Vec<String> = house.agents.tried().into_iter().map(|(machine, _)| machine).collect();
    assert_eq!(order, ["demo-workers-0", "demo-workers-1", "demo-cp-0"]);
    house.until("settled", || house.condition("Progressing") == "False" && waits(&house).is_empty()).await;
    assert_eq!(house.agents.builds().into_values().collect::<BTreeSet<_>>(), BTreeSet::from([given()]));
    assert_eq!(house.agents.applies(), 3, "each machine is configured once");
    house.until("told", || machine(&house, "demo-cp-0")["status"]["agent"]["build"] == given()).await;
    let told = machine(&house, "demo-cp-0")["status"]["decisions"].to_string();
    assert!(told.contains("try build abababababab") && told.contains("it runs cdcdcdcdcdcd"), "{told}");
    stop.cancel();
    operator.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_does_not_stay_is_tried_on_no_other_machine_not_even_by_the_next_operator() {
    let (house, stop) = (House::new(), CancellationToken::new());
    house.agents.are_made_with(&old());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, Some(1));
    house.until("Ready", || house.condition("Ready") == "True").await;
    house.until("a trial", || house.agents.tried().len() == 1).await;
    house.agents.end_trials(Some("it ended at once"));
    let refused = || waits(&house).into_iter().find(|w| w["reason"] == "AgentUpdateRefused");
    house.until("refused", || refused().is_some() && house.condition("Progressing") == "False").await;
    let wait = refused().unwrap();
    assert_eq!((&wait["machine"], &wait["lastError"]), (&"demo-workers-0".into(), &"it ended at once".into()), "{wait}");
    let told = |name: &str| machine(&house, name)["status"]["agent"].clone();
    house.until("told", || told("demo-workers-0")["refused"]["build"] == given()).await;
    assert_eq!(told("demo-workers-0")["build"], old());
    operator.end();

    let next = house.operator(2, &stop, Effects::new(None));
    house.api.patch("slipway.dev/clusters", "default", "demo", json!({"spec": {"pools": [{"name": "workers", "replicas": 2}]}}));
    house.until("another worker", || house.machines().len() == 3 && house.condition("Ready") == "True").await;
    assert_eq!(house.agents.tried().len(), 1, "{:?}", house.agents.tried());
    stop.cancel();
    next.end();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_before_they_end_and_only_for_the_key_that_was_pinned() {
    let (house, stop) = (House::new(), CancellationToken::new());
    let operator = house.operator(1, &stop, Effects::new(None));
    house.apply(1, Some(1));
    house.until("settled", || house.condition("Ready") == "True" && house.condition("Progressing") == "False").await;
    let writes = house.agents.applies();
    let other = house.machines().iter().find(|m| m["metadata"]["name"] == "demo-workers-0").unwrap()["metadata"]["uid"].clone();
    house.agents.changes_key(other.as_str().unwrap());
    house.agents.certificates_end(Timestamp::now() + SignedDuration::from_hours(24 * 100));
    house.until("one renewed", || house.agents.renewed() == 1).await;
    house.until("told", || waits(&house).iter().any(|w| w["lastError"].to_string().contains("another key than it was claimed with"))).await;
    assert_eq!((house.agents.renewed(), house.agents.applies()), (1, writes));
    assert!(house.agents.first_end() < Timestamp::now() + SignedDuration::from_hours(24 * 101), "the stranger got none");
    stop.cancel();
    operator.end();
}
