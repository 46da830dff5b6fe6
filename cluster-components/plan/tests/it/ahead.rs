//! What a roll does before its turn: Nodes that come next are emptied while the machine before follows, none earlier, and none while something is wrong.

use crate::build::{at, complete, look, new, now, old, patched, spec, upgraded, versions};
use crate::life::records;
use crate::time::older;
use jiff::{SignedDuration, Timestamp};
use slipway_model::{ClusterSpec, MachineName, MachineVersions, Part, Weekday, Window};
use slipway_plan::{
    Action, AgentFacts, Fact, MachineRecord, Observed, Plan, PreflightFacts, Reason, happen, happenings, plan, seen, simulate,
};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

/// Goes on as long as something moves, and shows every plan with the world it is made from, until `there`.
fn walk(spec: &ClusterSpec, world: &mut Observed, mut there: impl FnMut(&Observed, &Plan) -> bool) {
    look(spec, world);
    for _ in 0..600 {
        let next = plan(spec, &seen(world), now());
        if there(world, &next) {
            return;
        }
        let before = world.clone();
        for action in &next.actions {
            let _ = simulate(spec, world, action, now());
        }
        for happening in happenings(world) {
            happen(world, &happening, now());
        }
        if *world == before {
            match next.requeue {
                Some(pause) if !pause.is_zero() => *world = older(world, SignedDuration::try_from(pause).unwrap()),
                _ => panic!("it never came to that: {next:#?}"),
            }
        }
    }
    panic!("no end");
}

/// Whose Nodes are emptied from now on.
fn cordoned(plan: &Plan) -> Vec<&MachineName> {
    plan.actions.iter().filter_map(|a| if let Action::Cordon { machine, .. } = a { Some(machine) } else { None }).collect()
}

fn planes(world: &Observed) -> impl Iterator<Item = &MachineRecord> {
    records(world).iter().filter(|m| m.is_control_plane())
}

