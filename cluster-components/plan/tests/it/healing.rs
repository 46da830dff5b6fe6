//! The dead and the lost: who counts as dead, who is replaced and when, who is left alone, and what a quorum does not bear.

use crate::build::{complete, now, settled, spec};
use crate::stories::{
    actions, delete, demo, hang, kinds, node_ready, outline, planes, ready, record, silence, stop, story, vanish, voters, waits_for,
};
use crate::time::long_ago;
use jiff::SignedDuration;
use slipway_model::{Amount, ClusterSpec, Healing, NodeConditionLimit};
use slipway_plan::{
    Action, ActionKind, AgentFacts, AgentState, ConditionType, DEAD_AFTER, MachineRecord, Observed, POWER_ON, Reason, Status, plan, seen,
    simulate, world_follows,
};

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
