//! The control plane after its founding: who joins, who leaves, who is replaced, and what a quorum does not bear.

use crate::build::{complete, look, now, settled, spec};
use crate::time::long_ago;
use jiff::SignedDuration;
use slipway_model::{Amount, ClusterSpec, Healing, MachineName, NodeConditionLimit};
use slipway_plan::{
    Action, ActionKind, AgentFacts, AgentState, ConditionType, DEAD_AFTER, EtcdFacts, Fact, InstanceState, MachineRecord, MemberFacts,
    MemberId, Observed, POWER_ON, PROBE_API_SERVER, Reason, STABLE_FOR, Status, happen, happenings, is_no_member, may_be_deleted, plan,
    seen, simulate, world_follows,
};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn actions(spec: &ClusterSpec, world: &Observed) -> Vec<Action> {
    plan(spec, &seen(world), now()).actions
}

fn kinds(spec: &ClusterSpec, world: &Observed) -> Vec<ActionKind> {
    actions(spec, world).iter().map(|a| a.key().kind).collect()
}

fn waits_for(spec: &ClusterSpec, world: &Observed, reason: Reason) -> bool {
    plan(spec, &seen(world), now()).waits.iter().any(|w| w.reason == reason)
}

fn record<'w>(world: &'w mut Observed, machine: &str) -> &'w mut MachineRecord {
    world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo(machine)).unwrap()
}

fn etcd(world: &mut Observed) -> &mut EtcdFacts {
    world.etcd.known_mut().unwrap()
}

fn member<'w>(world: &'w mut Observed, machine: &str) -> &'w mut MemberFacts {
    let name = demo(machine);
    etcd(world).members.iter_mut().find(|m| m.name == name.as_str()).unwrap()
}

fn planes(world: &Observed) -> Vec<&str> {
    world.machines.known().unwrap().iter().filter(|m| m.is_control_plane()).map(|m| m.name.as_str()).collect()
}

fn voters(world: &Observed) -> Vec<String> {
    world.etcd.known().unwrap().voters().map(|m| m.name.clone()).collect()
}

fn delete(world: &mut Observed, machine: &str) {
    record(world, machine).deleting = Some(now());
}

/// Its instance is gone.
fn vanish(world: &mut Observed, machine: &str) {
    world.cloud.known_mut().unwrap().instances.retain(|i| i.machine != demo(machine));
    world_follows(world, now());
}

/// It is powered off, and has been silent for that long.
fn stop(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().state = InstanceState::Stopped;
    world_follows(world, now());
    silence(world, machine, since);
}

/// Its agent has been silent for that long.
fn silence(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let last = match world.agents.remove(&demo(machine)) {
        Some(AgentFacts::Heard(state)) => Some(AgentState { probes: Default::default(), ..state }),
        Some(AgentFacts::Silent { last, .. }) => last,
        Some(AgentFacts::Answering) | None => None,
    };
    world.agents.insert(demo(machine), AgentFacts::Silent { since, error: "no route to host".into(), last });
}

/// It hangs: agent, etcd and kubelet are silent.
fn hang(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().trouble = Some("it hangs".into());
    world_follows(world, now());
    silence(world, machine, since);
    node_ready(world, machine, false);
}

fn node_ready(world: &mut Observed, machine: &str, ready: bool) {
    world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo(machine))).unwrap().ready = ready;
}

