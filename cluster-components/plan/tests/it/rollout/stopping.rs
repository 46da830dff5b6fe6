//! How a roll stops, goes back, is held up, and goes on.

use super::{all_at, demo, leader, poisoned, position, run, run_alone, says, told, versions_of, waits};
use crate::build::{at, complete, look, new, now, old, spec, upgraded};
use crate::life::records;
use crate::time::older;
use jiff::SignedDuration;
use slipway_model::{Part, Window};
use slipway_plan::{Action, AgentFacts, ConditionType, Observed, Reason, Status, happen, happenings, plan, seen, simulate};

#[test]
fn a_machine_that_does_not_come_back_is_told_its_old_versions_and_everything_stands_still() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    let next = at(spec.clone(), crate::build::versions("v1.37.2", "v3.6.14", "v2.3.4"));
    let mut poison = poisoned("kube-apiserver v1.37.2", "cp-1");
    let done = run(&next, &mut world, &mut poison);
    let stopped = world.cluster.upgrade.clone().unwrap().stopped.unwrap();
    assert_eq!((stopped.machine.clone(), stopped.part), (demo("cp-1"), Part::ApiServer));
    assert_eq!(versions_of(&world, "cp-1"), old(), "undone");
    let times = told(&done).iter().filter(|t| t.starts_with("cp-1")).count();
    assert_eq!(times, 2, "tried once and undone once: {:?}", told(&done));
    let why = says(&next, &world, Reason::UpgradeStopped);
    assert!(why.contains("demo-cp-1") && why.contains("the unit does not start"), "{why}");
    let conditions = plan(&next, &seen(&world), now());
    assert_eq!(conditions.condition(ConditionType::UpToDate).unwrap().reason, Reason::UpgradeStopped);
    assert_eq!(conditions.condition(ConditionType::Progressing).unwrap().status, Status::False);

    // The old version again goes back; what was done is undone, and the record ends.
    let mut back = world.clone();
    run_alone(&spec, &mut back);
    assert!(all_at(&spec, &back) && back.cluster.upgrade.is_none());

    // Another version goes on from where it stands.
    let mended = at(spec, crate::build::versions("v1.37.3", "v3.6.14", "v2.3.4"));
    run(&mended, &mut world, &mut poison);
    assert!(all_at(&mended, &world) && world.cluster.upgrade.is_none());
}

#[test]
fn what_a_pool_failed_with_leads_no_control_plane_on_without_a_snapshot() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    let next = at(spec.clone(), crate::build::versions("v1.37.2", "v3.6.14", "v2.3.4"));
    let mut poison = poisoned("kubelet v1.37.2", "w-0");
    run(&next, &mut world, &mut poison);
    let stopped = world.cluster.upgrade.clone().unwrap();
    assert_eq!((stopped.stopped.unwrap().machine, stopped.snapshot.as_str()), (demo("w-0"), ""), "the control plane's upgrade is over");

    let mended = at(spec, crate::build::versions("v1.37.3", "v3.6.14", "v2.3.4"));
    let done = run(&mended, &mut world, &mut poison);
    let snapshot = position(&done, |a| matches!(a, Action::TakeSnapshot { .. }));
    let change = position(&done, |a| matches!(a, Action::SetVersions { machine, .. } if *machine == demo("cp-0")));
    assert!(snapshot < change, "{done:#?}");
    assert!(all_at(&mended, &world) && world.cluster.upgrade.is_none());
}

#[test]
fn another_version_is_taken_up_even_before_the_failed_one_was_given_up() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let next = at(spec.clone(), crate::build::versions("v1.37.2", "v3.6.14", "v2.3.4"));
    look(&next, &mut world);
    let mut poison = poisoned("kube-apiserver v1.37.2", "cp-0");
    let troubled = |w: &Observed| matches!(w.agents.get(&demo("cp-0")), Some(AgentFacts::Heard(s)) if s.trouble.is_some());
    while !troubled(&world) {
        for action in plan(&next, &seen(&world), now()).actions {
            let _ = simulate(&next, &mut world, &action, now());
        }
        poison(&mut world);
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
            poison(&mut world);
        }
        if !troubled(&world) {
            world = older(&world, SignedDuration::from_secs(1));
        }
    }
    let other = at(spec, crate::build::versions("v1.37.3", "v3.6.14", "v2.3.4"));
    run(&other, &mut world, &mut poison);
    assert!(all_at(&other, &world) && world.cluster.upgrade.is_none());
}

#[test]
fn the_last_member_with_the_old_etcd_is_the_point_of_no_return() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let last = leader(&world);
    let last: &'static str = last.leak();
    let next = upgraded(spec);
    run(&next, &mut world, &mut poisoned("etcd v3.7.3", last));
    assert_eq!(versions_of(&world, last).control_plane.unwrap().etcd, new().control_plane.unwrap().etcd, "it is not told the old one");
    let told = waits(&next, &world).iter().map(|(_, text)| text.clone()).collect::<Vec<_>>().join("\n");
    assert!(told.contains("point of no return"), "{told}");
}

#[test]
fn etcd_goes_back_while_one_member_has_the_old_minor_and_never_after() {
    let spec = spec(3, 0);
    let next = at(spec.clone(), crate::build::versions("v1.36.4", "v3.7.3", "v2.3.4"));
    for changed in [1, 2, 3] {
        let mut world = complete(&spec);
        look(&next, &mut world);
        let has_new = |world: &Observed| records(world).iter().filter(|m| m.versions != old()).count();
        while has_new(&world) < changed {
            for action in plan(&next, &seen(&world), now()).actions {
                let _ = simulate(&next, &mut world, &action, now());
            }
            happenings(&world).iter().for_each(|h| happen(&mut world, h, now()));
            world = older(&world, SignedDuration::from_secs(2));
        }
        run_alone(&spec, &mut world);
        if changed < 3 {
            assert!(all_at(&spec, &world) && world.cluster.upgrade.is_none(), "{changed}: {:#?}", waits(&spec, &world));
        } else {
            assert_eq!(has_new(&world), 3);
            assert!(says(&spec, &world, Reason::PreflightFailed).contains("point of no return"));
            run_alone(&next, &mut world);
            assert!(all_at(&next, &world) && world.cluster.upgrade.is_none(), "forward it goes");
        }
    }
}

