//! A member that joins is told of exactly the members that etcd has, and starts with no others: what that means while voters die or leave.

use crate::build::{complete, look, now, spec};
use slipway_model::Healing;
use slipway_plan::{Action, AgentFacts, Observed, Reason, happen, happenings, plan, seen, simulate, world_follows};

fn learner_is_about_to_start(world: &Observed) -> bool {
    world.etcd.known().unwrap().starting().is_some()
}

/// Three control planes that become five, at the moment when etcd knows of the fourth member and its machine was not configured yet.
fn about_to_start() -> (slipway_model::ClusterSpec, Observed) {
    let mut world = complete(&spec(3, 0));
    let five = spec(5, 0);
    look(&five, &mut world);
    for _ in 0..100 {
        for action in plan(&five, &seen(&world), now()).actions {
            let _ = simulate(&five, &mut world, &action, now());
            if learner_is_about_to_start(&world) {
                return (five, world);
            }
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
    }
    panic!("nobody joins");
}

fn vanish(world: &mut Observed, machine: &str) {
    world.cloud.known_mut().unwrap().instances.retain(|i| i.machine.as_str() != machine);
    for record in world.machines.known_mut().unwrap().iter_mut().filter(|m| m.name.as_str() == machine) {
        record.deleting = Some(now());
    }
    world_follows(world, now());
}

#[test]
fn no_voter_is_removed_while_another_member_is_about_to_start() {
    let (five, mut world) = about_to_start();
    vanish(&mut world, "demo-cp-0");
    let next = plan(&five, &seen(&world), now());
    assert!(!next.actions.iter().any(|a| matches!(a, Action::RemoveMember { .. })), "{:?}", next.actions);
    assert!(next.waits.iter().any(|w| w.reason == Reason::MemberJoining), "{:?}", next.waits);
}

#[test]
fn one_that_was_told_of_other_members_never_starts_and_is_removed() {
    let (five, mut world) = about_to_start();
    // Somebody removed a voter by hand.
    world.etcd.known_mut().unwrap().members.retain(|m| m.name != "demo-cp-0");
    let removed = plan(&five, &seen(&world), now()).actions;
    let learner = world.etcd.known().unwrap().starting().unwrap().id;
    assert!(removed.iter().any(|a| matches!(a, Action::RemoveMember { member, .. } if *member == learner)), "{removed:?}");
}

#[test]
fn a_member_that_has_started_is_never_configured_as_a_new_one_though_its_machine_lost_everything() {
    let (five, mut world) = about_to_start();
    for _ in 0..400 {
        for action in plan(&five, &seen(&world), now()).actions {
            let _ = simulate(&five, &mut world, &action, now());
        }
        let joined = world.machines.known().unwrap().iter().find(|m| m.join.is_some()).unwrap().name.clone();
        let started = world.etcd.known().unwrap().members.iter().any(|m| m.name == joined.as_str());
        if started {
            // Its disk was wiped: the agent knows no plan, and the member's data are gone. Starting it anew would be another one with the same name.
            let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&joined) else { panic!("{:?}", world.agents) };
            (state.accepted, state.applied) = (None, None);
            let mut held = five.clone();
            (held.maintenance.paused, held.maintenance.healing) = (true, Healing::InWindows);
            for spec in [five, held] {
                let next = plan(&spec, &seen(&world), now());
                let anew = |a: &&Action| matches!(a, Action::ApplyPlan { machine, .. } if *machine == joined);
                assert_eq!(next.actions.iter().find(anew), None);
            }
            return;
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
    }
    panic!("it never starts");
}
