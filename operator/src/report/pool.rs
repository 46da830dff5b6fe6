//! A NodePool's status.

use super::{Write, changed};
use crate::compose::World;
use crate::context::{LABEL_CLUSTER, LABEL_POOL};
use jiff::Timestamp;
use slipway_crds::{Finding, NodePool, NodePoolStatus, set_conditions};

pub fn status(pool: &NodePool, world: &World, now: Timestamp) -> Option<Write> {
    let before = pool.status.clone().unwrap_or_default();
    let machines: Vec<_> = world.observed.machines.known().into_iter().flatten().filter(|m| m.pool.as_str() == pool.spec.pool).collect();
    let seen = || machines.iter().filter(|m| m.deleting.is_none() && super::machine::node_ready(world, &m.name)).count();
    // As were told last while Nodes cannot be seen.
    let told = || usize::try_from(before.ready_replicas).unwrap_or(usize::MAX).min(machines.len());
    let ready = if world.observed.nodes.known().is_some() { seen() } else { told() };
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let is_ready = count(ready) >= pool.spec.replicas && machines.len() == ready;
    let message = format!("{ready} of {} machines are ready", pool.spec.replicas);
    let finding = Finding {
        kind: "Ready",
        status: if is_ready { "True" } else { "False" },
        reason: if is_ready { "AllReady" } else { "Scaling" },
        message: &message,
    };
    let after = NodePoolStatus {
        observed_generation: pool.metadata.generation,
        replicas: count(machines.len()),
        ready_replicas: count(ready),
        selector: Some(format!("{LABEL_CLUSTER}={},{LABEL_POOL}={}", pool.spec.cluster, pool.spec.pool)),
        conditions: set_conditions(&before.conditions, [finding], pool.metadata.generation, now),
    };
    // Autoscalers read it.
    let urgent = before.replicas != after.replicas || before.ready_replicas != after.ready_replicas;
    changed("NodePool", pool, &before, &after, urgent)
}
