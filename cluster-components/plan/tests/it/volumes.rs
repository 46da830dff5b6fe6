//! Volumes of Nodes that are drained: what is waited for, for how long, and what is not.

use crate::build::{complete, now, spec};
use crate::explore::{Sight, explore, life};
use crate::faults::{Budget, Loss, NONE};
use crate::life::Grain;
use crate::time::long_ago;
use jiff::Timestamp;
use slipway_model::{ClusterSpec, MachineName};
use slipway_plan::{
    Action, ActionKind, AgentFacts, Fact, Happening, NodeFacts, Observed, Reason, happen, happenings, may_be_deleted, plan, seen, simulate,
};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn node<'w>(world: &'w mut Observed, machine: &str) -> &'w mut NodeFacts {
    world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo(machine))).unwrap()
}

fn leaves(world: &mut Observed, machine: &str, since: Timestamp) {
    world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo(machine)).unwrap().deleting = Some(since);
}

/// A worker that is being taken away; its pods have left, and these volumes are attached to its Node.
fn emptied(spec: &ClusterSpec, volumes: &[&str]) -> Observed {
    let mut world = complete(spec);
    leaves(&mut world, "w-0", now());
    let node = node(&mut world, "w-0");
    node.unschedulable = true;
    node.pods = Fact::Known(vec![]);
    node.volumes = Fact::Known(volumes.iter().map(ToString::to_string).collect());
    world
}

fn deletes(spec: &ClusterSpec, view: &Observed) -> bool {
    plan(spec, view, now()).actions.iter().any(|a| a.key().kind == ActionKind::DeleteInstance)
}

fn waits(spec: &ClusterSpec, view: &Observed) -> Vec<String> {
    plan(spec, view, now()).waits.iter().filter(|w| w.reason == Reason::VolumesAttached).map(ToString::to_string).collect()
}

#[test]
fn a_machine_is_deleted_when_nothing_is_attached_to_its_node_any_more_and_until_then_the_volumes_are_named() {
    let spec = spec(1, 1);
    let mut world = emptied(&spec, &["pvc-1"]);
    assert!(!deletes(&spec, &seen(&world)));
    let told = waits(&spec, &seen(&world));
    assert!(matches!(told.as_slice(), [one] if one.contains("volume pvc-1") && one.contains("Node demo-w-0")), "{told:?}");

    happen(&mut world, &Happening::Detaches("demo-w-0".into(), "pvc-1".into()), now());
    assert!(deletes(&spec, &seen(&world)));
    assert_eq!(waits(&spec, &seen(&world)), [""; 0]);
}

#[test]
fn nobody_who_has_not_looked_says_that_nothing_is_attached() {
    let spec = spec(1, 1);
    let mut view = seen(&emptied(&spec, &[]));
    assert!(deletes(&spec, &view));
    node(&mut view, "w-0").volumes = Fact::unknown("not asked for", now());
    assert!(!deletes(&spec, &view));
    assert!(matches!(waits(&spec, &view).as_slice(), [one] if one.contains("Node demo-w-0 to be listed")), "{:?}", waits(&spec, &view));
}

#[test]
fn of_many_volumes_three_are_named() {
    let spec = spec(1, 1);
    let told = waits(&spec, &seen(&emptied(&spec, &["a", "b", "c", "d", "e"])));
    assert!(matches!(told.as_slice(), [one] if one.contains("volume a, b, c and 2 more")), "{told:?}");
}

#[test]
fn volumes_are_waited_for_until_the_drains_time_is_over() {
    let mut spec = spec(1, 1);
    let mut world = emptied(&spec, &["pvc-1"]);
    leaves(&mut world, "w-0", long_ago());
    assert!(deletes(&spec, &seen(&world)), "the time is over");
    spec.pools[0].drain_timeout_seconds = 0;
    assert!(!deletes(&spec, &seen(&world)), "0 waits for ever");
    assert_eq!(waits(&spec, &seen(&world)).len(), 1);
}