/// Everything that is done from here until nothing moves any more, and the world then. Checks at every step that etcd keeps its quorum and that no more
/// than one member changes at once.
fn story(spec: &ClusterSpec, world: &Observed) -> (Vec<Action>, Observed) {
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

fn is_membership(action: &Action) -> bool {
    matches!(action.key().kind, ActionKind::AddMember | ActionKind::PromoteMember | ActionKind::RemoveMember | ActionKind::MoveLeader)
}

/// Only those actions that show how membership and machines change.
fn outline(told: &[Action]) -> Vec<String> {
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

fn ready(spec: &ClusterSpec, world: &Observed) {
    let plan = plan(spec, &seen(world), now() + SignedDuration::from_hours(1));
    let ready = plan.condition(ConditionType::Ready).unwrap();
    assert_eq!(ready.status, Status::True, "{plan:#?}");
}

#[test]
fn scaling_up_makes_all_machines_at_once_and_lets_them_join_one_by_one() {
    let world = complete(&spec(1, 1));
    let spec = spec(3, 1);
    let (told, world) = story(&spec, &world);
    assert_eq!(
        outline(&told),
        [
            "CreateMachine demo-cp-1",
            "CreateMachine demo-cp-2",
            "AddMember demo-cp-1",
            "PromoteMember demo-cp-1",
            "AddMember demo-cp-2",
            "PromoteMember demo-cp-2"
        ]
    );
    ready(&spec, &world);
    assert_eq!(world.cloud.known().unwrap().load_balancer.as_ref().unwrap().targets.len(), 3);
}

#[test]
fn scaling_down_takes_one_after_the_other_and_the_leader_last() {
    let world = complete(&spec(3, 1));
    let one = spec(1, 1);
    let (told, world) = story(&one, &world);
    assert_eq!(
        outline(&told),
        [
            "DeleteMachine demo-cp-2",
            "Retire demo-cp-2",
            "RemoveMember demo-cp-2",
            "DeleteInstance demo-cp-2",
            "RemoveMachine demo-cp-2",
            "DeleteMachine demo-cp-1",
            "Retire demo-cp-1",
            "RemoveMember demo-cp-1",
            "DeleteInstance demo-cp-1",
            "RemoveMachine demo-cp-1"
        ]
    );
    ready(&one, &world);
}

#[test]
fn a_control_plane_grows_and_shrinks_through_all_its_sizes() {
    let mut world = complete(&spec(1, 1));
    for size in [3, 5, 3, 1, 5, 1] {
        let spec = spec(size, 1);
        world = story(&spec, &world).1;
        assert_eq!((planes(&world).len(), voters(&world).len()), (size as usize, size as usize));
        ready(&spec, &world);
    }
}

#[test]
fn a_deleted_control_plane_leaves_when_its_successor_votes_off_the_load_balancer_retired_and_without_leadership() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    assert!(member(&mut world, "cp-0").status.known().unwrap().leader);
    delete(&mut world, "cp-0");
    let (told, world) = story(&spec, &world);
    assert_eq!(
        outline(&told),
        [
            "CreateMachine demo-cp-3",
            "AddMember demo-cp-3",
            "PromoteMember demo-cp-3",
            "Retire demo-cp-0",
            "MoveLeader demo-cp-0",
            "RemoveMember demo-cp-0",
            "DeleteInstance demo-cp-0",
            "RemoveMachine demo-cp-0"
        ]
    );
    let at = |kind| told.iter().rposition(|a| a.key().kind == kind && a.machine().is_none_or(|m| *m == demo("cp-0"))).unwrap();
    let off =
        told.iter().position(|a| matches!(a, Action::SetTargets { instances } if !instances.iter().any(|i| i.ends_with("cp-0")))).unwrap();
    assert!(
        off < at(ActionKind::Retire)
            && at(ActionKind::Retire) < at(ActionKind::ApplyPlan)
            && at(ActionKind::ApplyPlan) < at(ActionKind::RemoveMember)
    );
    ready(&spec, &world);
    assert_eq!(planes(&world), ["demo-cp-1", "demo-cp-2", "demo-cp-3"]);
}

#[test]
fn the_only_control_plane_is_replaced_gracefully_too() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    delete(&mut world, "cp-0");
    let (_, world) = story(&spec, &world);
    assert_eq!(voters(&world), ["demo-cp-1"]);
    ready(&spec, &world);
}

#[test]
fn all_control_planes_may_be_deleted_at_once_and_are_replaced_one_by_one() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    for machine in ["cp-0", "cp-1", "cp-2"] {
        delete(&mut world, machine);
    }
    let (_, world) = story(&spec, &world);
    assert_eq!(planes(&world), ["demo-cp-3", "demo-cp-4", "demo-cp-5"]);
    ready(&spec, &world);
}

