//! Agents' builds and certificates, in tables.

use crate::build::{complete, now, pass, settled, spec, upgraded};
use crate::faults::falls_silent;
use crate::invariants::at_rest;
use crate::life::{own_build, records};
use crate::time::aged;
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName, Window};
use slipway_plan::{
    Action, ActionKind, AgentBuild, AgentFacts, AgentState, ConditionType, Failure, Observed, Reason, Status, Trouble, falls_back,
    forecast, happen, happenings, may_try_build, plan, seen, simulate,
};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn states(world: &mut Observed) -> impl Iterator<Item = &mut AgentState> {
    world.agents.values_mut().filter_map(|agent| match agent {
        AgentFacts::Heard(state) => Some(state),
        AgentFacts::Silent { .. } | AgentFacts::Answering => None,
    })
}

/// All agents are this build, and new machines get it too.
pub fn run_build(world: &mut Observed, build: &str) {
    states(world).for_each(|s| s.build = Some(AgentBuild { sha256: build.to_owned(), ..AgentBuild::default() }));
    world.wanted_agent = Some(build.to_owned());
}

/// A complete cluster of agents of build `a`, to which `b` is given now.
fn given(spec: &ClusterSpec) -> Observed {
    let mut world = complete(spec);
    run_build(&mut world, "a");
    world.wanted_agent = Some("b".into());
    world
}

fn actions(spec: &ClusterSpec, world: &Observed) -> Vec<Action> {
    plan(spec, &seen(world), now()).actions
}

/// Whose agent is exchanged next.
fn next(spec: &ClusterSpec, world: &Observed) -> Option<String> {
    let machine = |a: &Action| a.machine().map(|m| m.as_str().trim_start_matches("demo-").to_owned());
    actions(spec, world).iter().find(|a| matches!(a, Action::UpdateAgent { .. })).and_then(machine)
}

fn wait(spec: &ClusterSpec, world: &Observed, reason: Reason) -> String {
    let plan = plan(spec, &seen(world), now());
    plan.waits.iter().find(|w| w.reason == reason).map(ToString::to_string).unwrap_or_else(|| panic!("no {reason}: {:#?}", plan.waits))
}

/// Begins the next trial.
fn begin(spec: &ClusterSpec, world: &mut Observed) {
    let action = actions(spec, world).into_iter().find(|a| matches!(a, Action::UpdateAgent { .. })).unwrap();
    simulate(spec, world, &action, now()).unwrap();
}

fn build_of<'w>(world: &'w Observed, machine: &str) -> &'w AgentBuild {
    own_build(&world.agents[&demo(machine)]).unwrap()
}

#[test]
fn agents_follow_one_after_the_other_workers_first_and_nothing_else_is_done() {
    let spec = spec(3, 2);
    let mut world = given(&spec);
    let (mut order, mut most) = (vec![], 0);
    for _ in 0..40 {
        for action in actions(&spec, &world) {
            assert!(matches!(action, Action::UpdateAgent { .. }), "{action}");
            order.extend(action.machine().map(|m| m.as_str().trim_start_matches("demo-").to_owned()));
            simulate(&spec, &mut world, &action, now()).unwrap();
        }
        most = most.max(world.agents.values().filter_map(own_build).filter(|b| b.trial.is_some()).count());
        happenings(&world).iter().for_each(|h| happen(&mut world, h, now()));
    }
    assert_eq!((order, most), (["w-0", "w-1", "cp-0", "cp-1", "cp-2"].map(str::to_owned).to_vec(), 1));
    at_rest(&spec, &world).unwrap();
}

#[test]
fn while_agents_are_exchanged_the_cluster_is_ready_and_says_what_goes_on() {
    let spec = spec(1, 2);
    let mut world = given(&spec);
    let progress = |world: &Observed| plan(&spec, &seen(world), now()).condition(ConditionType::Progressing).unwrap().clone();
    assert_eq!((progress(&world).status, progress(&world).reason), (Status::True, Reason::UpdatingAgents));
    assert!(wait(&spec, &world, Reason::UpdatingAgents).contains("the agents of demo-w-0, demo-w-1, demo-cp-0 to run build b"));
    begin(&spec, &mut world);
    assert!(wait(&spec, &world, Reason::UpdatingAgents).contains("demo-w-0: waiting for the trial of build b of its agent to end"));
    assert_eq!(progress(&world).reason, Reason::UpdatingAgents);
    assert_eq!(plan(&spec, &seen(&world), now()).condition(ConditionType::Ready).unwrap().status, Status::True);
}

