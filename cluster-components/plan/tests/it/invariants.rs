//! What must hold in a cluster's life, by name.

use crate::build::now;
use crate::life::{hash, long_ago, records, thorough};
use slipway_model::{ClusterSpec, DeletionPolicy, MachineName};
use slipway_plan::{
    Action, AgentFacts, ConditionType, Fact, InstanceState, MachineRecord, Observed, Reason, Status, actions, plan, seen, simulate,
};
use std::collections::BTreeMap;

/// What holds at every moment.
pub fn always(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    let cloud = world.cloud.known().unwrap();
    for (position, instance) in cloud.instances.iter().enumerate() {
        if cloud.instances.iter().skip(position + 1).any(|other| other.machine_uid == instance.machine_uid) {
            return Some("at most one instance per Machine");
        }
    }
    if world.is_over() && spec.deletion_policy == DeletionPolicy::Delete {
        let clean = cloud.is_empty()
            && records(world).is_empty()
            && world.pools.known().unwrap().is_empty()
            && world.secrets.known().unwrap().is_empty();
        if !clean {
            return Some("nothing is left of a deleted cluster");
        }
    }
    // Two sets of founders never know of a plan at the same time.
    let told = |name: &MachineName| match world.agents.get(name) {
        Some(AgentFacts::Heard(s)) => s.accepted.is_some(),
        Some(AgentFacts::Silent { last: Some(s), .. }) => {
            s.accepted.is_some() && cloud.instances.iter().any(|i| i.machine == *name && i.state != InstanceState::Deleting)
        }
        _ => false,
    };
    let stranger = |m: &&MachineRecord| m.is_control_plane() && told(&m.name) && !world.cluster.founders.contains(&m.name);
    if records(world).iter().any(|m| stranger(&m)) {
        return Some("one founding set at a time");
    }
    // The dearest one, on every third world where time is short.
    let sampled = thorough() || hash(world).is_multiple_of(3);
    let unseen = if sampled { unseen_is_untouched(spec, world) } else { None };
    unseen.or_else(|| every_wait_has_a_reason(spec, world)).or_else(|| actions_are_independent(spec, world))
}

/// Whether a world at rest is what the spec says, or is stuck for a reason that only a person can remove.
pub fn at_rest(spec: &ClusterSpec, world: &Observed) -> Result<(), String> {
    if world.is_over() {
        return Ok(());
    }
    let plan = plan(spec, &seen(world), now());
    let excused = |r: Reason| matches!(r, Reason::ControlPlaneMachineLost | Reason::TooManyMachinesLost);
    if !plan.actions.is_empty() {
        return Err(format!("actions without effect: {:#?}", plan.actions));
    }
    if plan.waits.iter().any(|w| excused(w.reason)) {
        return Ok(());
    }
    let cloud = world.cloud.known().unwrap();
    let strays: Vec<_> = cloud.instances.iter().filter(|i| records(world).iter().all(|m| m.uid != i.machine_uid)).collect();
    let ready = plan.condition(ConditionType::Ready).unwrap();
    let sizes = spec.pools.iter().all(|p| {
        let wanted = p.replicas.unwrap_or_else(|| world.pools.known().unwrap().iter().find(|r| r.name == p.name).unwrap().replicas);
        records(world).iter().filter(|m| m.pool == p.name).count() == wanted as usize
    });
    let foreign = records(world).iter().any(|m| !m.is_control_plane() && spec.pools.iter().all(|p| p.name != m.pool));
    if ready.status == Status::True && sizes && !foreign && strays.is_empty() && plan.waits.is_empty() {
        return Ok(());
    }
    Err(format!("at rest, but not as the spec says: {plan:#?} strays {strays:?}"))
}

/// What an action must never do.
pub fn harm(
    spec: &ClusterSpec,
    before: &Observed,
    after: &Observed,
    action: &Action,
    used: &BTreeMap<String, u32>,
) -> Option<&'static str> {
    let living = before.cluster.deleting.is_none();
    let orphaning = !living && spec.deletion_policy == DeletionPolicy::Orphan;
    match action {
        Action::DeleteInstance { .. }
        | Action::DeleteStrayInstance { .. }
        | Action::DeleteLoadBalancer
        | Action::DeleteNetwork
        | Action::DeleteSecrets
            if orphaning =>
        {
            Some("an orphaned cluster keeps everything")
        }
        Action::DeleteStrayInstance { machine_uid, .. } if records(before).iter().any(|m| m.uid == *machine_uid) => {
            Some("an instance with a record is no stray")
        }
        Action::DeleteInstance { machine, .. } if living => {
            let record = records(before).iter().find(|m| m.name == *machine);
            let Some(record) = record else { return Some("a living cluster deletes only what is recorded as leaving") };
            if record.is_control_plane() {
                return before.cluster.bootstrapped.then_some("a control plane of a founded cluster is never deleted");
            }
            let node = before.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(machine));
            let busy = node.is_some_and(|n| n.pods.known().is_some_and(|p| !p.is_empty()));
            let dead = matches!(before.agents.get(machine), Some(AgentFacts::Silent { since, .. }) if *since == long_ago());
            let expired = record.deleting == Some(long_ago());
            (before.cluster.bootstrapped && busy && !dead && !expired).then_some("drained before deleted")
        }
        Action::CreateMachine { machine, pool, ordinal, .. } => {
            let reused = used.get(pool.as_str()).is_some_and(|bits| bits & (1 << ordinal) != 0);
            (reused && records(before).iter().all(|m| m.name != *machine)).then_some("an ordinal is never used twice")
        }
        Action::RecordFounders { .. } if before.cluster.bootstrapped => Some("founded once"),
        Action::ApplyPlan { machine, expected: None, .. } => {
            let plane = records(before).iter().any(|m| m.name == *machine && m.is_control_plane());
            (plane && before.cluster.bootstrapped).then_some("etcd is bootstrapped once")
        }
        Action::CreateInstance { machine, .. } => records(after).iter().all(|m| m.name != *machine).then_some("record before effect"),
        Action::RecordEndpoint { .. } => {
            (before.cluster.endpoint.is_some() && before.cluster.endpoint != after.cluster.endpoint).then_some("the endpoint never changes")
        }
        _ => None,
    }
}