#[test]
fn a_deletion_is_asked_for_and_nothing_leaves_before_another_votes() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    delete(&mut world, "cp-1");
    assert!(waits_for(&spec, &world, Reason::WaitingForReplacement));
    assert!(!kinds(&spec, &world).iter().any(|k| matches!(k, ActionKind::Retire | ActionKind::RemoveMember | ActionKind::DeleteInstance)));
    let plan = plan(&spec, &seen(&world), now());
    assert_eq!(plan.condition(ConditionType::Progressing).unwrap().reason, Reason::Replacing);
}

#[test]
fn a_dead_control_planes_member_goes_before_its_successor_joins() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    vanish(&mut world, "cp-1");
    let (told, world) = story(&spec, &world);
    assert_eq!(
        outline(&told),
        [
            "DeleteMachine demo-cp-1",
            "RemoveMember demo-cp-1",
            "CreateMachine demo-cp-3",
            "RemoveMachine demo-cp-1",
            "AddMember demo-cp-3",
            "PromoteMember demo-cp-3"
        ]
    );
    ready(&spec, &world);
}

#[test]
fn five_members_bear_two_losses_and_are_five_again() {
    let spec = spec(5, 0);
    let mut world = complete(&spec);
    vanish(&mut world, "cp-0");
    vanish(&mut world, "cp-3");
    let deleted = actions(&spec, &world).into_iter().filter(|a| a.key().kind == ActionKind::DeleteMachine).count();
    assert_eq!(deleted, 1, "one at a time");
    assert!(waits_for(&spec, &world, Reason::ReplacingOthersFirst));
    let (_, world) = story(&spec, &world);
    assert_eq!(voters(&world).len(), 5);
    ready(&spec, &world);
}

#[test]
fn two_of_three_lost_for_good_is_said_and_nothing_destructive_is_done() {
    for size in [1, 3, 5] {
        let spec = spec(size, 1);
        let mut world = complete(&spec);
        for machine in (0..=size / 2).map(|n| format!("cp-{n}")) {
            vanish(&mut world, &machine);
        }
        let plan = plan(&spec, &seen(&world), now());
        assert!(plan.actions.iter().all(|a| matches!(a, Action::SetTargets { .. })), "{size}: {:?}", plan.actions);
        for action in plan.actions {
            simulate(&spec, &mut world, &action, now()).unwrap();
        }
        let plan = slipway_plan::plan(&spec, &seen(&world), now());
        assert!(plan.actions.is_empty(), "{size}: {:?}", plan.actions);
        let available = plan.condition(ConditionType::Ready).unwrap();
        assert_eq!(available.reason, Reason::RestoreNeeded, "{size}: {}", available.message);
        assert_eq!(plan.condition(ConditionType::Progressing).unwrap().status, Status::False, "somebody has to do something");
        assert!(plan.requeue.is_some(), "and it goes on looking");
    }
}

#[test]
fn without_a_quorum_machines_that_are_off_are_started_and_nothing_else_is_done() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    stop(&mut world, "cp-0", long_ago());
    stop(&mut world, "cp-1", long_ago());
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.iter().all(|a| matches!(a, Action::StartInstance { .. })), "{:?}", plan.actions);
    assert_eq!(plan.actions.len(), 2);
    let world = settled(&spec, world);
    assert_eq!(voters(&world).len(), 3);
    ready(&spec, &world);
}

#[test]
fn a_silent_control_plane_is_dead_only_when_etcd_and_another_witness_agree() {
    let spec = spec(3, 1);
    let second = SignedDuration::from_secs(1);
    #[derive(Debug, Clone, Copy)]
    enum How {
        Hangs,
        HangsButItsNodeIsReady,
        OnlyItsAgentIsSilent,
        Off,
    }
    let table = [
        (How::Hangs, DEAD_AFTER, true),
        (How::Hangs, DEAD_AFTER - second, false),
        (How::HangsButItsNodeIsReady, DEAD_AFTER, false),
        (How::OnlyItsAgentIsSilent, SignedDuration::from_hours(1), false),
        (How::Off, POWER_ON, true),
        (How::Off, POWER_ON - second, false),
    ];
    for (how, silent, dead) in table {
        let mut world = complete(&spec);
        let since = now() - silent;
        match how {
            How::Hangs => hang(&mut world, "cp-1", since),
            How::HangsButItsNodeIsReady => {
                hang(&mut world, "cp-1", since);
                node_ready(&mut world, "cp-1", true);
            }
            How::OnlyItsAgentIsSilent => silence(&mut world, "cp-1", since),
            How::Off => stop(&mut world, "cp-1", since),
        }
        let deleted = kinds(&spec, &world).contains(&ActionKind::DeleteMachine);
        assert_eq!(deleted, dead, "{how:?} for {silent}");
    }
}