#[test]
fn pods_come_first_and_nothing_is_said_of_volumes_while_they_use_them() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    leaves(&mut world, "w-0", now());
    let node = node(&mut world, "w-0");
    node.unschedulable = true;
    node.volumes = Fact::Known(vec!["pvc-1".into()]);
    assert_eq!(waits(&spec, &seen(&world)), [""; 0]);
    assert!(!happenings(&world).iter().any(|h| matches!(h, Happening::Detaches(..))), "a volume that a pod uses stays");
}

#[test]
fn nobody_waits_for_the_volumes_of_a_dead_machine() {
    let spec = spec(1, 1);
    let mut world = emptied(&spec, &["pvc-1"]);
    let instance = world.cloud.known_mut().unwrap().instances.iter_mut().find(|i| i.machine == demo("w-0")).unwrap();
    instance.state = slipway_plan::InstanceState::Stopped;
    slipway_plan::world_follows(&mut world, now());
    let silent = AgentFacts::Silent { since: long_ago(), error: "no route to host".into(), last: None };
    world.agents.insert(demo("w-0"), silent);
    assert!(deletes(&spec, &seen(&world)));
}

#[test]
fn right_before_the_deletion_it_is_looked_again() {
    let spec = spec(1, 1);
    let mut world = emptied(&spec, &["pvc-1"]);
    let machine = world.machines.known().unwrap().iter().find(|m| m.name == demo("w-0")).unwrap().clone();
    let may =
        |node: &NodeFacts, answers| may_be_deleted(&spec, true, &machine, None, Some(node), answers, &Fact::unknown("", now()), now());
    let node = node(&mut world, "w-0").clone();
    assert!(!may(&node, true), "a volume is attached");
    assert!(may(&node, false), "dead machines are not waited for");
    assert!(!may(&NodeFacts { volumes: Fact::unknown("timeout", now()), ..node.clone() }, true), "nobody knows");
    assert!(may(&NodeFacts { volumes: Fact::Known(vec![]), ..node }, true));

    // An old view in which nothing was attached yet.
    let instance = world.cloud.known().unwrap().instances.iter().find(|i| i.machine == demo("w-0")).unwrap().id.clone();
    let delete = Action::DeleteInstance { machine: demo("w-0"), instance };
    assert!(simulate(&spec, &mut world, &delete, now()).is_err());
}

/// A cluster to whose Nodes of these machines volumes are attached, which stay for a moment after their pods have gone.
fn attached(spec: &ClusterSpec, machines: &[&str]) -> Observed {
    let mut world = complete(spec);
    for machine in machines {
        node(&mut world, machine).volumes = Fact::Known(vec![format!("volume-of-{machine}")]);
    }
    world
}

#[test]
fn no_machine_goes_while_a_volume_is_attached_to_its_node_whatever_crashes_lags_or_dies() {
    let begin = || attached(&spec(1, 2), &["w-0", "w-1"]);
    let specs = || vec![spec(1, 2), spec(1, 1)];
    let wide = || Some((Grain::Fine, Budget { crashes: 1, lags: 1, late: 1, ..NONE }));
    let dying = || Some((Grain::Coarse, Budget { crashes: 1, losses: 1, silences: 1, ..NONE }));
    let mut met = explore("volumes, scale 1+2 to 1+1", life(specs(), begin(), Budget { crashes: 1, lags: 1, ..NONE }, wide()));
    assert!(met.contains(&Sight::VolumeStays), "no volume outlived its pods: this proves nothing");
    let hurt = life(specs(), begin(), Budget { losses: 1, ..NONE }, dying());
    explore("volumes, scale 1+2 to 1+1", hurt.losing(&[Loss::Vanishes, Loss::Hangs]));
    let wide = Some((Grain::Coarse, Budget { crashes: 1, replaced: 1, ..NONE }));
    let planes = life(vec![spec(3, 0)], attached(&spec(3, 0), &["cp-0", "cp-2"]), Budget { replaced: 1, ..NONE }, wide);
    met = explore("volumes, replace a control plane of 3", planes);
    assert!(met.contains(&Sight::VolumeStays), "no volume outlived its pods: this proves nothing");
}