#[test]
fn what_one_machine_refused_is_tried_there_never_again_and_on_no_other_until_there_is_another() {
    let spec = spec(3, 2);
    let mut world = given(&spec);
    begin(&spec, &mut world);
    falls_back(&mut world, &demo("w-0"), now());
    let world = aged(&settled(&spec, world));
    assert_eq!((build_of(&world, "w-0").sha256.as_str(), build_of(&world, "w-1").sha256.as_str()), ("a", "a"));
    let told = wait(&spec, &world, Reason::AgentUpdateRefused);
    assert!(
        told.starts_with("demo-w-0: waiting for another build of the agent than b") && told.contains("4 other machines keep theirs"),
        "{told}"
    );
    assert!(told.contains("last error: it was not reached"), "{told}");
    let progress = plan(&spec, &seen(&world), now()).condition(ConditionType::Progressing).unwrap().clone();
    assert_eq!((progress.status, progress.reason), (Status::False, Reason::AgentUpdateRefused));
    assert_eq!(actions(&spec, &world), []);
    // Whoever does not know it is told by the agents: any of them, and the one itself.
    for machine in ["w-0", "w-1"] {
        let blind =
            Action::UpdateAgent { machine: demo(machine), uid: format!("uid-of-{}", demo(machine)), from: "a".into(), to: "b".into() };
        simulate(&spec, &mut world.clone(), &blind, now()).unwrap_err();
    }
    let mut world = world;
    world.wanted_agent = Some("c".into());
    let world = settled(&spec, world);
    assert!(world.agents.values().filter_map(own_build).all(|b| *b == AgentBuild { sha256: "c".into(), trial: None, refused: None }));
}

#[test]
fn a_machine_that_refused_a_build_speaks_for_it_while_it_is_silent_and_no_longer_when_it_leaves() {
    let spec = spec(1, 2);
    let mut world = given(&spec);
    begin(&spec, &mut world);
    falls_back(&mut world, &demo("w-0"), now());
    assert!(matches!(world.agents[&demo("w-0")], AgentFacts::Silent { .. }));
    assert!(wait(&spec, &world, Reason::AgentUpdateRefused).contains("demo-w-0"));
    let machines = world.machines.known_mut().unwrap();
    machines.iter_mut().find(|m| m.name == demo("w-0")).unwrap().deleting = Some(now());
    let world = settled(&spec, world);
    assert!(world.agents.values().filter_map(own_build).all(|b| b.sha256 == "b"), "{:?}", world.agents);
}

#[test]
fn no_agent_is_exchanged_while_another_is_silent_on_trial_or_its_machine_is_being_changed() {
    let spec = spec(1, 2);
    let trouble = || Some(Trouble { message: "no space left".into(), since: now() });
    assert_eq!(next(&spec, &given(&spec)).as_deref(), Some("w-0"));
    let mut world = given(&spec);
    falls_silent(&mut world, &demo("cp-0"));
    assert_eq!(next(&spec, &world), None);
    assert!(wait(&spec, &world, Reason::WaitingForOthers).starts_with("demo-cp-0: waiting for its agent to be heard"));
    let mut world = given(&spec);
    let of = |world: &mut Observed, machine: &str, change: &dyn Fn(&mut AgentState)| match world.agents.get_mut(&demo(machine)) {
        Some(AgentFacts::Heard(state)) => change(state),
        other => panic!("{other:?}"),
    };
    of(&mut world, "w-1", &|s| s.build.as_mut().unwrap().trial = Some("b".into()));
    assert_eq!(next(&spec, &world), None);
    let mut world = given(&spec);
    of(&mut world, "w-1", &|s| s.applied = None);
    assert_eq!(next(&spec, &world), None);
    assert!(wait(&spec, &world, Reason::WaitingForOthers).starts_with("demo-w-1: waiting for its configuration to become real"));
    of(&mut world, "w-1", &|s| s.trouble = trouble());
    assert_eq!(next(&spec, &world).as_deref(), Some("w-0"), "another build may be what it lacks");
    let mut world = given(&spec);
    of(&mut world, "w-1", &|s| s.build = Some(AgentBuild::default()));
    assert_eq!(next(&spec, &world), None, "it has not said yet which build it is");
    of(&mut world, "w-0", &|s| s.build = None);
    of(&mut world, "w-1", &|s| s.build = None);
    assert_eq!(next(&spec, &world).as_deref(), Some("cp-0"), "what cannot be exchanged holds nobody up");
}