#[test]
fn a_control_plane_that_hangs_is_replaced_and_does_not_come_back_as_a_stranger() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    hang(&mut world, "cp-1", long_ago());
    for action in actions(&spec, &world) {
        simulate(&spec, &mut world, &action, now()).unwrap();
    }
    let removal = actions(&spec, &world).into_iter().find(|a| a.key().kind == ActionKind::RemoveMember).unwrap();
    simulate(&spec, &mut world, &removal, now()).unwrap();
    // It comes back with its old disk, after its member was removed.
    world.cloud.known_mut().unwrap().instances.iter_mut().for_each(|i| i.trouble = None);
    let state = AgentState { accepted: world.wanted.get(&demo("cp-1")).cloned(), ..AgentState::default() };
    world.agents.insert(demo("cp-1"), AgentFacts::Heard(state));
    world_follows(&mut world, now());
    let (told, world) = story(&spec, &world);
    assert!(
        told.iter().all(|a| a.machine() != Some(&demo("cp-1")) || !matches!(a.key().kind, ActionKind::AddMember | ActionKind::ApplyPlan))
    );
    assert_eq!(voters(&world), ["demo-cp-0", "demo-cp-2", "demo-cp-3"]);
    ready(&spec, &world);
}

#[test]
fn a_control_plane_whose_disk_is_lost_is_replaced_and_never_configured_again() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    world.agents.insert(demo("cp-1"), AgentFacts::Heard(AgentState::default()));
    world_follows(&mut world, now());
    let (told, world) = story(&spec, &world);
    assert!(told.iter().all(|a| !matches!(a, Action::ApplyPlan { machine, .. } if *machine == demo("cp-1"))));
    assert_eq!(planes(&world), ["demo-cp-0", "demo-cp-2", "demo-cp-3"]);
    ready(&spec, &world);
}

#[test]
fn nobody_joins_before_every_voter_was_well_for_five_seconds_or_while_another_learns() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    vanish(&mut world, "cp-2");
    // Until the successor is claimed and certified.
    for _ in 0..40 {
        if kinds(&spec, &world).contains(&ActionKind::AddMember) {
            break;
        }
        for action in actions(&spec, &world) {
            let _ = simulate(&spec, &mut world, &action, now());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
    }
    assert!(kinds(&spec, &world).contains(&ActionKind::AddMember));
    let ready = world.clone();

    let Fact::Known(status) = &mut member(&mut world, "cp-0").status else { panic!() };
    status.healthy_since = now() - SignedDuration::from_secs(2);
    assert!(!kinds(&spec, &world).contains(&ActionKind::AddMember), "not stable");
    assert_eq!(plan(&spec, &seen(&world), now()).requeue, Some((STABLE_FOR - SignedDuration::from_secs(2)).unsigned_abs()));

    let mut world = ready.clone();
    member(&mut world, "cp-0").status = Fact::unknown("no answer", now());
    assert!(!kinds(&spec, &world).contains(&ActionKind::AddMember), "a voter does not answer");

    let mut world = ready.clone();
    let foreign = MemberFacts {
        id: MemberId(99),
        name: "x".into(),
        peer: [198, 18, 0, 250].into(),
        learner: true,
        status: Fact::unknown("no answer", now()),
    };
    etcd(&mut world).members.push(foreign);
    let kinds = kinds(&spec, &world);
    assert!(
        !kinds.contains(&ActionKind::AddMember) && kinds.contains(&ActionKind::RemoveMember),
        "a learner of nobody goes first: {kinds:?}"
    );

    let mut world = ready;
    world.etcd = Fact::unknown("no answer", now());
    assert!(actions(&spec, &world).iter().all(|a| !is_membership(a)), "nobody can be asked");
}

