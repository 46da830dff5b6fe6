//! Worlds that are hurt by hand, and the story of what is done about it until nothing moves any more.

use crate::build::{look, now};
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName};
use slipway_plan::{
    Action, ActionKind, AgentFacts, AgentState, ConditionType, EtcdFacts, InstanceState, MachineRecord, MemberFacts, Observed, Reason,
    Status, happen, happenings, plan, seen, simulate, world_follows,
};

pub fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

pub fn actions(spec: &ClusterSpec, world: &Observed) -> Vec<Action> {
    plan(spec, &seen(world), now()).actions
}

pub fn kinds(spec: &ClusterSpec, world: &Observed) -> Vec<ActionKind> {
    actions(spec, world).iter().map(|a| a.key().kind).collect()
}

pub fn waits_for(spec: &ClusterSpec, world: &Observed, reason: Reason) -> bool {
    plan(spec, &seen(world), now()).waits.iter().any(|w| w.reason == reason)
}

pub fn record<'w>(world: &'w mut Observed, machine: &str) -> &'w mut MachineRecord {
    world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo(machine)).unwrap()
}

pub fn etcd(world: &mut Observed) -> &mut EtcdFacts {
    world.etcd.known_mut().unwrap()
}

pub fn member<'w>(world: &'w mut Observed, machine: &str) -> &'w mut MemberFacts {
    let name = demo(machine);
    etcd(world).members.iter_mut().find(|m| m.name == name.as_str()).unwrap()
}

pub fn planes(world: &Observed) -> Vec<&str> {
    world.machines.known().unwrap().iter().filter(|m| m.is_control_plane()).map(|m| m.name.as_str()).collect()
}

pub fn voters(world: &Observed) -> Vec<String> {
    world.etcd.known().unwrap().voters().map(|m| m.name.clone()).collect()
}

pub fn delete(world: &mut Observed, machine: &str) {
    record(world, machine).deleting = Some(now());
}

/// Its instance is gone.
pub fn vanish(world: &mut Observed, machine: &str) {
    world.cloud.known_mut().unwrap().instances.retain(|i| i.machine != demo(machine));
    world_follows(world, now());
}

/// It is powered off, and has been silent for that long.
pub fn stop(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().state = InstanceState::Stopped;
    world_follows(world, now());
    silence(world, machine, since);
}

/// Its agent has been silent for that long.
pub fn silence(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let last = match world.agents.remove(&demo(machine)) {
        Some(AgentFacts::Heard(state)) => Some(AgentState { probes: Default::default(), ..state }),
        Some(AgentFacts::Silent { last, .. }) => last,
        Some(AgentFacts::Answering) | None => None,
    };
    world.agents.insert(demo(machine), AgentFacts::Silent { since, error: "no route to host".into(), last });
}

/// It hangs: agent, etcd and kubelet are silent.
pub fn hang(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().trouble = Some("it hangs".into());
    world_follows(world, now());
    silence(world, machine, since);
    node_ready(world, machine, false);
}

pub fn node_ready(world: &mut Observed, machine: &str, ready: bool) {
    world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo(machine))).unwrap().ready = ready;
}

/// Everything that is done from here until nothing moves any more, and the world then. Checks at every step that etcd keeps its quorum and that no more
/// than one member changes at once.
pub fn story(spec: &ClusterSpec, world: &Observed) -> (Vec<Action>, Observed) {
    let mut world = world.clone();
    look(spec, &mut world);
    let (mut told, mut at) = (vec![], now());
    for _ in 0..400 {
        let before = world.clone();
        let next = plan(spec, &seen(&world), at);
        let changes = next.actions.iter().filter(|a| is_membership(a)).count();
        assert!(changes <= 1, "one change of membership at a time: {:?}", next.actions);
        for action in next.actions {
            if simulate(spec, &mut world, &action, at).is_ok() {
                told.push(action);
            }
            let etcd = world.etcd.known().unwrap();
            let answering = etcd.voters().filter(|m| m.status.known().is_some()).count();
            assert!(answering > etcd.voters().count() / 2, "etcd has its quorum after {:?}", told.last());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, at);
        }
        if world == before {
            match next.requeue.filter(|pause| !pause.is_zero()) {
                Some(pause) => at += SignedDuration::try_from(pause).unwrap(),
                None => return (told, world),
            }
        }
    }
    panic!("no rest: {:#?}", plan(spec, &seen(&world), at));
}

pub fn is_membership(action: &Action) -> bool {
    matches!(action.key().kind, ActionKind::AddMember | ActionKind::PromoteMember | ActionKind::RemoveMember | ActionKind::MoveLeader)
}

/// Only those actions that show how membership and machines change.
pub fn outline(told: &[Action]) -> Vec<String> {
    let shown = |a: &&Action| {
        is_membership(a)
            || matches!(
                a.key().kind,
                ActionKind::CreateMachine
                    | ActionKind::DeleteMachine
                    | ActionKind::Retire
                    | ActionKind::DeleteInstance
                    | ActionKind::RemoveMachine
            )
    };
    told.iter().filter(shown).map(|a| format!("{:?} {}", a.key().kind, a.machine().map(|m| m.as_str()).unwrap_or_default())).collect()
}

pub fn ready(spec: &ClusterSpec, world: &Observed) {
    let plan = plan(spec, &seen(world), now() + SignedDuration::from_hours(1));
    let ready = plan.condition(ConditionType::Ready).unwrap();
    assert_eq!(ready.status, Status::True, "{plan:#?}");
}
