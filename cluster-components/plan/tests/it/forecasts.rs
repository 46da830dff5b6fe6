//! What is shown is what is done.

use crate::build::{at, complete, look, nothing, now, pass, patched, revised, settled, spec, upgraded};
use crate::invariants::at_rest;
use crate::time::aged;
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, DeletionPolicy, MachineName, Strategy};
use slipway_plan::{Action, ConditionType, End, Fact, Observed, Status, forecast, plan, seen};
use std::collections::BTreeMap;

fn deleting(mut world: Observed) -> Observed {
    world.cluster.deleting = Some(now());
    world
}

/// What a fault-free execution does, pass by pass, with pauses as long as the planner wants them.
fn executed(spec: &ClusterSpec, mut world: Observed) -> Vec<Vec<Action>> {
    let (mut steps, mut now) = (vec![], now());
    look(spec, &mut world);
    for _ in 0..500 {
        let plan = plan(spec, &seen(&world), now);
        steps.push(plan.actions);
        if pass(spec, &mut world, now) {
            continue;
        }
        match plan.requeue {
            Some(pause) if !pause.is_zero() => now += SignedDuration::try_from(pause).unwrap(),
            _ => break,
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

/// Whether what is shown is what is done, from any moment of a life. Whoever shows it knows of every pod here, as nobody does who looks from outside: how
/// long pods take would shift all else.
pub fn is_what_is_done(spec: &ClusterSpec, world: &Observed) -> bool {
    let forecast = forecast(spec, world, now());
    let steps = || forecast.steps.iter().map(|s| s.actions.clone()).collect();
    forecast.end == End::Unbounded || shown(steps()) == executed(spec, world.clone())
}

/// What is done to each machine and to the cluster, in order.
fn by_machine(steps: Vec<Vec<Action>>) -> BTreeMap<Option<MachineName>, Vec<Action>> {
    let mut all: BTreeMap<_, Vec<Action>> = BTreeMap::new();
    steps.into_iter().flatten().for_each(|action| all.entry(action.machine().cloned()).or_default().push(action));
    all
}

/// What is shown from here, and what is done.
fn both(spec: &ClusterSpec, world: &Observed) -> (Vec<Vec<Action>>, Vec<Vec<Action>>) {
    let mut world = world.clone();
    look(spec, &mut world);
    let forecast = forecast(spec, &seen(&world), now());
    assert_eq!(forecast.end, End::Done, "{forecast}");
    (shown(forecast.steps.into_iter().map(|s| s.actions).collect()), executed(spec, world))
}

/// Whether what is shown is what is done, from here.
fn is_shown(spec: &ClusterSpec, world: &Observed) {
    let (shown, done) = both(spec, world);
    assert_eq!(shown, done);
}

/// The same where Nodes are emptied: machines that are changed side by side may be ahead of each other by as long as their pods take, which nobody knows.
fn is_shown_of_each_machine(spec: &ClusterSpec, world: &Observed) {
    let (shown, done) = both(spec, world);
    assert_eq!(by_machine(shown), by_machine(done));
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
        is_shown(&spec, &world);
    }
}

#[test]
fn what_is_shown_of_scaling_the_control_plane_is_what_is_done() {
    let mut world = complete(&spec(1, 1));
    for replicas in [3, 5, 3, 1] {
        is_shown(&spec(replicas, 1), &world);
        world = aged(&settled(&spec(replicas, 1), world));
        at_rest(&spec(replicas, 1), &world).unwrap();
    }
}

#[test]
fn what_is_shown_of_an_upgrade_is_what_is_done_forth_and_back() {
    for (planes, workers) in [(1, 0), (3, 2), (5, 3)] {
        let old = spec(planes, workers);
        for new in [upgraded(old.clone()), at(old.clone(), patched())] {
            let world = complete(&old);
            is_shown_of_each_machine(&new, &world);
            at_rest(&new, &aged(&settled(&new, world))).unwrap();
        }
    }
}

#[test]
fn what_is_shown_of_replacing_every_machine_is_what_is_done() {
    for (planes, workers) in [(1, 1), (3, 2)] {
        let old = spec(planes, workers);
        let mut replacing = upgraded(old.clone());
        replacing.control_plane.strategy = Strategy::Replace;
        replacing.pools.iter_mut().for_each(|p| p.upgrade.strategy = Strategy::Replace);
        for new in [revised(old.clone()), replacing] {
            let mut world = complete(&old);
            // Nobody can foresee how long pods take to leave, and everything else goes on meanwhile.
            world.nodes.known_mut().unwrap().iter_mut().for_each(|n| n.pods = Fact::Known(vec![]));
            is_shown(&new, &world);
            at_rest(&new, &aged(&settled(&new, world))).unwrap();
        }
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
    insta::assert_snapshot!("grow_1_to_3", forecast(&spec(3, 0), &seen(&complete(&spec(1, 0))), now()));
    let upgraded = upgraded(spec(3, 2));
    let mut world = complete(&spec(3, 2));
    look(&upgraded, &mut world);
    insta::assert_snapshot!("upgrade_3_2", forecast(&upgraded, &seen(&world), now()));
    insta::assert_snapshot!("delete_1_1", forecast(&spec(1, 1), &seen(&deleting(complete(&spec(1, 1)))), now()));
}

#[test]
fn what_is_ill_at_the_moment_is_assumed_to_get_well_and_takes_nothing_back() {
    let spec = crate::build::spec(3, 1);
    let mut world = crate::build::complete(&spec);
    let worker = "demo-w-0".parse().unwrap();
    let Some(slipway_plan::AgentFacts::Heard(state)) = world.agents.get_mut(&worker) else { panic!("it is not heard") };
    let since = crate::build::now();
    state.probes.insert("slipway-images".into(), slipway_plan::ProbeFacts { healthy: false, message: "activating".into(), since });
    let foreseen = slipway_plan::forecast(&crate::build::upgraded(spec), &world, since);
    assert_eq!(foreseen.end, slipway_plan::End::Done, "{foreseen}");
    let back = |a: &slipway_plan::Action| matches!(a, slipway_plan::Action::SetVersions { from, to, .. } if to < from);
    assert!(!foreseen.steps.iter().flat_map(|s| &s.actions).any(back), "{foreseen}");
}
