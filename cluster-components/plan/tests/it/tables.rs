//! Single decisions, one rule each.

use crate::build::{complete, nothing, now, settled, spec};
use crate::time::long_ago;
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName, PlanDigest};
use slipway_plan::{
    Action, ActionKind, AgentFacts, ConditionType, DEAD_AFTER, Fact, Failure, InstanceState, Observed, Reason, Status, Trouble, happen,
    happenings, plan, seen, simulate,
};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn kinds(spec: &ClusterSpec, world: &Observed) -> Vec<ActionKind> {
    let mut kinds: Vec<_> = plan(spec, &seen(world), now()).actions.iter().map(|a| a.key().kind).collect();
    kinds.dedup();
    kinds
}

fn reasons(spec: &ClusterSpec, world: &Observed) -> Vec<Reason> {
    plan(spec, &seen(world), now()).waits.iter().map(|w| w.reason).collect()
}

fn silence(world: &mut Observed, machine: &str, since: jiff::Timestamp) {
    world.agents.insert(demo(machine), AgentFacts::Silent { since, error: "no route to host".into(), last: None });
}

fn stop(world: &mut Observed, machine: &str) {
    let cloud = world.cloud.known_mut().unwrap();
    cloud.instances.iter_mut().find(|i| i.machine == demo(machine)).unwrap().state = InstanceState::Stopped;
    slipway_plan::world_follows(world, now());
}

#[test]
fn nothing_is_made_before_the_finalizer_is_on() {
    assert_eq!(plan(&spec(3, 2), &nothing(), now()).actions, [Action::AddFinalizer]);
}

#[test]
fn no_control_plane_is_configured_before_every_founder_is_claimed_and_workers_do_not_wait_for_that() {
    let spec = spec(3, 1);
    let mut world = nothing();
    // Until agents answer, one pass after the other; then the claim of cp-2 is left out.
    for _ in 0..12 {
        for action in plan(&spec, &seen(&world), now()).actions {
            if !matches!(&action, Action::Claim { machine, .. } if *machine == demo("cp-2")) {
                let _ = simulate(&spec, &mut world, &action, now());
            }
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
    }
    let heard = |machine: &str| world.agents.get(&demo(machine)).unwrap().heard().map(|s| s.accepted.is_some());
    assert_eq!((heard("cp-0"), heard("cp-1"), heard("cp-2"), heard("w-0")), (Some(false), Some(false), None, Some(true)));
    assert!(reasons(&spec, &world).contains(&Reason::WaitingForFounders));
}

#[test]
fn a_silent_worker_is_only_dead_when_a_second_witness_agrees_and_its_time_is_over() {
    let spec = spec(1, 3);
    let table = [
        // silent since, powered off, Node NotReady, inventory unknown → dead
        (DEAD_AFTER, true, false, false, true),
        (DEAD_AFTER, false, true, false, true),
        (DEAD_AFTER, false, false, false, false),
        (DEAD_AFTER - SignedDuration::from_secs(1), true, true, false, false),
        (DEAD_AFTER, false, true, true, false),
    ];
    for (silent, off, not_ready, unknown, dead) in table {
        let mut world = complete(&spec);
        silence(&mut world, "w-1", now() - silent);
        if off {
            stop(&mut world, "w-1");
        }
        if not_ready {
            world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-1"))).unwrap().ready = false;
        }
        if unknown {
            world.cloud = Fact::unknown("timeout", now());
        }
        let deleted = kinds(&spec, &world).contains(&ActionKind::DeleteMachine);
        assert_eq!(deleted, dead, "silent {silent} off {off} not ready {not_ready} unknown {unknown}");
    }
}

#[test]
fn the_time_until_a_silent_worker_is_dead_is_when_to_look_again() {
    let spec = spec(1, 3);
    let mut world = complete(&spec);
    silence(&mut world, "w-1", now() - SignedDuration::from_secs(10));
    stop(&mut world, "w-1");
    assert_eq!(plan(&spec, &seen(&world), now()).requeue, Some(std::time::Duration::from_secs(20)));
}

#[test]
fn when_most_workers_vanish_at_once_nothing_is_replaced_and_those_that_are_off_are_started() {
    let spec = spec(1, 3);
    let mut world = complete(&spec);
    for machine in ["w-0", "w-1"] {
        silence(&mut world, machine, long_ago());
        stop(&mut world, machine);
    }
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.iter().all(|a| matches!(a, Action::StartInstance { .. })), "{:?}", plan.actions);
    assert_eq!(plan.actions.len(), 2);
    assert_eq!(plan.condition(ConditionType::Ready).unwrap().reason, Reason::TooManyMachinesLost);
}

