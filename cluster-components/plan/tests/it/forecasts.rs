//! What is shown is what is done.

use crate::build::{complete, nothing, now, pass, spec};
use slipway_model::{ClusterSpec, DeletionPolicy};
use slipway_plan::{Action, ConditionType, End, Observed, Status, forecast, plan, seen};

fn deleting(mut world: Observed) -> Observed {
    world.cluster.deleting = Some(now());
    world
}

/// What a fault-free execution does, pass by pass.
fn executed(spec: &ClusterSpec, mut world: Observed) -> Vec<Vec<Action>> {
    let mut steps = vec![];
    for _ in 0..100 {
        steps.push(plan(spec, &seen(&world), now()).actions);
        if !pass(spec, &mut world, now()) {
            break;
        }
    }
    shown(steps)
}

/// Pods are only listed when their Node is to be drained, so no forecast made before can name them.
fn shown(mut steps: Vec<Vec<Action>>) -> Vec<Vec<Action>> {
    steps.iter_mut().for_each(|s| s.retain(|a| !matches!(a, Action::Evict { .. })));
    steps.retain(|s| !s.is_empty());
    steps
}

#[test]
fn what_is_shown_is_what_is_done() {
    let orphan = ClusterSpec { deletion_policy: DeletionPolicy::Orphan, ..spec(1, 1) };
    let lives = [
        (spec(1, 0), nothing()),
        (spec(3, 2), nothing()),
        (spec(3, 4), complete(&spec(3, 2))),
        (spec(3, 1), complete(&spec(3, 4))),
        (spec(3, 0), complete(&spec(3, 2))),
        (spec(3, 2), deleting(complete(&spec(3, 2)))),
        (orphan.clone(), deleting(complete(&orphan))),
    ];
    for (spec, world) in lives {
        let forecast = forecast(&spec, &seen(&world), now());
        assert_eq!(forecast.end, End::Done, "{forecast}");
        assert_eq!(shown(forecast.steps.into_iter().map(|s| s.actions).collect()), executed(&spec, world));
    }
}

#[test]
fn a_complete_cluster_is_ready_and_needs_nothing() {
    let spec = spec(3, 2);
    let world = complete(&spec);
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.is_empty() && plan.waits.is_empty() && plan.requeue.is_none());
    for kind in ConditionType::ALL {
        let wanted = if kind == ConditionType::Progressing { Status::False } else { Status::True };
        assert_eq!(plan.condition(kind).unwrap().status, wanted, "{kind:?}");
    }
    assert_eq!(forecast(&spec, &seen(&world), now()).to_string(), "nothing to do\n");
}

#[test]
fn forecasts_read_well() {
    insta::assert_snapshot!("create_1_1", forecast(&spec(1, 1), &nothing(), now()));
    insta::assert_snapshot!("create_3_2", forecast(&spec(3, 2), &nothing(), now()));
    insta::assert_snapshot!("scale_2_to_1", forecast(&spec(1, 1), &seen(&complete(&spec(1, 2))), now()));
    insta::assert_snapshot!("delete_1_1", forecast(&spec(1, 1), &seen(&deleting(complete(&spec(1, 1)))), now()));
}
