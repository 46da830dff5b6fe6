//! A machine that is half way from one kubelet to another: its Node may not say yet what runs.

use crate::build::{complete, new, now, old, spec, upgraded};
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName, MachineVersions, Part, PlanDigest};
use slipway_plan::{Action, AgentFacts, Observed, StoppedRoll, UpgradeRecord, VersionChange, plan, seen};

fn worker() -> MachineName {
    "demo-w-0".parse().unwrap()
}

/// A worker that was told the new kubelet and accepted it, was told the old one again, and whose Node somebody gave back meanwhile.
fn called_off() -> (ClusterSpec, Observed) {
    let mut spec = upgraded(spec(1, 1));
    spec.pools[0].versions = MachineVersions { control_plane: None, ..old() };
    let mut world = complete(&spec);
    let machine = world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == worker()).unwrap();
    let told = MachineVersions { control_plane: None, ..new() };
    machine.changed = Some(VersionChange { from: told, at: now() - SignedDuration::from_secs(5) });
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&worker()) else { panic!("its agent is heard") };
    state.accepted = Some(PlanDigest(format!("{told}")));
    (spec, world)
}

fn node(world: &mut Observed) -> &mut slipway_plan::NodeFacts {
    world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(worker())).unwrap()
}

#[test]
fn one_that_may_have_exchanged_its_kubelet_goes_back_on_an_empty_node_only() {
    let (spec, mut world) = called_off();
    assert_eq!(node(&mut world).kubelet, Some(old().node.kubelet), "its Node says what it ran before");
    let serving = plan(&spec, &seen(&world), now()).actions;
    assert!(matches!(serving.as_slice(), [Action::Cordon { machine, .. }] if *machine == worker()), "{serving:?}");
    let node = node(&mut world);
    (node.unschedulable, node.cordoned) = (true, Some(now()));
    node.pods = slipway_plan::Fact::Known(vec![]);
    // Nothing is detached from a Node that stays.
    node.volumes = slipway_plan::Fact::Known(vec!["pvc-1".into()]);
    let empty = plan(&spec, &seen(&world), now()).actions;
    assert!(matches!(empty.as_slice(), [Action::ApplyPlan { machine, .. }] if *machine == worker()), "{empty:?}");
}

#[test]
fn one_that_failed_goes_back_at_once_because_its_pods_may_not_be_evictable() {
    let (mut spec, mut world) = called_off();
    // The pool wants the new kubelet still, and the roll stands still since that failed.
    spec.pools[0].versions = MachineVersions { control_plane: None, ..new() };
    let since = now() - SignedDuration::from_secs(6);
    let stopped = StoppedRoll { machine: worker(), part: Part::Node, why: "waiting for its Node to be Ready".into(), since };
    world.cluster.upgrade = Some(UpgradeRecord { from: new(), to: new(), snapshot: String::new(), since, stopped: Some(stopped) });
    assert!(!node(&mut world).unschedulable, "its Node serves");
    let actions = plan(&spec, &seen(&world), now()).actions;
    assert!(matches!(actions.as_slice(), [Action::ApplyPlan { machine, .. }] if *machine == worker()), "{actions:?}");
}