#[test]
fn a_powered_off_control_plane_is_started_at_once() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    silence(&mut world, "cp-1", now());
    stop(&mut world, "cp-1");
    let plan = plan(&spec, &seen(&world), now());
    assert!(matches!(plan.actions.as_slice(), [Action::StartInstance { machine, .. }] if *machine == demo("cp-1")), "{:?}", plan.actions);
    let etcd = plan.condition(ConditionType::EtcdHealthy).unwrap();
    assert_eq!((etcd.status, etcd.reason), (Status::False, Reason::QuorumHealthy));
}

#[test]
fn a_control_plane_whose_disk_forgot_its_plan_never_founds_again_and_is_replaced() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    world.agents.insert(demo("cp-1"), AgentFacts::Heard(slipway_plan::AgentState::default()));
    slipway_plan::world_follows(&mut world, now());
    let plan = plan(&spec, &seen(&world), now());
    assert!(matches!(plan.actions.as_slice(), [Action::DeleteMachine { machine, .. }] if *machine == demo("cp-1")), "{:?}", plan.actions);
    assert!(plan.waits.iter().any(|w| w.reason == Reason::ControlPlaneMachineDead));
    simulate(&spec, &mut world, &plan.actions[0], now()).unwrap();
}

#[test]
fn a_changed_configuration_goes_to_one_control_plane_at_a_time_and_only_while_the_others_are_well() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    for digest in world.wanted.values_mut() {
        *digest = PlanDigest(format!("{digest}, changed"));
    }
    let applied = |world: &Observed| -> Vec<MachineName> {
        plan(&spec, &seen(world), now()).actions.iter().filter_map(Action::machine).cloned().collect()
    };
    assert_eq!(applied(&world), [demo("cp-0")]);
    let action = plan(&spec, &seen(&world), now()).actions.remove(0);
    simulate(&spec, &mut world, &action, now()).unwrap();
    assert!(applied(&world).is_empty(), "cp-0 is not done yet");
    for happening in happenings(&world) {
        happen(&mut world, &happening, now());
    }
    assert_eq!(applied(&world), [demo("cp-1")]);
    // An ill one may be cured by the change; two ill ones are left alone.
    silence(&mut world, "cp-0", now());
    assert!(applied(&world).is_empty());
}

#[test]
fn the_cluster_puts_a_scaled_pool_back_and_leaves_it_alone_where_it_says_nothing() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    world.pools.known_mut().unwrap()[0].replicas = 3;
    assert_eq!(kinds(&spec, &world), [ActionKind::SetPoolReplicas]);
    let mut silent = spec.clone();
    silent.pools[0].replicas = None;
    let world = settled(&silent, world);
    assert_eq!(world.machines.known().unwrap().len(), 4);
}

#[test]
fn a_pool_whose_record_was_deleted_comes_back_with_the_size_it_has() {
    let mut spec = spec(1, 2);
    let mut world = complete(&spec);
    spec.pools[0].replicas = None;
    *world.pools.known_mut().unwrap() = vec![];
    assert!(matches!(plan(&spec, &seen(&world), now()).actions.as_slice(), [Action::CreatePool { replicas: 2, .. }]));
}

#[test]
fn a_pool_that_owns_its_size_starts_at_one_and_says_so_until_then() {
    let mut spec = spec(1, 1);
    spec.pools[0].replicas = None;
    let mut world = nothing();
    world.cluster.finalizer = true;
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.iter().any(|a| matches!(a, Action::CreatePool { replicas: 1, .. })));
    assert!(plan.waits.iter().any(|w| w.reason == Reason::WaitingForPoolSize));
    assert_eq!(settled(&spec, world).machines.known().unwrap().len(), 2);
}

