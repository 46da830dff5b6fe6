//! Of several pools each counts by itself: what one has too many makes up for nothing that another lacks.

use crate::build::{complete, now, spec};
use slipway_model::ClusterSpec;
use slipway_plan::{Condition, ConditionType, Observed, Reason, Status, plan, seen};

/// One control plane, and two pools of so many machines.
fn two_pools(w: u32, x: u32) -> ClusterSpec {
    let mut spec = spec(1, w);
    let mut other = spec.pools[0].clone();
    other.name = "x".parse().unwrap();
    other.replicas = Some(x);
    spec.pools.push(other);
    spec
}

fn condition(spec: &ClusterSpec, world: &Observed, kind: ConditionType) -> Condition {
    plan(spec, &seen(world), now()).condition(kind).unwrap().clone()
}

#[test]
fn a_pool_that_lacks_a_node_is_not_ready_because_another_has_one_too_many() {
    let mut world = complete(&two_pools(2, 1));
    let lacking = world.nodes.known_mut().unwrap().iter_mut().find(|n| n.name == "demo-x-0").unwrap();
    lacking.ready = false;
    // The first pool is to have one machine less, which goes only now.
    let wanted = two_pools(1, 1);
    let workers = condition(&wanted, &world, ConditionType::WorkersReady);
    assert_eq!(workers.status, Status::False, "{}", workers.message);
    assert!(workers.message.starts_with("1 of 2 workers Ready"), "{}", workers.message);
    assert_eq!(condition(&wanted, &world, ConditionType::Ready).status, Status::False);
}

#[test]
fn a_pool_that_lacks_a_machine_is_not_complete_because_another_has_one_too_many() {
    let world = complete(&two_pools(2, 1));
    let exists = condition(&two_pools(2, 1), &world, ConditionType::InfrastructureReady);
    assert_eq!((exists.status, exists.reason), (Status::True, Reason::InfrastructureExists));
    let exists = condition(&two_pools(1, 2), &world, ConditionType::InfrastructureReady);
    assert_eq!((exists.status, exists.reason), (Status::False, Reason::Scaling), "{}", exists.message);
}