#[test]
fn a_member_without_a_machine_goes_when_it_does_not_answer_or_is_not_needed() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    world.machines.known_mut().unwrap().retain(|m| m.name != demo("cp-1"));
    assert!(
        !kinds(&spec, &world).iter().any(|k| matches!(k, ActionKind::RemoveMember | ActionKind::DeleteStrayInstance)),
        "it holds a vote that is needed"
    );
    assert!(waits_for(&spec, &world, Reason::ControlPlaneMachineLost));
    let (told, healed) = story(&spec, &world);
    let promoted = told.iter().position(|a| a.key().kind == ActionKind::PromoteMember).unwrap();
    let removed = told.iter().position(|a| matches!(a, Action::RemoveMember { machine: None, .. })).unwrap();
    let stray = told.iter().position(|a| a.key().kind == ActionKind::DeleteStrayInstance).unwrap();
    assert!(promoted < removed && removed < stray);
    assert_eq!(voters(&healed).len(), 3);

    vanish(&mut world, "cp-1");
    assert!(actions(&spec, &world).iter().any(|a| matches!(a, Action::RemoveMember { machine: None, .. })), "it does not answer");
}

#[test]
fn a_lost_answer_to_an_added_member_is_asked_for_again_and_adds_none() {
    let spec = spec(3, 0);
    let before = complete(&self::spec(1, 0));
    let (told, _) = story(&spec, &before);
    let mut world = before;
    let mut at = now();
    // Up to the first AddMember, of which etcd hears and the record does not.
    for _ in 0..100 {
        let next = plan(&spec, &seen(&world), at);
        if let Some(add) = next.actions.iter().find(|a| a.key().kind == ActionKind::AddMember) {
            simulate(&spec, &mut world, add, at).unwrap();
            record(&mut world, "cp-1").join = None;
            break;
        }
        for action in next.actions {
            let _ = simulate(&spec, &mut world, &action, at);
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, at);
        }
        at += SignedDuration::from_secs(1);
    }
    assert_eq!(world.etcd.known().unwrap().members.len(), 2);
    let again = plan(&spec, &seen(&world), at).actions;
    assert!(again.iter().any(|a| matches!(a, Action::AddMember { machine, .. } if *machine == demo("cp-1"))), "{again:?}");
    let (_, world) = story(&spec, &world);
    assert_eq!(voters(&world).len(), 3);
    assert!(outline(&told).len() == 6);
}

#[test]
fn scaling_down_prefers_the_voteless_the_silent_the_fullest_zone_and_spares_the_leader() {
    let three = spec(3, 0);
    let chosen = |world: &Observed| {
        let deleted = |a: &Action| matches!(a, Action::DeleteMachine { .. }).then(|| a.machine().unwrap().to_string());
        actions(&spec(1, 0), world).iter().find_map(deleted).unwrap()
    };
    let mut world = complete(&three);
    assert_eq!(chosen(&world), "demo-cp-2", "the youngest");
    for (machine, zone) in [("cp-0", "a"), ("cp-1", "a"), ("cp-2", "b")] {
        let cloud = world.cloud.known_mut().unwrap();
        cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().zone = Some(zone.into());
    }
    assert_eq!(chosen(&world), "demo-cp-1", "the fullest zone, and not the leader");
    let mut silent = world.clone();
    member(&mut silent, "cp-2").status = Fact::unknown("no answer", now());
    assert_eq!(chosen(&silent), "demo-cp-2", "the silent one");
    etcd(&mut world).members.retain(|m| m.name != "demo-cp-0");
    assert_eq!(chosen(&world), "demo-cp-0", "the one without a vote");
}