#[test]
fn nothing_is_rolled_while_an_agent_is_on_trial_and_no_agent_exchanged_during_an_upgrade() {
    let old = spec(3, 2);
    let mut world = given(&old);
    begin(&old, &mut world);
    let new = upgraded(old);
    crate::build::look(&new, &mut world);
    assert_eq!(actions(&new, &world), []);
    let mut world = complete(&spec(3, 2));
    run_build(&mut world, "a");
    crate::build::look(&new, &mut world);
    while world.cluster.upgrade.is_none() {
        assert!(pass(&new, &mut world, now()));
    }
    world.wanted_agent = Some("b".into());
    // Nor right after it: what befalls a machine then is taken for the step's doing.
    let in_step =
        |world: &Observed| records(world).iter().any(|m| m.changed.as_ref().is_some_and(|c| now() - SignedDuration::from_secs(120) < c.at));
    while world.cluster.upgrade.is_some() || in_step(&world) {
        assert_eq!(next(&new, &world), None);
        let before = world.clone();
        if !pass(&new, &mut world, now()) {
            world = crate::time::older(&before, SignedDuration::from_secs(30));
        }
    }
    at_rest(&new, &aged(&settled(&new, world))).unwrap();
}

#[test]
fn agents_wait_for_pause_and_windows_and_certificates_do_not() {
    let mut spec = spec(1, 1);
    let mut world = given(&spec);
    states(&mut world).for_each(|s| s.certificate_expires = Some(now() + SignedDuration::from_hours(24 * 121)));
    let kinds = |spec: &ClusterSpec| actions(spec, &world).iter().map(|a| a.key().kind).collect::<Vec<_>>();
    let renewals = [ActionKind::RenewAgentCertificate; 2];
    assert_eq!(kinds(&spec), [ActionKind::UpdateAgent, renewals[0], renewals[1]]);
    spec.maintenance.paused = true;
    assert_eq!(kinds(&spec), renewals);
    assert!(wait(&spec, &world, Reason::Paused).contains("the agents of demo-w-0, demo-cp-0 are exchanged then"));
    spec.maintenance.paused = false;
    spec.maintenance.windows = vec![Window { days: vec![], start: 60, minutes: 60 }];
    assert_eq!(kinds(&spec), renewals);
    assert!(wait(&spec, &world, Reason::OutsideMaintenanceWindow).contains("begins 2026-01-01T01:00:00Z"));
}

#[test]
fn a_failing_exchange_is_tried_again_later_and_nobody_elses_meanwhile() {
    let spec = spec(1, 2);
    let mut world = given(&spec);
    let key = actions(&spec, &world)[0].key();
    let failure = |next_try| Failure { attempts: 3, since: now(), last: now(), error: "no such file in the store".into(), next_try };
    world.failures.insert(key.clone(), failure(now() + SignedDuration::from_secs(7)));
    assert_eq!(actions(&spec, &world), []);
    assert!(wait(&spec, &world, Reason::ActionFailing).contains("no such file in the store"));
    world.failures.insert(key, failure(now()));
    assert_eq!(next(&spec, &world).as_deref(), Some("w-0"));
}

#[test]
fn certificates_are_renewed_when_a_third_of_their_life_is_left_and_looked_at_in_time() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    world.agent_certificate_life = SignedDuration::from_hours(3);
    let minutes = SignedDuration::from_mins;
    for (left, renewed) in [(minutes(61), false), (minutes(60), true), (minutes(5), true), (minutes(-5), true)] {
        states(&mut world).for_each(|s| s.certificate_expires = Some(now() + left));
        let kinds: Vec<ActionKind> = actions(&spec, &world).iter().map(|a| a.key().kind).collect();
        assert_eq!(kinds, if renewed { vec![ActionKind::RenewAgentCertificate; 2] } else { vec![] }, "{left:?} left");
    }
    for action in actions(&spec, &world) {
        simulate(&spec, &mut world, &action, now()).unwrap();
    }
    let plan = plan(&spec, &seen(&world), now());
    assert_eq!((plan.actions, plan.requeue), (vec![], Some(std::time::Duration::from_secs(2 * 3600))));
}

