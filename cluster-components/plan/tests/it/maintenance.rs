//! When machines may be disturbed, in tables.

use crate::build::{complete, look, now, rerendered, spec};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{ClusterSpec, MachineName, Maintenance, Weekday, Window};
use slipway_plan::{
    Action, AgentFacts, Certificates, Closed, ConditionType, Observed, Reason, Status, VersionChange, happen, happenings, maintenance_open,
    plan, seen, simulate,
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn until(text: &str) -> Result<(), Closed> {
    Err(Closed::Until(Some(at(text))))
}

/// 2026-01-01 is a Thursday.
fn windows(windows: Vec<Window>) -> Maintenance {
    Maintenance { windows, ..Maintenance::default() }
}

#[test]
fn without_windows_it_is_always_open_and_paused_it_never_is() {
    let now = at("2026-01-01T12:00:00Z");
    assert_eq!(maintenance_open(&Maintenance::default(), now), Ok(()));
    let paused = Maintenance { paused: true, ..windows(vec![Window { days: vec![], start: 0, minutes: 1440 }]) };
    assert_eq!(maintenance_open(&paused, now), Err(Closed::Paused));
}

#[test]
fn a_window_is_open_from_its_first_second_to_before_its_last_and_says_when_it_opens_next() {
    let daily = windows(vec![Window { days: vec![], start: 120, minutes: 60 }]);
    for (now, expected) in [
        ("2026-01-01T01:59:59Z", until("2026-01-01T02:00:00Z")),
        ("2026-01-01T02:00:00Z", Ok(())),
        ("2026-01-01T02:59:59Z", Ok(())),
        ("2026-01-01T03:00:00Z", until("2026-01-02T02:00:00Z")),
    ] {
        assert_eq!(maintenance_open(&daily, at(now)), expected, "{now}");
    }
}

#[test]
fn a_window_of_a_weekday_may_last_into_the_next_day_and_comes_again_after_a_week() {
    let saturday = windows(vec![Window { days: vec![Weekday::Saturday], start: 23 * 60, minutes: 120 }]);
    for (now, expected) in [
        ("2026-01-01T12:00:00Z", until("2026-01-03T23:00:00Z")),
        ("2026-01-03T22:59:59Z", until("2026-01-03T23:00:00Z")),
        ("2026-01-03T23:30:00Z", Ok(())),
        ("2026-01-04T00:59:59Z", Ok(())),
        ("2026-01-04T01:00:00Z", until("2026-01-10T23:00:00Z")),
        ("2026-01-05T00:30:00Z", until("2026-01-10T23:00:00Z")),
    ] {
        assert_eq!(maintenance_open(&saturday, at(now)), expected, "{now}");
    }
}

#[test]
fn of_several_windows_the_next_one_counts() {
    let several = windows(vec![
        Window { days: vec![Weekday::Monday], start: 0, minutes: 30 },
        Window { days: vec![Weekday::Friday, Weekday::Sunday], start: 600, minutes: 30 },
    ]);
    for (now, expected) in [
        ("2026-01-01T12:00:00Z", until("2026-01-02T10:00:00Z")),
        ("2026-01-02T10:29:00Z", Ok(())),
        ("2026-01-02T10:30:00Z", until("2026-01-04T10:00:00Z")),
        ("2026-01-04T10:45:00Z", until("2026-01-05T00:00:00Z")),
        ("2026-01-05T00:29:59Z", Ok(())),
    ] {
        assert_eq!(maintenance_open(&several, at(now)), expected, "{now}");
    }
}

#[test]
fn a_window_of_a_whole_day_on_every_day_never_closes() {
    let always = windows(vec![Window { days: vec![], start: 720, minutes: 1440 }]);
    for now in ["2026-01-01T00:00:00Z", "2026-01-01T11:59:59Z", "2026-01-01T12:00:00Z"] {
        assert_eq!(maintenance_open(&always, at(now)), Ok(()), "{now}");
    }
}

// === configurations that change though no version does ===

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn paused(mut spec: ClusterSpec) -> ClusterSpec {
    spec.maintenance.paused = true;
    spec
}

/// A complete cluster, to whose machines something else is to be told.
fn reconfigured() -> (ClusterSpec, Observed) {
    let spec = rerendered(spec(3, 2));
    let mut world = complete(&crate::build::spec(3, 2));
    look(&spec, &mut world);
    (spec, world)
}

/// Whose configuration is changed in the next pass.
fn told(spec: &ClusterSpec, world: &Observed) -> Vec<String> {
    let actions = plan(spec, &seen(world), now()).actions;
    let machine = |a: &Action| matches!(a, Action::ApplyPlan { .. }).then(|| a.machine().unwrap().to_string());
    actions.iter().filter_map(machine).collect()
}

/// What machines wait for, by name.
fn waits(spec: &ClusterSpec, world: &Observed, reason: Reason) -> Vec<String> {
    let waits = plan(spec, &seen(world), now()).waits;
    waits.iter().filter(|w| w.reason == reason).map(ToString::to_string).collect()
}

fn heard<'w>(world: &'w mut Observed, machine: &str) -> &'w mut slipway_plan::AgentState {
    match world.agents.get_mut(&demo(machine)) {
        Some(AgentFacts::Heard(state)) => state,
        other => panic!("{other:?}"),
    }
}

