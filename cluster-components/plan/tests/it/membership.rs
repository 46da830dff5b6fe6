//! The control plane after its founding: who joins, who leaves, in which order, and what each waits for.

use crate::build::{complete, now, spec};
use crate::stories::{
    actions, delete, demo, etcd, is_membership, kinds, member, outline, planes, ready, record, story, vanish, voters, waits_for,
};
use jiff::SignedDuration;
use slipway_plan::{
    Action, ActionKind, AgentFacts, ConditionType, EtcdFacts, Fact, MachineRecord, MemberFacts, MemberId, Observed, PROBE_API_SERVER,
    Reason, STABLE_FOR, happen, happenings, is_no_member, may_be_deleted, plan, seen, simulate,
};

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
