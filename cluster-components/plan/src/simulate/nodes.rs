//! Nodes, their pods, NodePools and addons.

use super::{Refused, api_answers, check};
use crate::{Action, Fact, NodeFacts, Observed, PodFacts, PodKey, PoolRecord, is_upgrade_pending};
use jiff::Timestamp;
use slipway_model::{ClusterSpec, MachineName};
use std::collections::BTreeSet;

/// The one pod that runs on every worker.
pub(crate) fn pod_on(machine: &MachineName) -> PodFacts {
    let pod = PodKey { namespace: "default".into(), name: format!("app-on-{machine}"), uid: format!("uid-of-pod-on-{machine}") };
    PodFacts { pod, terminating: false }
}

/// A NodePool object.
pub(super) fn pool(world: &mut Observed, action: &Action) -> Result<(), Refused> {
    let pools = world.pools.known_mut().ok_or(Refused("the NodePool objects are not known"))?;
    match action {
        Action::CreatePool { pool, replicas } if pools.iter().all(|p| p.name != *pool) => {
            let uid = format!("uid-of-pool-{pool}");
            pools.push(PoolRecord { name: pool.clone(), uid, replicas: *replicas, deleting: false, drain_timeout_seconds: None });
            pools.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Action::SetPoolReplicas { pool, uid, from, to } => {
            let record = pools
                .iter_mut()
                .find(|p| p.name == *pool && p.uid == *uid && p.replicas == *from)
                .ok_or(Refused("somebody else wrote first"))?;
            record.replicas = *to;
        }
        Action::RemovePool { uid, .. } => pools.retain(|p| p.uid != *uid),
        _ => {}
    }
    Ok(())
}

/// Whatever goes through the cluster's API.
pub(super) fn node(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    check(api_answers(world), "the API does not answer")?;
    if let Action::ApplyAddons { wanted } = action {
        world.addons = Fact::Known(Some(wanted.clone()));
        return Ok(());
    }
    let workers: Vec<MachineName> =
        world.machines.known().into_iter().flatten().filter(|m| !m.is_control_plane()).map(|m| m.name.clone()).collect();
    let nodes = world.nodes.known_mut().ok_or(Refused("the Nodes are not known"))?;
    match action {
        Action::LabelNode { uid, .. } => nodes.iter_mut().filter(|n| n.uid == *uid).for_each(|n| n.labels_ok = true),
        Action::Cordon { uid, returns, .. } => {
            for node in nodes.iter_mut().filter(|n| n.uid == *uid) {
                node.cordoned = node.cordoned.or_else(|| (*returns && !node.unschedulable).then_some(now));
                node.unschedulable = true;
            }
        }
        Action::Uncordon { uid, .. } => {
            nodes.iter_mut().filter(|n| n.uid == *uid && n.cordoned.is_some()).for_each(|n| uncordon(n, &workers));
        }
        Action::DeleteNode { uid, .. } => nodes.retain(|n| n.uid != *uid),
        Action::Evict { pod, .. } => {
            for known in nodes.iter_mut().filter_map(|n| n.pods.known_mut()).flatten().filter(|p| p.pod == *pod) {
                known.terminating = true;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Machines whose Nodes are marked because they are yet to be emptied in an upgrade that has begun.
pub(super) fn pending(spec: &ClusterSpec, world: &Observed) -> BTreeSet<MachineName> {
    let machines = world.machines.known().map_or(&[][..], Vec::as_slice);
    let told = || machines.iter().map(|m| (&m.pool, &m.versions));
    machines.iter().filter(|m| is_upgrade_pending(spec, told(), &m.pool, &m.versions)).map(|m| m.name.clone()).collect()
}

/// What was told makes other marks right than those that Nodes bear.
pub(super) fn mark(spec: &ClusterSpec, world: &mut Observed, before: &BTreeSet<MachineName>) {
    let after = pending(spec, world);
    let turned: Vec<&MachineName> = before.symmetric_difference(&after).collect();
    for node in world.nodes.known_mut().into_iter().flatten().filter(|n| n.machine.as_ref().is_some_and(|m| turned.contains(&m))) {
        node.labels_ok = false;
    }
}

/// Pods come again.
fn uncordon(node: &mut NodeFacts, workers: &[MachineName]) {
    (node.unschedulable, node.cordoned) = (false, None);
    if let (Some(machine), Some(pods)) = (node.machine.as_ref().filter(|m| workers.contains(m)), node.pods.known_mut())
        && pods.is_empty()
    {
        pods.push(pod_on(machine));
    }
}