#[test]
fn what_is_unknown_is_said_and_looked_at_again() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    world.cloud = Fact::unknown("slipway-local does not answer", now());
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.is_empty() && plan.requeue.is_some());
    let infrastructure = plan.condition(ConditionType::InfrastructureReady).unwrap();
    assert_eq!((infrastructure.status, infrastructure.reason), (Status::Unknown, Reason::CannotObserve));
    assert!(infrastructure.message.contains("slipway-local does not answer"));
    assert_eq!(plan.condition(ConditionType::WorkersReady).unwrap().status, Status::True);
}

#[test]
fn scaling_down_takes_the_one_that_does_not_work_before_the_youngest() {
    let mut world = complete(&spec(1, 3));
    world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-1"))).unwrap().ready = false;
    let spec = spec(1, 2);
    let actions = plan(&spec, &seen(&world), now()).actions;
    let deleted: Vec<_> = actions.iter().filter(|a| a.key().kind == ActionKind::DeleteMachine).filter_map(Action::machine).collect();
    assert_eq!(deleted, [&demo("w-1")]);
}

#[test]
fn a_budget_holds_a_drain_up_until_its_time_is_over_and_the_pod_and_budget_are_named() {
    let mut spec = spec(1, 1);
    let mut world = complete(&spec);
    let machine = world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo("w-0")).unwrap();
    machine.deleting = Some(now());
    let node = world.nodes.known_mut().unwrap().iter_mut().find(|n| n.machine == Some(demo("w-0"))).unwrap();
    node.unschedulable = true;
    let evict = plan(&spec, &seen(&world), now()).actions.into_iter().find(|a| a.key().kind == ActionKind::Evict).unwrap();
    let next_try = now() + SignedDuration::from_secs(5);
    let error = "Cannot evict pod as it would violate the pod's disruption budget app-budget".to_owned();
    world.failures.insert(evict.key(), Failure { attempts: 3, since: now(), last: now(), error, next_try });
    let held = plan(&spec, &seen(&world), now());
    assert!(!held.actions.iter().any(|a| matches!(a.key().kind, ActionKind::Evict | ActionKind::DeleteInstance)), "{:?}", held.actions);
    let wait = held.waits.iter().find(|w| w.reason == Reason::EvictionBlocked).unwrap().to_string();
    assert!(wait.contains("app-budget") && wait.contains("default/app-on-demo-w-0") && wait.contains("next try"), "{wait}");

    let machine = world.machines.known_mut().unwrap().iter_mut().find(|m| m.name == demo("w-0")).unwrap();
    machine.deleting = Some(long_ago());
    assert!(kinds(&spec, &world).contains(&ActionKind::DeleteInstance), "the time is over");
    spec.pools[0].drain_timeout_seconds = 0;
    assert!(!kinds(&spec, &world).contains(&ActionKind::DeleteInstance), "0 waits for ever");
}

#[test]
fn an_action_that_failed_is_left_alone_until_its_time_and_its_error_is_told_throughout() {
    let spec = spec(1, 0);
    let mut world = nothing();
    world.cluster.finalizer = true;
    let key = Action::EnsureNetwork.key();
    let next_try = now() + SignedDuration::from_secs(2);
    let failure = Failure { attempts: 2, since: now(), last: now(), error: "no range is free".into(), next_try };
    world.failures.insert(key.clone(), failure);
    let early = plan(&spec, &seen(&world), now());
    assert!(!early.actions.contains(&Action::EnsureNetwork));
    assert_eq!(early.requeue, Some(std::time::Duration::from_secs(2)));
    let late = plan(&spec, &seen(&world), next_try);
    assert!(late.actions.contains(&Action::EnsureNetwork));
    for plan in [early, late] {
        let ready = plan.condition(ConditionType::Ready).unwrap();
        assert_eq!((ready.status, ready.reason), (Status::False, Reason::ActionFailing));
        assert!(ready.message.contains("no range is free"), "{}", ready.message);
    }
}