#[test]
fn a_certificate_that_is_about_to_end_is_renewed_before_an_upgrade_begins() {
    let mut world = complete(&spec(3, 1));
    let new = upgraded(spec(3, 1));
    crate::build::look(&new, &mut world);
    states(&mut world).take(1).for_each(|s| s.certificate_expires = Some(now() + SignedDuration::from_hours(1)));
    let kinds = |world: &Observed| actions(&new, world).iter().map(|a| a.key().kind).collect::<Vec<_>>();
    assert_eq!(kinds(&world), [ActionKind::RenewAgentCertificate]);
    assert!(wait(&new, &world, Reason::PreflightFailed).contains("the certificate of demo-cp-0's agent ends 2026-01-01T01:00:00Z"));
    assert!(pass(&new, &mut world, now()));
    assert_eq!(kinds(&world), [ActionKind::TakeSnapshot]);
    // Where certificates live for hours only, an hour is much.
    world.agent_certificate_life = SignedDuration::from_hours(2);
    states(&mut world).for_each(|s| s.certificate_expires = Some(now() + SignedDuration::from_hours(1)));
    assert_eq!(kinds(&world), [ActionKind::TakeSnapshot]);
}

#[test]
fn a_machine_that_reboots_during_a_trial_is_tried_again_and_one_made_anew_has_the_build() {
    let spec = spec(1, 1);
    let mut world = given(&spec);
    begin(&spec, &mut world);
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo("w-0")).unwrap().state = slipway_plan::InstanceState::Pending;
    slipway_plan::world_follows(&mut world, now());
    happen(&mut world, &slipway_plan::Happening::Boots(demo("w-0")), now());
    assert_eq!(*build_of(&world, "w-0"), AgentBuild { sha256: "a".into(), trial: None, refused: None });
    assert_eq!(next(&spec, &world).as_deref(), Some("w-0"));
    let grown = crate::build::spec(1, 2);
    let world = settled(&grown, world);
    assert_eq!(records(&world).len(), 3);
    at_rest(&grown, &aged(&world)).unwrap();
}

#[test]
fn what_every_other_agent_says_decides_whether_a_build_may_be_tried() {
    let own = |trial: Option<&str>, refused: Option<&str>| AgentState {
        build: Some(AgentBuild {
            sha256: "a".into(),
            trial: trial.map(str::to_owned),
            refused: refused.map(|r| slipway_plan::RefusedBuild { sha256: r.into(), why: "it ended".into(), since: now() }),
        }),
        ..AgentState::default()
    };
    let may = |state: Option<AgentState>| {
        let (quiet, name) = (own(None, None), [demo("w-1"), demo("w-2")]);
        may_try_build([(&name[0], Some(&quiet)), (&name[1], state.as_ref())], "b").map_err(|(name, why)| format!("{name}: {why}"))
    };
    assert_eq!(may(Some(own(None, None))), Ok(()));
    assert_eq!(may(Some(own(None, Some("c")))), Ok(()));
    assert_eq!(may(Some(AgentState::default())), Ok(()), "it cannot be exchanged, and answers");
    assert_eq!(may(None), Err("demo-w-2: its agent does not answer".into()));
    assert_eq!(may(Some(own(Some("c"), None))), Err("demo-w-2: a build of its agent is on trial".into()));
    assert_eq!(may(Some(own(None, Some("b")))), Err("demo-w-2: its agent has refused this build".into()));
}

#[test]
fn the_forecast_tells_whose_agent_is_exchanged_when() {
    let spec = spec(1, 1);
    let mut world = given(&spec);
    states(&mut world).take(1).for_each(|s| s.certificate_expires = Some(now()));
    insta::assert_snapshot!("agents_1_1", forecast(&spec, &seen(&world), now()));
}