#[test]
fn going_back_takes_the_reverse_order_from_every_step() {
    let spec = spec(3, 1);
    let next = at(spec.clone(), crate::build::versions("v1.37.2", "v3.6.14", "v2.3.4"));
    let begin = complete(&spec);
    for steps in [1, 2, 3, 4, 5, 6] {
        let mut world = begin.clone();
        look(&next, &mut world);
        let mut told_so_far = 0;
        while told_so_far < steps {
            let decided = plan(&next, &seen(&world), now());
            for action in &decided.actions {
                let moved = simulate(&next, &mut world, action, now()).is_ok();
                told_so_far +=
                    usize::from(moved && matches!(action, Action::SetVersions { machine, .. } if machine.as_str().contains("cp")));
            }
            for happening in happenings(&world) {
                happen(&mut world, &happening, now());
            }
            world = older(&world, SignedDuration::from_secs(2));
        }
        let done = run_alone(&spec, &mut world);
        assert!(all_at(&spec, &world) && world.cluster.upgrade.is_none(), "after {steps}: {:#?}", waits(&spec, &world));
        let stages: Vec<String> =
            told(&done).iter().filter(|t| t.starts_with("cp")).map(|t| t.split(' ').nth(1).unwrap().to_owned()).collect();
        let first_api = stages.iter().position(|s| s == "ApiServer").unwrap_or(stages.len());
        assert!(stages[first_api..].iter().all(|s| s == "ApiServer"), "Nodes and controllers before API servers: {stages:?}");
    }
}

#[test]
fn paused_at_any_step_nothing_begins_and_resumed_it_ends() {
    let spec = spec(3, 2);
    let next = upgraded(spec.clone());
    let mut paused = next.clone();
    paused.maintenance.paused = true;
    let mut world = complete(&spec);
    look(&next, &mut world);
    for _ in 0..60 {
        let mut held = world.clone();
        let done = run_alone(&paused, &mut held);
        let begins =
            |a: &Action| matches!(a, Action::SetVersions { .. } | Action::RecordUpgrade { to: Some(_), .. } | Action::TakeSnapshot { .. });
        assert!(!done.iter().any(begins), "{done:#?}");
        assert!(held.nodes.known().unwrap().iter().all(|n| !n.unschedulable), "no Node is left empty");
        if !all_at(&next, &held) {
            says(&paused, &held, Reason::Paused);
        }
        for action in plan(&next, &seen(&world), now()).actions {
            let _ = simulate(&next, &mut world, &action, now());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
        world = older(&world, SignedDuration::from_secs(2));
    }
    run_alone(&next, &mut world);
    assert!(all_at(&next, &world) && world.cluster.upgrade.is_none());
}

#[test]
fn outside_every_window_it_is_said_what_waits_for_which() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    let mut next = upgraded(spec);
    // The tests live on a Thursday, at midnight.
    next.maintenance.windows = vec![Window { days: vec![slipway_model::Weekday::Saturday], start: 120, minutes: 60 }];
    assert_eq!(run_alone(&next, &mut world), vec![]);
    let text = says(&next, &world, Reason::OutsideMaintenanceWindow);
    assert!(text.contains("2026-01-03T02:00:00Z") && text.contains("v1.37.2"), "{text}");
    let decided = plan(&next, &seen(&world), now());
    assert_eq!(decided.requeue.unwrap().as_secs(), 50 * 3600);
    assert_eq!(decided.condition(ConditionType::Progressing).unwrap().reason, Reason::OutsideMaintenanceWindow);
    assert_eq!(decided.condition(ConditionType::Ready).unwrap().status, Status::True, "{:?}", decided.condition(ConditionType::Ready));
}

#[test]
fn an_operator_that_has_just_begun_stops_no_roll_for_machines_that_it_has_not_spoken_to_yet() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    let next = at(spec, crate::build::versions("v1.37.2", "v3.6.14", "v2.3.4"));
    look(&next, &mut world);
    // Until the worker was told, while the control plane's upgrade is still under way.
    for _ in 0..400 {
        for action in plan(&next, &seen(&world), now()).actions {
            let _ = simulate(&next, &mut world, &action, now());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
        if versions_of(&world, "w-0").node == new().node && world.cluster.upgrade.is_some() {
            break;
        }
        world = older(&world, SignedDuration::from_secs(1));
    }
    assert!(world.cluster.upgrade.is_some());
    for _ in 0..3 {
        happenings(&world).iter().for_each(|h| happen(&mut world, h, now()));
    }
    // Long after that step's time another leader takes over: it has heard of no agent yet, or cannot render yet.
    let world = older(&world, SignedDuration::from_secs(300));
    for unseen in [true, false] {
        let mut view = seen(&world);
        if unseen {
            view.agents.clear()
        } else {
            view.wanted.clear()
        }
        let stops = |a: &Action| matches!(a, Action::RecordUpgrade { to: Some(to), .. } if to.stopped.is_some());
        let actions = plan(&next, &view, now()).actions;
        assert!(!actions.iter().any(stops), "{actions:#?}");
    }
}
