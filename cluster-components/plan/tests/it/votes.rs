//! Whose vote counts when parts of the view are older than others, and whose it is when clouds use addresses again.

use crate::build::{at, complete, look, now, patched, spec, versions};
use crate::life::records;
use slipway_plan::{Action, EtcdFacts, Fact, InstanceState, Observed, Reason, SnapshotFacts, happen, happenings, plan, seen, simulate};

#[test]
fn a_member_that_answered_a_moment_ago_does_not_count_when_its_machine_is_gone() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    look(&spec, &mut world);
    let mut view = seen(&world);
    // One that a person deleted does not answer any more and was powered off; of another, the cloud has nothing left, but etcd was asked before.
    let since = now() - jiff::SignedDuration::from_secs(3600);
    let [_, gone, leaving] = ["demo-cp-0", "demo-cp-1", "demo-cp-2"];
    for record in view.machines.known_mut().unwrap().iter_mut().filter(|m| m.name.as_str() == leaving) {
        record.deleting = Some(since);
    }
    for member in view.etcd.known_mut().unwrap().members.iter_mut().filter(|m| m.name == leaving) {
        member.status = Fact::unknown("connection refused", since);
    }
    let instances = &mut view.cloud.known_mut().unwrap().instances;
    instances.retain(|i| i.machine.as_str() != gone);
    instances.iter_mut().filter(|i| i.machine.as_str() == leaving).for_each(|i| i.state = InstanceState::Stopped);
    let actions = plan(&spec, &view, now()).actions;
    assert!(!actions.iter().any(|a| matches!(a, Action::RemoveMember { .. })), "one of three answers: {actions:#?}");
}

#[test]
fn what_is_lost_at_once_is_not_taken_away_though_etcd_answered_a_moment_ago() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    look(&spec, &mut world);
    let mut view = seen(&world);
    for machine in records(&world).iter().take(2) {
        view.cloud.known_mut().unwrap().instances.retain(|i| i.machine != machine.name);
    }
    let next = plan(&spec, &view, now());
    assert!(!next.actions.iter().any(|a| matches!(a, Action::DeleteMachine { .. } | Action::RemoveMember { .. })), "{:#?}", next.actions);
    assert!(next.waits.iter().any(|w| w.reason == Reason::RestoreNeeded), "{:#?}", next.waits);
}

/// What etcd's leader is called, and the next in order, whose record says the leader's address: it stood there before, and its own is not known yet.
fn one_stood_where_the_leader_stands(world: &mut Observed) -> (String, String) {
    let leader = world.etcd.known().and_then(EtcdFacts::leader).unwrap().clone();
    let other = records(world).iter().find(|m| m.is_control_plane() && m.name.as_str() != leader.name).unwrap().name.clone();
    let record = world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == other).unwrap();
    record.instance.as_mut().unwrap().address = leader.peer;
    (leader.name, other.to_string())
}

#[test]
fn a_snapshot_is_taken_from_one_that_does_not_lead_whoever_stood_at_the_leaders_address() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let (leader, other) = one_stood_where_the_leader_stands(&mut world);
    world.snapshots = Fact::Known(vec![SnapshotFacts { name: "asked".into(), completed: None, trouble: None }]);
    let asked = plan(&spec, &seen(&world), now()).actions;
    let next = at(spec, patched());
    look(&next, &mut world);
    world.snapshots = Fact::Known(vec![]);
    let needed = plan(&next, &seen(&world), now()).actions;
    for actions in [asked, needed] {
        let from = actions.iter().find_map(|a| if let Action::TakeSnapshot { machine, .. } = a { Some(machine.to_string()) } else { None });
        assert_eq!(from.as_ref(), Some(&other), "not {leader}, which leads: {actions:#?}");
    }
}

#[test]
fn who_hands_leadership_over_is_who_leads_whoever_stood_at_its_address() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let (leader, _) = one_stood_where_the_leader_stands(&mut world);
    let next = at(spec, versions("v1.36.4", "v3.6.15", "v2.3.4"));
    look(&next, &mut world);
    for _ in 0..200 {
        for action in plan(&next, &seen(&world), now()).actions {
            if let Action::MoveLeader { machine, .. } = &action {
                assert_eq!(machine.as_str(), leader);
                return;
            }
            if let Action::SetVersions { machine, .. } = &action {
                assert_ne!(machine.as_str(), leader, "its etcd is stopped while it leads");
            }
            let _ = simulate(&next, &mut world, &action, now());
        }
        happenings(&world).iter().for_each(|h| happen(&mut world, h, now()));
        world = crate::time::older(&world, jiff::SignedDuration::from_secs(2));
    }
    panic!("nobody handed over");
}