fn record<'w>(world: &'w mut Observed, machine: &str) -> &'w mut slipway_plan::MachineRecord {
    world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo(machine)).unwrap()
}

#[test]
fn while_paused_nobody_well_is_reconfigured_and_every_machine_says_why() {
    let (spec, world) = reconfigured();
    let spec = paused(spec);
    let plan = plan(&spec, &seen(&world), now());
    assert_eq!(plan.actions, []);
    let waits = waits(&spec, &world, Reason::Paused);
    for machine in ["cp-0", "cp-1", "cp-2", "w-0", "w-1"] {
        let says =
            |w: &&String| w.contains(demo(machine).as_str()) && w.contains("spec.maintenance.paused to be taken back: its configuration");
        assert!(waits.iter().any(|w| says(&w)), "{machine}: {waits:#?}");
    }
    assert_eq!(plan.waits.len(), 5, "nobody waits for anybody else: {:#?}", plan.waits);
    let up_to_date = plan.condition(ConditionType::UpToDate).unwrap();
    assert_eq!((up_to_date.status, up_to_date.reason), (Status::False, Reason::Paused));
    assert_eq!(plan.condition(ConditionType::Ready).unwrap().status, Status::True, "they all work");
}

#[test]
fn outside_a_window_it_is_said_which_one_is_waited_for_and_looked_again_then() {
    let (mut spec, world) = reconfigured();
    spec.maintenance.windows = vec![Window { days: vec![], start: 120, minutes: 60 }];
    let plan = plan(&spec, &seen(&world), now());
    assert_eq!(plan.actions, []);
    let waits = waits(&spec, &world, Reason::OutsideMaintenanceWindow);
    assert_eq!(waits.len(), 5);
    assert!(waits.iter().all(|w| w.contains("the maintenance window that begins 2026-01-01T02:00:00Z")), "{waits:#?}");
    assert_eq!(plan.requeue, Some(std::time::Duration::from_secs(2 * 3600)));
}

#[test]
fn in_a_window_they_are_reconfigured_one_control_plane_and_one_worker_of_a_pool_at_a_time() {
    let (mut spec, mut world) = reconfigured();
    spec.maintenance.windows = vec![Window { days: vec![], start: 0, minutes: 60 }];
    let mut all = vec![];
    for _ in 0..50 {
        let next = told(&spec, &world);
        assert!(next.iter().filter(|m| m.starts_with("demo-cp-")).count() <= 1, "{next:?}");
        assert!(next.iter().filter(|m| m.starts_with("demo-w-")).count() <= 1, "{next:?}");
        all.extend(next);
        if !crate::build::pass(&spec, &mut world, now()) {
            world = crate::time::older(&world, SignedDuration::from_secs(10));
        }
    }
    all.sort();
    assert_eq!(all, ["demo-cp-0", "demo-cp-1", "demo-cp-2", "demo-w-0", "demo-w-1"]);
    crate::invariants::at_rest(&spec, &world).unwrap();
}