#[test]
fn a_zone_that_is_lost_at_once_is_left_alone() {
    let spec = spec(3, 4);
    let mut world = complete(&spec);
    for instance in &mut world.cloud.known_mut().unwrap().instances {
        let ordinal = instance.machine.as_str().bytes().last().unwrap() - b'0';
        instance.zone = Some(if ordinal == 1 { "a" } else { "b" }.into());
    }
    let begin = settled(&spec, world);
    let recorded = |m: &MachineRecord| m.instance.as_ref().unwrap().zone.is_some();
    assert!(begin.machines.known().unwrap().iter().all(recorded), "also of machines that were made before zones were recorded");
    let hangs = |world: &mut Observed, machine: &str| hang(world, machine, long_ago());
    for lose in [&hangs as &dyn Fn(&mut Observed, &str), &vanish] {
        let mut world = begin.clone();
        lose(&mut world, "cp-1");
        let alone = plan(&spec, &seen(&world), now());
        assert!(alone.actions.iter().any(|a| a.key().kind == ActionKind::DeleteMachine), "one dead machine is no lost zone");
        // Both at once, or the second one while the first is being replaced.
        let mut while_replaced = world.clone();
        delete(&mut while_replaced, "cp-1");
        for mut world in [world, while_replaced] {
            lose(&mut world, "w-1");
            let plan = plan(&spec, &seen(&world), now());
            assert!(plan.actions.iter().all(|a| a.key().kind != ActionKind::DeleteMachine), "{:?}", plan.actions);
            let leaving = world.machines.known().unwrap().iter().filter(|m| m.deleting.is_some()).count();
            let told: Vec<&str> = plan.waits.iter().filter(|w| w.reason == Reason::ZoneLost).map(|w| w.what.as_str()).collect();
            assert_eq!(told, vec!["zone a to be back: 2 of its 2 machines are dead at once"; 2 - leaving]);
            assert_eq!(plan.condition(ConditionType::Ready).unwrap().reason, Reason::ZoneLost);
        }
    }
}

#[test]
fn of_a_zone_only_a_part_is_replaced_at_once() {
    let mut spec = spec(1, 10);
    spec.pools[0].health.max_replacing = Amount::Percent(100);
    let mut world = complete(&spec);
    for instance in &mut world.cloud.known_mut().unwrap().instances {
        let ordinal = instance.machine.as_str().bytes().last().unwrap() - b'0';
        instance.zone = Some(if ordinal < 3 { "a" } else { "b" }.into());
    }
    let begin = settled(&spec, world);
    // Of eleven machines three may be replaced at once, of four in zone a one, of seven in zone b two.
    for (lost, replaced) in [(["w-0", "w-1"], 1), (["w-4", "w-5"], 2), (["w-0", "w-4"], 2)] {
        let mut world = begin.clone();
        lost.iter().for_each(|m| vanish(&mut world, m));
        let plan = plan(&spec, &seen(&world), now());
        let taken = plan.actions.iter().filter(|a| a.key().kind == ActionKind::DeleteMachine).count();
        let waiting = plan.waits.iter().filter(|w| w.reason == Reason::ReplacingOthersFirst).count();
        assert_eq!((taken, waiting), (replaced, 2 - replaced), "{lost:?}");
    }
}

#[test]
fn a_kept_machine_is_replaced_but_stays_until_the_annotation_goes() {
    let spec = spec(3, 1);
    for machine in ["cp-1", "w-0"] {
        let mut world = complete(&spec);
        record(&mut world, machine).kept = true;
        hang(&mut world, machine, long_ago());
        let (told, mut world) = story(&spec, &world);
        assert!(
            told.iter().all(|a| !matches!(a.key().kind, ActionKind::DeleteInstance | ActionKind::RemoveMachine)),
            "{machine}: {:?}",
            outline(&told)
        );
        assert!(waits_for(&spec, &world, Reason::KeptForInspection));
        assert_eq!(world.machines.known().unwrap().len(), 5, "{machine} and its successor");
        record(&mut world, machine).kept = false;
        let (_, world) = story(&spec, &world);
        assert_eq!(world.machines.known().unwrap().len(), 4);
        ready(&spec, &world);
    }
}