#[test]
fn an_agents_trouble_is_told_with_its_machine_and_since_when() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&demo("w-0")) else { panic!() };
    state.trouble = Some(Trouble { message: "kubelet: sha256 differs".into(), since: now() });
    state.applied = None;
    state.applying = "trying again every 4 s".into();
    let plan = plan(&spec, &seen(&world), now());
    let wait = plan.waits.iter().find(|w| w.reason == Reason::ConfigurationTroubled).unwrap().to_string();
    assert_eq!(
        wait,
        "demo-w-0: waiting for its configuration to become real (trying again every 4 s) since 2026-01-01T00:00:00Z; \
         last error: kubelet: sha256 differs"
    );
    let up_to_date = plan.condition(ConditionType::UpToDate).unwrap();
    assert_eq!((up_to_date.status, up_to_date.reason), (Status::False, Reason::ConfigurationTroubled));
    assert!(up_to_date.message.contains(&wait), "{}", up_to_date.message);
}

#[test]
fn authorities_are_never_made_anew_under_a_living_cluster() {
    let spec = spec(1, 1);
    let mut world = complete(&spec);
    world.secrets.known_mut().unwrap().pki = false;
    assert!(!kinds(&spec, &world).contains(&ActionKind::CreatePki));
    assert!(reasons(&spec, &world).contains(&Reason::AuthoritiesLost));
}

#[test]
fn a_founders_instance_without_a_record_is_no_stray_once_the_cluster_lives() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    world.machines.known_mut().unwrap().retain(|m| m.name != demo("cp-1"));
    let plan = plan(&spec, &seen(&world), now());
    assert!(plan.actions.iter().all(|a| a.key().kind != ActionKind::DeleteStrayInstance), "{:?}", plan.actions);
    assert!(plan.waits.iter().any(|w| w.reason == Reason::ControlPlaneMachineLost));
}

/// A pool that is gone from the Cluster and whose machines go: found by long random lives.
#[test]
fn what_one_pool_has_too_many_makes_up_for_nothing() {
    let mut world = complete(&spec(3, 2));
    let ready = |world: &Observed, spec: &ClusterSpec| plan(spec, &seen(world), now()).condition(ConditionType::Ready).unwrap().status;
    assert_eq!(ready(&world, &spec(3, 2)), Status::True);
    let larger = spec(5, 0);
    let mut looked = false;
    for _ in 0..400 {
        let wanted = plan(&larger, &seen(&world), now());
        let ready = wanted.condition(ConditionType::Ready).unwrap().status;
        let planes = world.nodes.known().unwrap().iter().filter(|n| n.ready && n.name.starts_with("demo-cp-")).count();
        assert!(ready != Status::True || planes == 5, "Ready with {planes} control planes: {:?}", wanted.conditions);
        looked |= planes < 5;
        for action in wanted.actions {
            let _ = simulate(&larger, &mut world, &action, now());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
    }
    assert!(looked, "it never had too few");
    assert_eq!(ready(&settled(&larger, world), &larger), Status::True);
}

/// Found by long random lives: a create call that came through after what it had made before was recorded and gone.
#[test]
fn what_a_late_call_made_beside_the_recorded_instance_is_not_the_machine() {
    let spec = spec(1, 2);
    let mut world = complete(&spec);
    world.cloud.known_mut().unwrap().instances.iter_mut().find(|i| i.machine == demo("w-1")).unwrap().id = "another".into();
    slipway_plan::world_follows(&mut world, now());
    assert!(world.agents.get(&demo("w-1")).unwrap().heard().is_none(), "nobody asks the agent of another instance");
    let decided = plan(&spec, &seen(&world), now() + DEAD_AFTER);
    let replaced = |a: &Action| matches!(a, Action::DeleteMachine { machine, .. } if *machine == demo("w-1"));
    assert!(decided.actions.iter().any(replaced), "{:?}", decided.actions);
    let world = settled(&spec, world);
    let instances = &world.cloud.known().unwrap().instances;
    assert!(instances.len() == 3 && instances.iter().all(|i| i.id != "another"), "{instances:?}");
}

#[test]
fn every_reason_explains_itself() {
    for reason in Reason::ALL {
        assert!(reason.explain().len() > 20 && reason.explain().ends_with('.'), "{reason}");
    }
}