/// No action touches what cannot be seen.
fn unseen_is_untouched(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    let view = seen(world);
    let broken = |change: &dyn Fn(&mut Observed), forbidden: &dyn Fn(&Action) -> bool| {
        let mut view = view.clone();
        change(&mut view);
        actions(spec, &view, now()).iter().any(forbidden)
    };
    let cloud = broken(&|v| v.cloud = Fact::unknown("timeout", now()), &|a| {
        matches!(
            a,
            Action::EnsureNetwork
                | Action::EnsureLoadBalancer { .. }
                | Action::SetTargets { .. }
                | Action::CreateInstance { .. }
                | Action::StartInstance { .. }
                | Action::DeleteInstance { .. }
                | Action::DeleteStrayInstance { .. }
                | Action::DeleteLoadBalancer
                | Action::DeleteNetwork
                | Action::DeleteSecrets
        ) || matches!(a, Action::RemoveMachine { keep_secrets: false, .. })
            || (matches!(a, Action::RemoveFinalizer) && spec.deletion_policy == DeletionPolicy::Delete)
            || matches!(a, Action::DeleteMachine { why: slipway_plan::Removal::Dead, .. })
    });
    let machines = broken(&|v| v.machines = Fact::unknown("timeout", now()), &|a| {
        let of_a_cluster_that_goes = matches!(a, Action::DeleteInstance { .. }) && world.cluster.deleting.is_some();
        (a.machine().is_some() && !of_a_cluster_that_goes)
            || matches!(
                a,
                Action::SetOrdinals { .. }
                    | Action::SetTargets { .. }
                    | Action::CreatePki
                    | Action::RecordFounders { .. }
                    | Action::RemoveFinalizer
            )
    });
    let nodes = world.cluster.bootstrapped
        && world.cluster.deleting.is_none()
        && broken(&|v| v.nodes = Fact::unknown("timeout", now()), &|a| {
            matches!(
                a,
                Action::Cordon { .. }
                    | Action::Evict { .. }
                    | Action::DeleteNode { .. }
                    | Action::LabelNode { .. }
                    | Action::DeleteInstance { .. }
                    | Action::DeleteMachine { why: slipway_plan::Removal::ScaleDown, .. }
            )
        });
    let secrets = broken(&|v| v.secrets = Fact::unknown("timeout", now()), &|a| {
        matches!(
            a,
            Action::CreatePki
                | Action::IssueBootstrap { .. }
                | Action::IssueCertificates { .. }
                | Action::DropBootstrap { .. }
                | Action::WriteKubeconfig
                | Action::DeleteSecrets
                | Action::CreateInstance { .. }
        ) || (matches!(a, Action::RemoveFinalizer) && spec.deletion_policy == DeletionPolicy::Delete)
    });
    let pools = broken(&|v| v.pools = Fact::unknown("timeout", now()), &|a| {
        matches!(a, Action::CreatePool { .. } | Action::SetPoolReplicas { .. } | Action::RemovePool { .. } | Action::RemoveFinalizer)
    });
    (cloud || machines || nodes || secrets || pools).then_some("what is not seen is not touched")
}

/// Where nothing can be done and not everything is well, it is said what is waited for.
fn every_wait_has_a_reason(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    if world.is_over() {
        return None;
    }
    let plan = plan(spec, &seen(world), now());
    let ready = plan.condition(ConditionType::Ready).unwrap();
    let mute = plan.actions.is_empty() && plan.waits.is_empty() && ready.status != Status::True;
    let empty = plan.waits.iter().any(|w| w.what.is_empty()) || plan.conditions.iter().any(|c| c.message.is_empty());
    let node_ready = |m: &&MachineRecord| world.nodes.known().unwrap().iter().any(|n| n.ready && n.machine.as_ref() == Some(&m.name));
    let working = |pool: &str| records(world).iter().filter(|m| m.pool.as_str() == pool).filter(node_ready).count();
    let wanted = |p: &slipway_model::Pool| p.replicas.map_or(0, |n| n as usize);
    let premature = ready.status == Status::True
        && (working("cp") < world.cluster.founders.len() || spec.pools.iter().any(|p| working(p.name.as_str()) < wanted(p)));
    if premature {
        return Some("Ready is the truth");
    }
    (mute || empty).then_some("every wait has a reason")
}

/// The actions of one plan may run in any order, unless one is refused at its target.
fn actions_are_independent(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    let actions = actions(spec, &seen(world), now());
    let end = |order: &mut dyn Iterator<Item = &Action>| {
        let mut world = world.clone();
        for action in order {
            simulate(spec, &mut world, action, now()).ok()?;
        }
        // Addresses are the cloud's choice, and follow the order of creation.
        for instance in &mut world.cloud.known_mut().unwrap().instances {
            instance.address = [198, 18, 0, 0].into();
        }
        Some(world)
    };
    let (forth, back) = (end(&mut actions.iter())?, end(&mut actions.iter().rev())?);
    (forth != back).then_some("actions of one plan are independent")
}
