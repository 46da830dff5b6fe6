//! In which order machines are changed, and what has to be before the first is.

use super::{all_at, demo, leader, position, run_alone, says, told};
use crate::build::{at, complete, look, now, old, patched, spec, upgraded};
use crate::life::records;
use jiff::{SignedDuration, Timestamp};
use slipway_model::Part;
use slipway_plan::{
    Action, AgentFacts, ConditionType, Fact, PreflightFacts, Reason, SnapshotFacts, Status, VersionChange, happen, happenings, plan, seen,
    simulate,
};

#[test]
fn a_minor_goes_part_by_part_and_machine_by_machine_and_pools_begin_when_the_api_servers_are_new() {
    let spec = spec(3, 2);
    let mut world = complete(&spec);
    let first_leader = leader(&world);
    let next = upgraded(spec);
    let done = run_alone(&next, &mut world);
    assert!(all_at(&next, &world));
    assert_eq!(world.cluster.upgrade, None, "it is over");
    let told = told(&done);
    let of = |part: &str| told.iter().filter(|t| t.contains(part)).map(|t| t.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(of("Etcd").last(), Some(&first_leader), "etcd's leader comes last: {told:?}");
    let stages: Vec<&str> = told.iter().filter(|t| t.starts_with("cp")).map(|t| t.split(' ').nth(1).unwrap()).collect();
    let node = "Controllers+Node";
    assert_eq!(stages, ["Etcd", "Etcd", "Etcd", "ApiServer", "ApiServer", "ApiServer", node, node, node]);

    let snapshot = position(&done, |a| matches!(a, Action::TakeSnapshot { .. }));
    let begun = position(&done, |a| matches!(a, Action::RecordUpgrade { to: Some(_), .. }));
    let first = position(&done, |a| matches!(a, Action::SetVersions { .. }));
    assert!(snapshot < begun && begun < first, "the snapshot, its record, the first change");
    let handed = position(&done, |a| matches!(a, Action::MoveLeader { .. }));
    let leaders = position(&done, |a| matches!(a, Action::SetVersions { machine, .. } if *machine == demo(&first_leader)));
    assert!(handed < leaders, "leadership is handed over before its etcd is stopped");

    let last_api = told.iter().rposition(|t| t.ends_with("ApiServer")).unwrap();
    let pool_first = told.iter().position(|t| t.starts_with('w')).unwrap();
    let last_plane = told.iter().rposition(|t| t.starts_with("cp")).unwrap();
    assert!(last_api < pool_first && pool_first < last_plane, "pools wait for API servers and for nothing else: {told:?}");
    let addons = position(&done, |a| matches!(a, Action::ApplyAddons { .. }));
    let third = done.iter().rposition(|a| matches!(a, Action::SetVersions { from, to, .. } if from.differs(Part::ApiServer, to))).unwrap();
    assert!(addons > third, "addons wait for the API servers");
    let nodes = world.nodes.known().unwrap();
    assert!(nodes.iter().all(|n| !n.unschedulable && n.cordoned.is_none()), "every Node was given back");
}

#[test]
fn a_patch_needs_no_drain_and_a_component_alone_touches_nothing_else() {
    let spec = spec(3, 1);
    let begin = complete(&spec);
    let mut world = begin.clone();
    let next = at(spec.clone(), patched());
    let done = run_alone(&next, &mut world);
    assert!(all_at(&next, &world) && done.iter().all(|a| !matches!(a, Action::Cordon { .. } | Action::Evict { .. })));
    assert!(told(&done).iter().all(|t| !t.contains("Etcd")));

    for (part, versions) in
        [("Etcd", crate::build::versions("v1.36.4", "v3.6.15", "v2.3.4")), ("Node", crate::build::versions("v1.36.4", "v3.6.14", "v2.4.2"))]
    {
        let mut world = begin.clone();
        let next = at(spec.clone(), versions);
        let done = run_alone(&next, &mut world);
        assert!(all_at(&next, &world));
        assert!(told(&done).iter().all(|t| t.ends_with(&format!(" {part}"))), "{:?}", told(&done));
        assert!(done.iter().all(|a| !matches!(a, Action::Cordon { .. })));
    }
}

#[test]
fn at_most_one_control_plane_is_half_changed_and_the_next_waits_for_the_soak() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let next = at(spec, patched());
    look(&next, &mut world);
    let soak = SignedDuration::try_from(next.pace.soak()).unwrap();
    let mut last: Option<Timestamp> = None;
    let mut time = now();
    for _ in 0..400 {
        let decided = plan(&next, &seen(&world), time);
        for action in &decided.actions {
            let _ = simulate(&next, &mut world, action, time);
            if let Action::SetVersions { .. } = action {
                assert!(last.is_none_or(|at| time.duration_since(at) >= soak), "not before the soak");
                last = Some(time);
            }
        }
        let half = records(&world).iter().filter(|m| {
            let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
            state.is_some_and(|s| s.applied.as_ref() != world.wanted.get(&m.name))
        });
        assert!(half.count() <= 1);
        for happening in happenings(&world) {
            happen(&mut world, &happening, time);
        }
        time += decided.requeue.and_then(|p| SignedDuration::try_from(p).ok()).unwrap_or(SignedDuration::from_millis(100));
    }
    assert!(all_at(&next, &world));
}

