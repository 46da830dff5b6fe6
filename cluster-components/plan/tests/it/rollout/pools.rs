//! Pools in place and by replacement, and control planes by replacement.

use super::{all_at, demo, poisoned, run, run_alone, says, told, versions_of, waits};
use crate::build::{at, complete, look, new, nothing, now, old, patched, rerendered, revised, settled, spec, upgraded};
use crate::life::records;
use crate::time::aged;
use jiff::SignedDuration;
use slipway_model::{Allow, Amount, ClusterSpec, MachineVersions, Strategy, Window};
use slipway_plan::{Action, AgentFacts, ConditionType, InstanceState, Observed, Reason, Removal, Status, plan, seen, world_follows};

#[test]
fn a_pool_may_stay_behind_and_come_later() {
    let spec = spec(3, 2);
    let mut world = complete(&spec);
    let mut next = upgraded(spec);
    next.pools[0].versions = MachineVersions { control_plane: None, ..old() };
    run_alone(&next, &mut world);
    assert!(all_at(&next, &world));
    assert_eq!(versions_of(&world, "w-0").node, old().node);
    next.pools[0].versions = MachineVersions { control_plane: None, ..new() };
    let done = run_alone(&next, &mut world);
    assert!(all_at(&next, &world) && told(&done).iter().all(|t| t.starts_with('w')));
}

#[test]
fn a_pool_changes_as_many_at_once_as_may_be_away() {
    for (amount, most) in [(Amount::Count(1), 1), (Amount::Count(3), 3), (Amount::Percent(50), 3), (Amount::Percent(1), 1)] {
        let mut spec = spec(1, 6);
        spec.pools[0].upgrade.max_unavailable = amount;
        spec.pools[0].upgrade.max_surge = Amount::Count(0);
        let mut world = complete(&spec);
        let next = upgraded(spec);
        let mut away_at_most = 0;
        run(&next, &mut world, &mut |world| {
            let away = |m: &&slipway_plan::MachineRecord| {
                let node = world.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(&m.name)).unwrap();
                let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
                node.unschedulable || !node.ready || state.is_none_or(|s| s.applied.as_ref() != world.wanted.get(&m.name))
            };
            away_at_most = away_at_most.max(records(world).iter().filter(|m| !m.is_control_plane()).filter(away).count());
        });
        assert!(all_at(&next, &world));
        assert_eq!(away_at_most, most, "{amount}");
    }
}

#[test]
fn a_pool_that_may_spare_nobody_is_changed_beside_one_more() {
    let mut spec = spec(1, 2);
    spec.pools[0].upgrade.max_unavailable = Amount::Count(0);
    let mut world = complete(&spec);
    let next = upgraded(spec);
    let done = run_alone(&next, &mut world);
    assert!(all_at(&next, &world), "{:#?}", waits(&next, &world));
    assert!(done.iter().any(|a| matches!(a, Action::CreateMachine { versions, .. } if versions.node == new().node)));
    assert_eq!(records(&world).iter().filter(|m| !m.is_control_plane()).count(), 2);
}

