//! Snapshots that people ask for.

use crate::build::{complete, now, spec};
use jiff::SignedDuration;
use slipway_plan::{Action, Fact, Failure, Observed, SnapshotFacts, plan, seen, simulate};

fn asked(names: &[&str]) -> Observed {
    let mut world = complete(&spec(3, 0));
    let object = |name: &&str| SnapshotFacts { name: (*name).into(), completed: None, trouble: None };
    world.snapshots = Fact::Known(names.iter().map(object).collect());
    world
}

fn taken(world: &Observed) -> Vec<(String, String)> {
    let of = |a: Action| match a {
        Action::TakeSnapshot { snapshot, machine } => Some((snapshot, machine.to_string())),
        _ => None,
    };
    plan(&spec(3, 0), &seen(world), now()).actions.into_iter().filter_map(of).collect()
}

fn leader(world: &Observed) -> String {
    world.etcd.known().unwrap().leader().unwrap().name.clone()
}

#[test]
fn one_after_the_other_is_taken_from_a_follower() {
    let mut world = asked(&["monday", "tuesday"]);
    for name in ["monday", "tuesday"] {
        let found = taken(&world);
        assert_eq!(found.iter().map(|(s, _)| s.as_str()).collect::<Vec<_>>(), [name]);
        assert_ne!(found[0].1, leader(&world));
        let action = Action::TakeSnapshot { snapshot: name.into(), machine: found[0].1.parse().unwrap() };
        simulate(&spec(3, 0), &mut world, &action, now()).unwrap();
    }
    assert_eq!(taken(&world), [], "a complete one is left alone");
}

#[test]
fn one_that_fails_is_told_and_holds_up_no_other() {
    let mut world = asked(&["monday", "tuesday"]);
    let key = Action::TakeSnapshot { snapshot: "monday".into(), machine: "demo-cp-0".parse().unwrap() }.key();
    let next_try = now() + SignedDuration::from_secs(60);
    world.failures.insert(key, Failure { attempts: 2, since: now(), last: now(), error: "the disk is full".into(), next_try });
    assert_eq!(taken(&world).iter().map(|(s, _)| s.as_str()).collect::<Vec<_>>(), ["tuesday"]);
    let waits = plan(&spec(3, 0), &seen(&world), now()).waits;
    assert!(waits.iter().any(|w| w.last_error.as_deref() == Some("the disk is full") && w.next_try == Some(next_try)), "{waits:?}");
}

#[test]
fn without_a_quorum_that_answers_nobody_is_asked() {
    let mut world = asked(&["monday"]);
    world.etcd = Fact::unknown("no quorum", now());
    assert_eq!(taken(&world), []);
}