/// What is no beginning, or may not wait, by name.
type Exempt = (&'static str, &'static [&'static str], fn(&mut Observed));

#[test]
fn those_that_were_told_versions_retire_are_ill_or_lose_their_certificates_do_not_wait() {
    let exempt: [Exempt; 9] = [
        ("nothing of the kind", &[], |_| {}),
        ("one that retires", &["demo-cp-1"], |w| record(w, "cp-1").retiring = true),
        ("one that was told versions a moment ago", &["demo-cp-2"], |w| {
            let versions = record(w, "cp-2").versions;
            record(w, "cp-2").changed = Some(VersionChange { from: versions, at: now() });
        }),
        ("one whose kubelet is not what it was told", &["demo-w-1"], |w| {
            let node = w.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-1"))).unwrap();
            node.kubelet = Some("v1.36.3".parse().unwrap());
        }),
        ("one whose etcd is not what it was told", &["demo-cp-0"], |w| {
            let member = w.etcd.known_mut().unwrap().members.iter_mut().find(|m| m.name == "demo-cp-0").unwrap();
            member.status.known_mut().unwrap().version = "v3.6.13".parse().unwrap();
        }),
        ("a control plane that is ill", &["demo-cp-2"], |w| {
            heard(w, "cp-2").probes.values_mut().for_each(|p| p.healthy = false);
        }),
        ("a unit that does not stay up", &["demo-w-0"], |w| {
            let trouble = slipway_plan::Trouble { message: "exit code 1".into(), since: now() };
            heard(w, "w-0").failing_units.insert("kube-proxy.service".into(), trouble);
        }),
        ("a worker that is not Ready", &["demo-w-1"], |w| {
            w.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-1"))).unwrap().ready = false;
        }),
        ("certificates that are about to end", &["demo-cp-1", "demo-w-0"], |w| {
            let secrets = &mut w.secrets.known_mut().unwrap().machines;
            ["cp-1", "w-0"].iter().for_each(|m| secrets.get_mut(&demo(m)).unwrap().pressing = true);
        }),
    ];
    for (what, expected, change) in exempt {
        let (spec, mut world) = reconfigured();
        change(&mut world);
        let next = plan(&paused(spec), &world, now()).actions;
        let told: Vec<&str> =
            next.iter().filter(|a| matches!(a, Action::ApplyPlan { .. })).map(|a| a.machine().unwrap().as_str()).collect();
        assert_eq!(told, expected, "{what}");
    }
}

#[test]
fn what_waits_for_a_window_is_no_failed_step() {
    // A worker that is alone in its pool waits for nobody else.
    let mut world = complete(&spec(1, 1));
    let spec = rerendered(spec(1, 1));
    look(&spec, &mut world);
    // They followed their last step a while ago, which is not forgotten yet.
    let at = now() - SignedDuration::from_secs(200);
    for machine in world.machines.known_mut().unwrap() {
        let mut from = machine.versions;
        from.node.containerd = "v2.3.3".parse().unwrap();
        machine.changed = Some(VersionChange { from, at });
    }
    let plan = plan(&paused(spec), &seen(&world), now());
    assert_eq!(plan.actions, []);
}

#[test]
fn the_dead_are_replaced_while_others_wait_with_their_configuration() {
    // It was upgraded once, and what a machine that waits runs is known all the same.
    let old = spec(3, 2);
    let new = crate::build::upgraded(old.clone());
    let mut world = crate::time::aged(&crate::build::settled(&new, complete(&old)));
    let held = paused(rerendered(new));
    look(&held, &mut world);
    assert_eq!(plan(&held, &seen(&world), now()).actions, []);
    for dead in ["w-0", "cp-1"] {
        let mut world = world.clone();
        let instances = &mut world.cloud.known_mut().unwrap().instances;
        instances.retain(|i| i.machine != demo(dead));
        slipway_plan::world_follows(&mut world, now());
        let world = crate::build::settled(&held, world);
        let there: Vec<String> = world.machines.known().unwrap().iter().map(|m| m.name.to_string()).collect();
        assert!(
            there.len() == 5 && !there.contains(&demo(dead).to_string()),
            "{dead}: {there:?}, {:#?}",
            plan(&held, &seen(&world), now())
        );
    }
}

#[test]
fn certificates_are_renewed_in_a_window_and_whatever_the_hour_where_they_are_overdue() {
    let spec = spec(1, 1);
    let with = |certificates| {
        let mut world = complete(&spec);
        world.secrets.known_mut().unwrap().machines.get_mut(&demo("w-0")).unwrap().certificates = certificates;
        world
    };
    let renewed = |spec: &ClusterSpec, world: &Observed| {
        plan(spec, world, now()).actions.iter().any(|a| matches!(a, Action::IssueCertificates { .. }))
    };
    for (certificates, open, closed) in [
        (Certificates::Good, false, false),
        (Certificates::Due, true, false),
        (Certificates::Overdue, true, true),
        (Certificates::Missing, true, true),
    ] {
        assert_eq!((renewed(&spec, &with(certificates)), renewed(&paused(spec.clone()), &with(certificates))), (open, closed));
    }
    let waits = waits(&paused(spec.clone()), &with(Certificates::Due), Reason::Paused);
    assert!(waits.iter().any(|w| w.contains("demo-w-0") && w.contains("its certificates are renewed then")), "{waits:?}");
    // What is overdue is not only renewed: it is used.
    let mut world = with(Certificates::Overdue);
    let held = paused(spec);
    let mut configured = 0;
    for _ in 0..10 {
        for action in plan(&held, &seen(&world), now()).actions {
            configured += usize::from(matches!(action, Action::ApplyPlan { .. }));
            simulate(&held, &mut world, &action, now()).unwrap();
        }
        happenings(&world).iter().for_each(|h| happen(&mut world, h, now()));
    }
    assert_eq!(configured, 1);
    crate::invariants::at_rest(&held, &world).unwrap();
}

#[test]
fn certificates_that_are_about_to_end_come_once_and_say_what_comes_with_them() {
    // Something else waits for the end of the pause on all machines, and one must get its certificates now.
    let (spec, mut world) = reconfigured();
    let held = paused(spec);
    world.secrets.known_mut().unwrap().machines.get_mut(&demo("w-0")).unwrap().certificates = Certificates::Overdue;
    let mut given = vec![];
    let pass = |spec: &ClusterSpec, world: &mut Observed, given: &mut Vec<(String, String)>| {
        for _ in 0..10 {
            let plan = plan(spec, &seen(world), now());
            for action in plan.actions {
                if matches!(action, Action::ApplyPlan { .. }) {
                    let because = plan.decisions.iter().find(|d| d.action == action.key()).map(|d| d.because.clone());
                    given.push((action.machine().unwrap().to_string(), because.unwrap_or_default()));
                }
                simulate(spec, world, &action, now()).unwrap();
            }
            happenings(world).iter().for_each(|h| happen(world, h, now()));
        }
    };
    pass(&held, &mut world, &mut given);
    let [(machine, because)] = given.as_slice() else { panic!("{given:?}") };
    assert_eq!(machine, "demo-w-0");
    assert!(because.contains("certificates that it has are about to end") && because.contains("what else changed"), "{because}");
    // It has them now: what changes later waits like everybody's, though the old ones have not ended yet.
    let mut other = held;
    other.network.proxy_mode = slipway_model::ProxyMode::Nftables;
    look(&other, &mut world);
    given.clear();
    pass(&other, &mut world, &mut given);
    assert_eq!(given, []);
    assert!(waits(&other, &world, Reason::Paused).iter().any(|w| w.contains("demo-w-0")));
}