#[test]
fn another_configuration_comes_to_a_pool_that_may_spare_nobody_beside_one_more() {
    for allow in [Allow::Any, Allow::InPlaceOnly] {
        let mut spec = spec(1, 2);
        spec.pools[0].upgrade.max_unavailable = Amount::Count(0);
        spec.pools[0].allow = allow;
        for next in [rerendered(spec.clone()), at(spec.clone(), patched()), upgraded(spec.clone())] {
            let mut world = complete(&spec);
            let mut fewest = usize::MAX;
            let done = run(&next, &mut world, &mut |world| {
                let works = |m: &&slipway_plan::MachineRecord| {
                    let node = world.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(&m.name));
                    let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
                    let told = slipway_plan::what_runs(world, &m.name) == [m.versions];
                    m.deleting.is_none()
                        && node.is_some_and(|n| n.ready && !n.unschedulable)
                        && told
                        && state.is_some_and(|s| s.applied.is_some() && s.applied == s.accepted)
                };
                fewest = fewest.min(records(world).iter().filter(|m| !m.is_control_plane()).filter(works).count());
            });
            assert_eq!(records(&world).iter().filter(|m| !m.is_control_plane()).count(), 2);
            crate::invariants::at_rest(&next, &world).unwrap();
            assert!(all_at(&next, &world), "{:#?}", waits(&next, &world));
            assert_eq!(fewest, 2, "{allow:?} {:#?}", done.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_machine_that_waits_with_its_configuration_does_its_work() {
    // All of them wait for a window with another configuration when they are to be replaced, too.
    let spec = spec(1, 3);
    let mut world = complete(&spec);
    let next = revised(rerendered(spec));
    look(&next, &mut world);
    let gone = |a: &&Action| matches!(a, Action::DeleteMachine { why: Removal::Outdated, .. });
    let changed = |a: &&Action| matches!(a, Action::ApplyPlan { machine, .. } if machine.as_str().starts_with("demo-w-"));
    let actions = plan(&next, &seen(&world), now()).actions;
    let away = actions.iter().filter(gone).count() + actions.iter().filter(changed).count();
    assert_eq!(away, 1, "{actions:#?}");
}

/// The world, all of whose machines were told their versions so long ago.
fn told_ago(mut world: Observed, seconds: i64) -> Observed {
    let at = now() - SignedDuration::from_secs(seconds);
    world.machines.known_mut().unwrap().iter_mut().filter_map(|m| m.changed.as_mut()).for_each(|c| c.at = at);
    world
}

#[test]
fn another_configuration_is_neither_a_failed_step_nor_one_to_be_taken_back() {
    for (planes, workers) in [(3, 0), (1, 1), (1, 2), (3, 2)] {
        let first = spec(planes, workers);
        let second = at(first.clone(), patched());
        let upgraded_once = settled(&second, complete(&first));
        // A while ago, which is not forgotten yet; and long ago.
        for seconds in [200, 4000] {
            for next in [rerendered(second.clone()), upgraded(rerendered(second.clone()))] {
                let mut world = told_ago(upgraded_once.clone(), seconds);
                let done = run_alone(&next, &mut world);
                assert_eq!(backwards(&done), Vec::<String>::new(), "{planes}+{workers} to {} after {seconds} s", next.kubernetes_version);
                assert!(all_at(&next, &world), "{:#?}", waits(&next, &world));
                crate::invariants::at_rest(&next, &world).unwrap();
            }
        }
    }
}

#[test]
fn a_worker_that_waits_for_another_with_its_configuration_is_not_told_its_old_versions() {
    let first = spec(1, 2);
    let second = at(first.clone(), patched());
    let mut behind = upgraded(second.clone());
    behind.pools[0].versions = second.pools[0].versions;
    let world = settled(&behind, settled(&second, complete(&first)));
    // Its pool comes, all are to be told something else, and one of them is not Ready.
    let next = upgraded(rerendered(second));
    for seconds in [200, 4000] {
        let mut world = told_ago(world.clone(), seconds);
        world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-1"))).unwrap().ready = false;
        look(&next, &mut world);
        let done = plan(&next, &seen(&world), now()).actions;
        assert_eq!(backwards(&done), Vec::<String>::new(), "after {seconds} s");
    }
}

#[test]
fn what_comes_after_a_step_that_was_followed_is_of_no_step() {
    let first = spec(1, 6);
    let second = at(first.clone(), patched());
    let next = rerendered(second.clone());
    let given = |world: &Observed| {
        let actions = plan(&next, &seen(world), now()).actions;
        let workers = actions.iter().filter(|a| matches!(a, Action::ApplyPlan { machine, .. } if machine.as_str().starts_with("demo-w-")));
        (workers.count(), backwards(&actions))
    };
    // All of them followed a moment ago: one at a time is told something else.
    let mut world = told_ago(settled(&second, complete(&first)), 10);
    look(&next, &mut world);
    assert_eq!(given(&world), (1, vec![]));
    // One is making it real after its step's time is over.
    let mut world = told_ago(world, 200);
    let wanted = world.wanted.get(&demo("w-0")).cloned();
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&demo("w-0")) else { panic!("silent") };
    state.accepted = wanted;
    assert_eq!(given(&world), (0, vec![]));
}

/// What tells older versions, or says that a step has failed.
fn backwards(done: &[Action]) -> Vec<String> {
    let back = |a: &&Action| match a {
        Action::SetVersions { from, to, .. } => to < from,
        Action::RecordUpgrade { to: Some(to), .. } => to.stopped.is_some(),
        _ => false,
    };
    done.iter().filter(back).map(ToString::to_string).collect()
}

#[test]
fn a_pool_is_replaced_within_its_surge_and_what_may_be_away() {
    for (surge, away) in [(1, 0), (0, 1), (2, 1), (1, 1)] {
        let mut spec = spec(1, 4);
        spec.pools[0].upgrade.strategy = Strategy::Replace;
        spec.pools[0].upgrade.max_surge = Amount::Count(surge);
        spec.pools[0].upgrade.max_unavailable = Amount::Count(away);
        let mut world = complete(&spec);
        let next = upgraded(spec);
        let (mut most, mut least) = (0, usize::MAX);
        run(&next, &mut world, &mut |world| {
            let of_pool = || records(world).iter().filter(|m| !m.is_control_plane());
            let works = |m: &&slipway_plan::MachineRecord| {
                m.deleting.is_none()
                    && world.nodes.known().unwrap().iter().any(|n| n.machine.as_ref() == Some(&m.name) && n.ready && !n.unschedulable)
            };
            most = most.max(of_pool().count());
            least = least.min(of_pool().filter(works).count());
        });
        assert!(all_at(&next, &world), "{:#?}", waits(&next, &world));
        assert_eq!(records(&world).iter().filter(|m| !m.is_control_plane() && m.ordinal < 4).count(), 0, "all are new");
        let (surge, away) = (surge as usize, away as usize);
        assert!(most <= 4 + surge && least >= 4 - away, "surge {surge}, away {away}: {most} at most, {least} at least");
    }
}

#[test]
fn a_worker_that_does_not_come_back_stops_its_pool_until_the_pool_wants_something_else() {
    let spec = spec(1, 3);
    let mut world = complete(&spec);
    let next = upgraded(spec);
    run(&next, &mut world, &mut poisoned("kubelet v1.37.2", "w-1"));
    assert_eq!(versions_of(&world, "w-1").node, old().node, "undone");
    assert_eq!(versions_of(&world, "w-2").node, old().node, "not begun");
    assert!(says(&next, &world, Reason::UpgradeStopped).contains("demo-w-1"));
    assert!(world.nodes.known().unwrap().iter().all(|n| !n.unschedulable));
    let mut other = next.clone();
    other.pools[0].versions.node = old().node;
    run_alone(&other, &mut world);
    assert!(all_at(&other, &world), "{:#?}", waits(&other, &world));
    assert_eq!(world.cluster.upgrade, None);
}

#[test]
fn control_planes_are_replaced_one_by_one_and_a_new_one_comes_before_an_old_one_goes() {
    for (spec, next) in
        [(spec(3, 0), revised(spec(3, 0))), (spec(1, 0), revised(spec(1, 0))), (replacing(spec(3, 0)), upgraded(replacing(spec(3, 0))))]
    {
        let mut world = complete(&spec);
        let wanted = spec.control_plane.replicas as usize;
        let mut fewest = usize::MAX;
        let done = run(&next, &mut world, &mut |world| {
            let voters = world.etcd.known().unwrap().voters().filter(|m| m.status.known().is_some()).count();
            fewest = fewest.min(voters);
            let alive = records(world).iter().filter(|m| m.deleting.is_none()).count();
            assert!(alive <= wanted + 1);
        });
        assert!(all_at(&next, &world) && world.cluster.upgrade.is_none(), "{:#?}", waits(&next, &world));
        assert!(records(&world).iter().all(|m| m.ordinal as usize >= wanted && m.revision == next.control_plane.revision));
        assert_eq!(fewest, wanted, "never fewer voters than wanted");
        let gone = done.iter().filter(|a| matches!(a, Action::DeleteMachine { why: Removal::Outdated, .. })).count();
        assert_eq!((gone, told(&done)), (wanted, vec![]), "nothing is changed in place");
    }
}

fn replacing(mut spec: ClusterSpec) -> ClusterSpec {
    spec.control_plane.strategy = Strategy::Replace;
    spec
}

#[test]
fn in_place_only_refuses_what_needs_new_machines_before_anything_is_changed() {
    let spec = spec(3, 2);
    let begin = complete(&spec);
    let mut next = revised(upgraded(spec));
    next.control_plane.allow = Allow::InPlaceOnly;
    next.pools[0].allow = Allow::InPlaceOnly;
    let mut world = begin.clone();
    assert_eq!(run_alone(&next, &mut world), vec![]);
    assert!(says(&next, &world, Reason::ReplacementRefused).contains("demo-cp-0"));
    let decided = plan(&next, &seen(&world), now());
    assert_eq!(decided.condition(ConditionType::UpToDate).unwrap().reason, Reason::ReplacementRefused);
    assert_eq!(decided.condition(ConditionType::Progressing).unwrap().status, Status::False);
}

#[test]
fn a_machine_that_comes_meanwhile_is_made_like_the_least_advanced_and_goes_on_with_them() {
    let spec = spec(3, 1);
    let mut world = complete(&spec);
    let mut next = upgraded(spec);
    next.control_plane.replicas = 5;
    next.pools[0].replicas = Some(3);
    let done = run_alone(&next, &mut world);
    assert!(all_at(&next, &world), "{:#?}", waits(&next, &world));
    let born: Vec<MachineVersions> =
        done.iter().filter_map(|a| if let Action::CreateMachine { versions, .. } = a { Some(*versions) } else { None }).collect();
    assert!(born.iter().all(|v| v.node == old().node), "the upgrade had not begun: {born:?}");
}

#[test]
fn an_upgrade_waits_while_a_member_is_away_and_goes_on_when_it_is_back() {
    let spec = spec(3, 0);
    let mut world = aged(&complete(&spec));
    let next = at(spec, patched());
    look(&next, &mut world);
    let gone = world.cloud.known_mut().unwrap().instances.iter_mut().find(|i| i.machine == demo("cp-2")).unwrap();
    gone.state = InstanceState::Stopped;
    world_follows(&mut world, now());
    let decided = plan(&next, &seen(&world), now());
    assert!(
        decided.actions.iter().all(|a| !matches!(a, Action::TakeSnapshot { .. } | Action::SetVersions { .. })),
        "{:?}",
        decided.actions
    );
    run_alone(&next, &mut world);
    assert!(all_at(&next, &world));
}

#[test]
fn a_spec_that_changes_nothing_rolls_nothing() {
    let spec = spec(3, 2);
    let mut world = settled(&spec, nothing());
    let mut next = spec.clone();
    next.maintenance.windows = vec![Window { days: vec![], start: 0, minutes: 1 }];
    next.control_plane.strategy = Strategy::Replace;
    next.pools[0].upgrade.strategy = Strategy::Replace;
    next.pools[0].upgrade.max_unavailable = Amount::Percent(50);
    assert_eq!(run_alone(&next, &mut world), vec![]);
}