#[test]
fn a_node_condition_that_lasts_replaces_a_worker_as_many_at_once_as_the_pool_allows() {
    let mut spec = spec(1, 4);
    let mut world = complete(&spec);
    for node in world.nodes.known_mut().unwrap().iter_mut().filter(|n| !n.name.contains("cp")) {
        node.conditions.push(("DiskPressure".into(), "True".into(), now() - SignedDuration::from_mins(5)));
    }
    let deleted = |spec: &ClusterSpec| kinds(spec, &world).iter().filter(|k| **k == ActionKind::DeleteMachine).count();
    assert_eq!(deleted(&spec), 0, "nobody asked for that");
    let limit = |seconds| NodeConditionLimit { kind: "DiskPressure".into(), status: "True".into(), seconds };
    spec.pools[0].health.node_conditions = vec![limit(600)];
    assert_eq!(deleted(&spec), 0, "not yet");
    assert_eq!(plan(&spec, &seen(&world), now()).requeue, Some(std::time::Duration::from_secs(300)));
    spec.pools[0].health.node_conditions = vec![limit(300)];
    assert_eq!(deleted(&spec), 1);
    assert!(waits_for(&spec, &world, Reason::NodeUnhealthy) && waits_for(&spec, &world, Reason::ReplacingOthersFirst));
    spec.pools[0].health.max_replacing = Amount::Count(0);
    assert_eq!(deleted(&spec), 0, "none at all");
}

#[test]
fn a_pools_own_patience_decides_when_a_silent_worker_is_dead() {
    let mut spec = spec(1, 3);
    let mut world = complete(&spec);
    hang(&mut world, "w-1", now() - SignedDuration::from_secs(45));
    assert!(kinds(&spec, &world).contains(&ActionKind::DeleteMachine));
    spec.pools[0].health.agent_silent_seconds = 60;
    assert!(!kinds(&spec, &world).contains(&ActionKind::DeleteMachine));
    assert_eq!(plan(&spec, &seen(&world), now()).requeue, Some(std::time::Duration::from_secs(15)));
}

#[test]
fn while_paused_nobody_is_scaled_away_and_the_dead_are_replaced_unless_told_otherwise() {
    let mut one = spec(1, 0);
    one.maintenance.paused = true;
    let world = complete(&spec(3, 0));
    assert!(actions(&one, &world).is_empty());
    assert!(waits_for(&one, &world, Reason::Paused));

    let mut three = spec(3, 0);
    three.maintenance.paused = true;
    let mut world = complete(&spec(3, 0));
    vanish(&mut world, "cp-1");
    assert!(kinds(&three, &world).contains(&ActionKind::DeleteMachine));
    three.maintenance.healing = Healing::InWindows;
    assert!(!kinds(&three, &world).contains(&ActionKind::DeleteMachine));
}

#[test]
fn a_control_planes_instance_may_be_deleted_only_when_etcd_says_that_it_is_no_member() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    delete(&mut world, "cp-1");
    let machine = record(&mut world, "cp-1").clone();
    let may = |etcd: &Fact<EtcdFacts>| may_be_deleted(&spec, true, &machine, None, None, true, etcd, now());
    assert!(!may(&world.etcd) && !is_no_member(&machine, &world.etcd), "it has a vote");
    assert!(!may(&Fact::unknown("no answer", now())), "nobody can be asked");
    etcd(&mut world).members.retain(|m| m.name != "demo-cp-1");
    assert!(may(&world.etcd));
    // Somebody asked for a look since the plan was made.
    let kept = MachineRecord { kept: true, ..machine.clone() };
    assert!(!may_be_deleted(&spec, true, &kept, None, None, true, &world.etcd, now()));
}

#[test]
fn a_leaving_control_plane_waits_while_another_one_is_ill() {
    let spec = spec(3, 0);
    let mut world = complete(&self::spec(5, 0));
    delete(&mut world, "cp-4");
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&demo("cp-1")) else { panic!() };
    state.probes.get_mut(PROBE_API_SERVER).unwrap().healthy = false;
    assert!(!kinds(&spec, &world).iter().any(|k| matches!(k, ActionKind::Retire | ActionKind::Cordon | ActionKind::SetTargets)));
    assert!(waits_for(&spec, &world, Reason::WaitingForReplacement));
}
