//! The Cluster's status.

use super::decisions::{Decisions, OF_CLUSTER};
use super::{Write, changed, etcd};
use crate::compose::World;
use jiff::Timestamp;
use slipway_crds::{ClusterStatus, Counts, Finding, Step, Wait, set_conditions};
use slipway_plan::{Fact, MachineRecord, Plan, Status};

/// As many waits and steps as somebody reads.
const MAX_LINES: usize = 50;

pub fn status(world: &World, plan: &Plan, mut steps: Vec<Step>, decisions: &Decisions, now: Timestamp) -> Option<Write> {
    let object = &world.seen.cluster;
    let mut before = object.status.clone().unwrap_or_default();
    // Written by compare-and-swap, and by nobody here.
    before.recorded = None;
    let findings = plan.conditions.iter().map(|c| Finding {
        kind: c.kind.as_str(),
        status: c.status.as_str(),
        reason: c.reason.as_str(),
        message: &c.message,
    });
    steps.truncate(MAX_LINES);
    let (control_plane, workers): (Vec<_>, Vec<_>) =
        world.observed.machines.known().into_iter().flatten().partition(|m| m.is_control_plane());
    let after = ClusterStatus {
        observed_generation: object.metadata.generation,
        conditions: set_conditions(&before.conditions, findings, object.metadata.generation, now),
        endpoint: world.observed.cluster.endpoint.as_ref().map(|e| format!("https://{e}")),
        kubernetes_version: control_plane
            .iter()
            .filter(|_| world.observed.cluster.bootstrapped)
            .filter_map(|m| m.versions.control_plane.map(|v| v.api_server))
            .min()
            .map(|v| v.to_string()),
        agent_build: world.observed.wanted_agent.clone(),
        control_plane: Some(Counts::new(
            ready(world, &control_plane, before.control_plane.as_ref()),
            world.scene.spec.control_plane.replicas,
        )),
        workers: Some(Counts::new(ready(world, &workers, before.workers.as_ref()), wanted_workers(world))),
        steps,
        waits: plan.waits.iter().take(MAX_LINES).map(wait).collect(),
        etcd_members: etcd::members(world, &before.etcd_members),
        decisions: decisions.after(&before.decisions, None, OF_CLUSTER),
        recorded: None,
    };
    // The end of a wait is what people look at: Ready either way, and that nothing is going on any more.
    let turned = |kind: &str| {
        let of = |s: &ClusterStatus| s.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.clone());
        of(&before) != of(&after)
    };
    let urgent = turned("Ready") || turned("ControlPlaneAvailable") || (before.endpoint != after.endpoint);
    let settled =
        plan.actions.is_empty() && plan.condition(slipway_plan::ConditionType::Progressing).is_some_and(|c| c.status == Status::False);
    changed("Cluster", object.as_ref(), &before, &after, urgent || settled)
}

/// A wait in the API's words.
pub fn wait(wait: &slipway_plan::Wait) -> Wait {
    Wait {
        what: wait.what.clone(),
        reason: wait.reason.as_str().to_owned(),
        machine: wait.machine.as_ref().map(ToString::to_string),
        since: Some(wait.since),
        last_error: wait.last_error.clone(),
        next_try: wait.next_try,
    }
}

/// As many as there are; as were told last while Nodes cannot be seen.
fn ready(world: &World, machines: &[&MachineRecord], before: Option<&Counts>) -> u32 {
    if let (Fact::Unknown { .. }, Some(before)) = (&world.observed.nodes, before) {
        return before.ready;
    }
    let ready = machines.iter().filter(|m| m.deleting.is_none() && super::machine::node_ready(world, &m.name)).count();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

fn wanted_workers(world: &World) -> u32 {
    let owned = |name: &slipway_model::PoolName| match &world.observed.pools {
        Fact::Known(pools) => pools.iter().find(|p| p.name == *name).map(|p| p.replicas),
        Fact::Unknown { .. } => None,
    };
    world.scene.spec.pools.iter().map(|p| p.replicas.or_else(|| owned(&p.name)).unwrap_or(1)).sum()
}
