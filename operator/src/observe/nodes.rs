//! The workload cluster's part: Nodes, pods and volumes on Nodes being drained, and which addons are in.

use crate::execute::SceneMachine;
use crate::render;
use crate::workload::{NodeFacts as Seen, View};
use jiff::Timestamp;
use slipway_model::{ClusterSpec, MachineName};
use slipway_plan::{Fact, NodeFacts, PodFacts, PodKey};
use std::collections::{BTreeMap, BTreeSet};

/// Nodes as the planner sees them.
#[must_use]
pub fn facts(view: &View, spec: &ClusterSpec, machines: &BTreeMap<MachineName, SceneMachine>, now: Timestamp) -> Vec<NodeFacts> {
    view.nodes.values().map(|node| facts_of(node, view, spec, machines, now)).collect()
}

fn facts_of(node: &Seen, view: &View, spec: &ClusterSpec, machines: &BTreeMap<MachineName, SceneMachine>, now: Timestamp) -> NodeFacts {
    let machine = owner(node, machines);
    let pods = view.pods.get(&node.name).map_or_else(
        || Fact::unknown("not asked for: the machine is not being deleted", now),
        |count| {
            Fact::Known(
                count
                    .to_leave
                    .iter()
                    .map(|p| PodFacts {
                        pod: PodKey { namespace: p.namespace.clone(), name: p.name.clone(), uid: p.uid.clone() },
                        terminating: p.terminating,
                    })
                    .collect(),
            )
        },
    );
    let unasked = || Fact::unknown("not asked for: the machine is not being deleted, or pods are left on it", now);
    NodeFacts {
        name: node.name.clone(),
        uid: node.uid.clone(),
        labels_ok: machine.is_none_or(|(_, record)| labels_ok(node, spec, machines, record)),
        machine: machine.map(|(name, _)| name.clone()),
        ready: node.ready == Some(true),
        since: node.since.unwrap_or(node.created),
        message: if node.ready == Some(true) { String::new() } else { node.message.clone() },
        unschedulable: node.unschedulable,
        cordoned: node.cordoned,
        kubelet: node.kubelet_version.parse().ok(),
        conditions: node.conditions.clone(),
        pods,
        volumes: view.volumes.get(&node.name).map_or_else(unasked, |volumes| Fact::Known(volumes.clone())),
    }
}

/// By providerID; by name while it has none.
fn owner<'a>(node: &Seen, machines: &'a BTreeMap<MachineName, SceneMachine>) -> Option<(&'a MachineName, &'a SceneMachine)> {
    machines.iter().find(
        |(name, record)| {
            if node.provider_id.is_empty() { name.as_str() == node.name } else { record.provider_id == node.provider_id }
        },
    )
}

fn labels_ok(node: &Seen, spec: &ClusterSpec, machines: &BTreeMap<MachineName, SceneMachine>, record: &SceneMachine) -> bool {
    let pool = spec.pools.iter().find(|p| p.name == record.pool);
    let labels = render::node_labels(pool, record.pool.is_control_plane());
    let pending = render::is_upgrade_pending(spec, machines, record);
    node.upgrade_pending == pending
        && node.pool_digest == render::pool_digest(pool)
        && labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
}

/// Names of the Nodes of these machines.
#[must_use]
pub fn of_machines(view: &View, machines: &BTreeMap<MachineName, SceneMachine>, wanted: &BTreeSet<&MachineName>) -> BTreeSet<String> {
    let belongs = |node: &&Seen| owner(node, machines).is_some_and(|(name, _)| wanted.contains(name));
    view.nodes.values().filter(belongs).map(|node| node.name.clone()).collect()
}