#[test]
fn what_speaks_against_an_upgrade_is_all_named_and_nothing_is_changed() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    let next = upgraded(spec);
    look(&next, &mut world);
    world.preflight = Fact::Known(PreflightFacts {
        to: Some(next.control_plane.versions),
        removed_apis: vec!["example.k8s.io/v1beta1 things".into()],
        impossible_budgets: vec!["default/never".into()],
    });
    if let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&demo("cp-1")) {
        state.disk_free = Some(1 << 20);
    }
    let decided = plan(&next, &seen(&world), now());
    assert_eq!(decided.actions, vec![]);
    let told = decided.waits.iter().filter(|w| w.reason == Reason::PreflightFailed).map(|w| w.what.clone()).collect::<Vec<_>>().join("\n");
    for part in ["example.k8s.io/v1beta1 things", "default/never", "demo-cp-1 has 1 MiB"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let up_to_date = decided.condition(ConditionType::UpToDate).unwrap();
    assert_eq!((up_to_date.status, up_to_date.reason), (Status::False, Reason::PreflightFailed));
    assert_eq!(decided.condition(ConditionType::Progressing).unwrap().status, Status::False, "somebody has to do something");
    assert_eq!(decided.condition(ConditionType::Ready).unwrap().status, Status::True, "the cluster itself is well");
}

#[test]
fn only_the_removed_api_that_is_named_holds_no_upgrade_up() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    let mut next = upgraded(spec);
    look(&next, &mut world);
    let used = ["example.k8s.io/v1beta1 things", "example.k8s.io/v1beta1 others"];
    world.preflight = Fact::Known(PreflightFacts {
        to: Some(next.control_plane.versions),
        removed_apis: used.map(str::to_owned).to_vec(),
        impossible_budgets: vec![],
    });
    let refusals = |next: &slipway_model::ClusterSpec, world: &slipway_plan::Observed| {
        let waits = plan(next, &seen(world), now()).waits;
        waits.into_iter().filter(|w| w.reason == Reason::PreflightFailed).map(|w| w.what).collect::<Vec<_>>()
    };
    let way_out = |api: &str| format!("add \"{api}\" to spec.upgrade.ignoreRemovedApis");
    let told = refusals(&next, &world);
    assert!(used.iter().all(|api| told.iter().any(|t| t.contains(&way_out(api)))), "{told:?}");
    next.ignored_apis = [used[0].to_owned(), "example.k8s.io/v1beta1".into(), "other".into()].into();
    let told = refusals(&next, &world);
    assert!(told.len() == 1 && told[0].contains(&way_out(used[1])), "{told:?}");
    next.ignored_apis = used.map(str::to_owned).into();
    assert_eq!(refusals(&next, &world), [""; 0]);
    assert!(!plan(&next, &seen(&world), now()).actions.is_empty());
}

#[test]
fn a_downgrade_and_a_skipped_minor_do_not_begin() {
    for (wanted, text) in [("v1.35.8", "would be a downgrade"), ("v1.38.0", "would skip a minor; go to v1.37 first")] {
        let spec = spec(3, 0);
        let mut world = complete(&spec);
        let next = at(spec, crate::build::versions(wanted, "v3.6.14", "v2.3.4"));
        assert_eq!(run_alone(&next, &mut world), vec![]);
        assert!(says(&next, &world, Reason::PreflightFailed).contains(text));
    }
}

#[test]
fn only_a_complete_snapshot_that_is_young_and_younger_than_the_last_change_will_do() {
    let spec = spec(1, 0);
    let begin = complete(&spec);
    let next = at(spec, patched());
    let minutes = |n: i64| now() - SignedDuration::from_mins(n);
    let with = |completed: Option<Timestamp>, changed: Timestamp| {
        let mut world = begin.clone();
        look(&next, &mut world);
        let taken = |number: u32| SnapshotFacts { name: format!("demo-before-v1.36.5-{number}"), completed, trouble: None };
        world.snapshots = Fact::Known(vec![taken(1)]);
        world.machines.known_mut().unwrap()[0].changed = Some(VersionChange { from: old(), at: changed });
        plan(&next, &seen(&world), now()).actions
    };
    let takes = |actions: Vec<Action>, number: u32| {
        let wanted = format!("demo-before-v1.36.5-{number}");
        assert!(matches!(actions.as_slice(), [Action::TakeSnapshot { snapshot, .. }] if *snapshot == wanted), "{actions:?}");
    };
    takes(with(None, minutes(90)), 1);
    takes(with(Some(minutes(61)), minutes(90)), 2);
    takes(with(Some(minutes(10)), minutes(5)), 2);
    let begun = with(Some(minutes(10)), minutes(20));
    assert!(matches!(begun.as_slice(), [Action::RecordUpgrade { to: Some(u), .. }] if u.snapshot == "demo-before-v1.36.5-1"), "{begun:?}");
}