fn state<'w>(world: &'w mut Observed, machine: &str) -> &'w mut slipway_plan::AgentState {
    match world.agents.get_mut(&demo(machine)) {
        Some(AgentFacts::Heard(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn is_settled(world: &Observed, machine: &MachineName) -> bool {
    let state = world.agents.get(machine).and_then(AgentFacts::heard).unwrap();
    state.applied.as_ref() == world.wanted.get(machine)
}

#[test]
fn no_node_is_emptied_before_every_api_server_was_told_to_be_new() {
    let mut world = complete(&spec(3, 2));
    let next = upgraded(spec(3, 2));
    let (mut emptied, mut ahead) = (0, 0);
    walk(&next, &mut world, |world, plan| {
        let old_one =
            planes(world).find(|m| [Part::Etcd, Part::ApiServer].iter().any(|p| m.versions.differs(*p, &next.control_plane.versions)));
        for machine in cordoned(plan) {
            assert!(old_one.is_none(), "{machine} is emptied while {} is {}", old_one.unwrap().name, old_one.unwrap().versions);
            emptied += 1;
            ahead += usize::from(planes(world).any(|m| !is_settled(world, &m.name)));
        }
        world.cluster.upgrade.is_none() && records(world).iter().all(|m| m.versions.node == new().node) && plan.actions.is_empty()
    });
    assert_eq!(emptied, 5, "every Node, once");
    assert!(ahead > 0, "none was emptied while the machine before followed");
}

#[test]
fn the_next_node_is_emptied_while_the_machine_before_follows_and_not_when_it_is_ill_with_what_it_runs() {
    let mut world = complete(&spec(3, 0));
    let next = upgraded(spec(3, 0));
    // The first one was told its Node's part, and follows.
    let follows = |world: &Observed| planes(world).any(|m| m.versions == next.control_plane.versions && !is_settled(world, &m.name));
    walk(&next, &mut world, |world, _| follows(world));
    let first = planes(&world).find(|m| m.versions == next.control_plane.versions).unwrap().name.clone();
    let decided = plan(&next, &seen(&world), now());
    assert!(cordoned(&decided).len() == 1 && *cordoned(&decided)[0] != first, "{:?}", decided.actions);

    let wanted = world.wanted[&first].clone();
    let follower = state(&mut world, first.as_str().trim_start_matches("demo-"));
    (follower.accepted, follower.applied) = (Some(wanted.clone()), Some(wanted));
    world.nodes.known_mut().unwrap().iter_mut().filter(|n| n.machine.as_ref() == Some(&first)).for_each(|n| n.ready = false);
    let decided = plan(&next, &seen(&world), now());
    assert!(decided.waits.iter().any(|w| w.machine.as_ref() == Some(&first) && w.reason == Reason::NodeNotReady), "{:?}", decided.waits);
    assert_eq!(cordoned(&decided), Vec::<&MachineName>::new(), "its step may yet fail");
}

#[test]
fn no_node_is_emptied_ahead_when_machines_may_not_be_disturbed() {
    let mut world = complete(&spec(1, 2));
    let next = upgraded(spec(1, 2));
    walk(&next, &mut world, |_, plan| !cordoned(plan).is_empty());
    assert!(planes(&world).any(|m| !is_settled(&world, &m.name)), "the API server follows, and a pool's Node is emptied ahead");
    let mut held = next.clone();
    held.maintenance.paused = true;
    let decided = plan(&held, &seen(&world), now());
    assert_eq!(cordoned(&decided), Vec::<&MachineName>::new());
    // The tests live on a Thursday, at midnight.
    held = next;
    held.maintenance.windows = vec![Window { days: vec![Weekday::Saturday], start: 120, minutes: 60 }];
    let decided = plan(&held, &seen(&world), now());
    assert_eq!(cordoned(&decided), Vec::<&MachineName>::new());
}

#[test]
fn no_node_is_emptied_for_an_upgrade_that_has_not_begun() {
    let behind = MachineVersions { control_plane: None, ..versions("v1.35.9", "v3.6.14", "v2.3.4") };
    let mut first = spec(3, 2);
    first.pools[0].versions = behind;
    let mut world = complete(&first);
    let mut next = at(first, patched());
    next.pools[0].versions = MachineVersions { control_plane: None, ..old() };
    look(&next, &mut world);
    world.preflight = Fact::Known(PreflightFacts {
        to: Some(next.control_plane.versions),
        removed_apis: vec!["example.k8s.io/v1beta1 things".into()],
        impossible_budgets: vec![],
    });
    let held = plan(&next, &seen(&world), now());
    assert!(held.waits.iter().any(|w| w.reason == Reason::PreflightFailed), "{:?}", held.waits);
    assert_eq!(held.actions, [], "the API servers would bear the pool's kubelets, but nothing begins");
}

#[test]
fn the_next_machine_waits_until_the_probes_of_the_one_before_were_good_long_enough_whenever_it_was_told() {
    let mut world = complete(&spec(3, 0));
    let next = at(spec(3, 0), patched());
    let told = |world: &Observed| planes(world).find(|m| m.versions != old()).map(|m| m.name.clone());
    walk(&next, &mut world, |world, _| told(world).is_some_and(|m| is_settled(world, &m)));
    let first = told(&world).unwrap();
    let tells = |probes_good_since: Timestamp| {
        let mut world = world.clone();
        // It took its time: what matters is since when its probes are good, not when it was told.
        let records = world.machines.known_mut().unwrap();
        records.iter_mut().filter(|m| m.name == first).for_each(|m| m.changed.as_mut().unwrap().at = now() - SignedDuration::from_secs(60));
        let state = state(&mut world, first.as_str().trim_start_matches("demo-"));
        state.probes.get_mut(slipway_plan::PROBE_API_SERVER).unwrap().since = probes_good_since;
        let decided = plan(&next, &world, now());
        let tells = decided.actions.iter().any(|a| matches!(a, Action::SetVersions { .. }));
        (tells, decided.waits.iter().any(|w| w.reason == Reason::Soaking), decided.requeue)
    };
    let ago = |millis: i64| now() - SignedDuration::from_millis(millis);
    assert_eq!(tells(ago(400)), (false, true, Some(std::time::Duration::from_millis(200))), "two good probes");
    let (tells, soaks, _) = tells(ago(600));
    assert!(tells && !soaks, "three good probes");
}
