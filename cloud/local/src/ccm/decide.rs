//! What a cloud-controller-manager has to do, from Nodes and inventory. Pure.

use crate::daemon::REGION;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::{Value, json};
use slipway_cloud_api::{Instance, InstanceState, Inventory, Route};
use std::collections::{BTreeMap, BTreeSet};

const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
const NETWORK: &str = "NetworkUnavailable";

/// What is of interest in a Node; the rest (images!) is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Name.
    pub name: String,
    /// UID and resourceVersion: preconditions of what is done.
    pub uid: String,
    /// See `uid`.
    pub version: String,
    /// Labels that we set.
    pub labels: BTreeMap<String, String>,
    /// spec.providerID.
    pub provider_id: Option<String>,
    /// spec.taints, all of them.
    pub taints: Vec<Value>,
    /// status.addresses: (type, address).
    pub addresses: BTreeSet<(String, String)>,
    /// spec.podCIDR.
    pub pod_cidr: Option<Ipv4Net>,
    /// Whether the condition NetworkUnavailable is False.
    pub network: bool,
}

fn wanted_labels(instance: &Instance) -> BTreeMap<String, String> {
    [
        ("topology.kubernetes.io/region", REGION.to_owned()),
        ("topology.kubernetes.io/zone", instance.zone.clone()),
        ("node.kubernetes.io/instance-type", instance.instance_type.clone()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v))
    .collect()
}

fn wanted_addresses(instance: &Instance) -> BTreeSet<(String, String)> {
    BTreeSet::from([("InternalIP".to_owned(), instance.address.to_string()), ("Hostname".to_owned(), instance.name.to_string())])
}

impl Facts {
    /// Of a Node; none of one without the metadata that every stored object has.
    pub fn of(node: &Node) -> Option<Self> {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let ours =
            |key: &str| matches!(key, "topology.kubernetes.io/region" | "topology.kubernetes.io/zone" | "node.kubernetes.io/instance-type");
        let taint = |t: Taint| serde_json::to_value(t).ok();
        Some(Self {
            name: node.metadata.name.clone()?,
            uid: node.metadata.uid.clone()?,
            version: node.metadata.resource_version.clone()?,
            labels: labels.into_iter().filter(|(k, _)| ours(k)).collect(),
            provider_id: spec.provider_id.filter(|p| !p.is_empty()),
            taints: spec.taints.unwrap_or_default().into_iter().filter_map(taint).collect(),
            addresses: status.addresses.unwrap_or_default().into_iter().map(|a| (a.type_, a.address)).collect(),
            pod_cidr: spec.pod_cidr.and_then(|c| c.parse().ok()),
            network: status.conditions.unwrap_or_default().iter().any(|c| c.type_ == NETWORK && c.status == "False"),
        })
    }

    fn taint(&self, key: &str) -> bool {
        self.taints.iter().any(|t| t.get("key").and_then(Value::as_str) == Some(key))
    }
}

/// One thing to do to a Node.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Merge patch of its pod range, bound to the UID: the range is never changed once it is set, and the API server refuses to.
    Range(Value),
    /// Strategic merge patch of its status.
    Status(Value),
    /// Merge patch of metadata and spec, bound to the resourceVersion.
    Spec(Value),
    /// Delete it, if it still has this UID.
    Delete(String),
}

/// The instance of a Node: by providerID where it has one, by name otherwise.
fn instance_of<'a>(node: &Facts, inventory: &'a Inventory) -> Option<&'a Instance> {
    inventory.instances.iter().find(|i| match &node.provider_id {
        Some(id) => i.provider_id == *id,
        None => i.name.as_str() == node.name && i.state != InstanceState::Deleting,
    })
}

/// Whether a Node's machine is there to stay.
pub fn has_machine(node: &Facts, inventory: &Inventory) -> bool {
    instance_of(node, inventory).is_some_and(|i| i.state != InstanceState::Deleting)
}

/// The patch that gives a Node its pod range.
pub fn range(node: &Facts, range: Ipv4Net) -> Value {
    json!({"metadata": {"uid": node.uid}, "spec": {"podCIDR": range, "podCIDRs": [range]}})
}

/// What to do to a Node, in this order. `ours` is the start of our providerIDs. The inventory must have been read after the Node.
///
/// Addresses come before the taint goes: what is scheduled then may use them. A Node without an instance is deleted only if its providerID
/// says that it had one of ours: one that has never had any may belong to a machine that we do not know yet.
pub fn node(node: &Facts, inventory: &Inventory, ours: &str, routed: bool, now: &str) -> Vec<Act> {
    let Some(instance) = instance_of(node, inventory) else {
        let gone = node.provider_id.as_ref().is_some_and(|id| id.starts_with(ours));
        return if gone { vec![Act::Delete(node.uid.clone())] } else { Vec::new() };
    };
    let mut acts = Vec::new();
    let mut status = serde_json::Map::new();
    let addresses = wanted_addresses(instance);
    if node.addresses != addresses {
        let mut list: Vec<Value> = vec![json!({"$patch": "replace"})];
        list.extend(addresses.iter().rev().map(|(kind, address)| json!({"type": kind, "address": address})));
        status.insert("addresses".into(), list.into());
    }
    if routed && !node.network {
        let condition = json!({"type": NETWORK, "status": "False", "reason": "RouteCreated", "message": "The router has a route to the Node's pods",
            "lastHeartbeatTime": now, "lastTransitionTime": now});
        status.insert("conditions".into(), json!([condition]));
    }
    if !status.is_empty() {
        acts.push(Act::Status(json!({"status": status})));
    }
    let mut patch = serde_json::Map::new();
    let labels = wanted_labels(instance);
    if node.labels != labels {
        patch.insert("labels".into(), json!(labels));
    }
    let mut spec = serde_json::Map::new();
    if node.provider_id.is_none() {
        spec.insert("providerID".into(), instance.provider_id.clone().into());
    }
    let stopped = instance.state == InstanceState::Stopped;
    if node.taint(UNINITIALIZED) || node.taint(SHUTDOWN) != stopped {
        let ours = |t: &&Value| !matches!(t.get("key").and_then(Value::as_str), Some(UNINITIALIZED | SHUTDOWN));
        let mut taints: Vec<Value> = node.taints.iter().filter(ours).cloned().collect();
        if stopped {
            taints.push(json!({"key": SHUTDOWN, "effect": "NoSchedule"}));
        }
        spec.insert("taints".into(), taints.into());
    }
    if !patch.is_empty() || !spec.is_empty() {
        patch.insert("resourceVersion".into(), node.version.clone().into());
        acts.push(Act::Spec(json!({"metadata": patch, "spec": spec})));
    }
    acts
}

/// Routes that there should be: each Node's pods by its machine. Pod ranges outside of the cluster's are nobody's business here.
pub fn routes(nodes: &BTreeMap<String, Facts>, inventory: &Inventory, cluster_cidr: Ipv4Net) -> BTreeSet<Route> {
    let mut destinations = BTreeSet::new();
    let route = |n: &Facts| {
        let destination = n.pod_cidr.filter(|c| cluster_cidr.contains(c))?;
        let instance = instance_of(n, inventory).filter(|i| i.state != InstanceState::Deleting)?;
        Some(Route { destination, instance_id: instance.id.clone() })
    };
    nodes.values().filter_map(route).filter(|r| destinations.insert(r.destination)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn instance(id: &str, name: &str, state: InstanceState) -> Instance {
        Instance {
            id: id.into(),
            name: name.parse().unwrap(),
            machine_uid: format!("uid-{id}"),
            state,
            address: "198.18.1.10".parse().unwrap(),
            zone: "local-a".into(),
            instance_type: "container".into(),
            provider_id: format!("local://u1/{id}"),
            trouble: None,
        }
    }

    fn inventory(instances: &[Instance]) -> Inventory {
        Inventory { instances: instances.to_vec(), ..Inventory::default() }
    }

    fn registered(name: &str) -> Facts {
        let text = json!({"metadata": {"name": name, "uid": "n1", "resourceVersion": "7"},
            "spec": {"podCIDR": "10.244.3.0/24", "taints": [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoExecute"}]}});
        Facts::of(&serde_json::from_value(text).unwrap()).unwrap()
    }

    fn initialised(name: &str, provider: &str) -> Facts {
        Facts {
            taints: vec![json!({"key": "mine", "effect": "NoExecute"})],
            provider_id: Some(provider.into()),
            labels: wanted_labels(&instance("i-1", name, InstanceState::Running)),
            addresses: wanted_addresses(&instance("i-1", name, InstanceState::Running)),
            network: true,
            ..registered(name)
        }
    }

    #[test]
    fn a_new_node_gets_addresses_first_and_then_loses_its_taint() {
        let cloud = inventory(&[instance("i-1", "demo-cp-0", InstanceState::Running)]);
        let acts = node(&registered("demo-cp-0"), &cloud, "local://u1/", false, "now");
        let Some(Act::Status(status)) = acts.first() else { panic!("{acts:?}") };
        assert_eq!(status["status"]["addresses"][1], json!({"type": "InternalIP", "address": "198.18.1.10"}));
        let Some(Act::Spec(spec)) = acts.get(1) else { panic!("{acts:?}") };
        assert_eq!(spec["spec"]["providerID"], "local://u1/i-1");
        assert_eq!(spec["spec"]["taints"], json!([{"key": "mine", "effect": "NoExecute"}]));
        assert_eq!(spec["metadata"]["resourceVersion"], "7");
        assert_eq!(spec["metadata"]["labels"]["topology.kubernetes.io/zone"], "local-a");
    }

    #[test]
    fn an_initialised_node_is_left_alone() {
        let cloud = inventory(&[instance("i-1", "demo-cp-0", InstanceState::Running)]);
        assert_eq!(node(&initialised("demo-cp-0", "local://u1/i-1"), &cloud, "local://u1/", true, "now"), []);
    }

    #[test]
    fn only_nodes_that_had_an_instance_of_ours_are_deleted() {
        let nothing = inventory(&[]);
        let acts = |n: &Facts, cloud| node(n, cloud, "local://u1/", true, "now");
        assert_eq!(acts(&initialised("a", "local://u1/i-1"), &nothing), [Act::Delete("n1".into())]);
        assert_eq!(acts(&initialised("a", "local://u2/i-1"), &nothing), []);
        assert_eq!(acts(&registered("a"), &nothing), []);
        // A successor of the same name is another machine.
        let successor = inventory(&[instance("i-9", "a", InstanceState::Running)]);
        assert_eq!(acts(&initialised("a", "local://u1/i-1"), &successor), [Act::Delete("n1".into())]);
    }

    #[test]
    fn a_stopped_machine_is_tainted_until_it_runs_again() {
        let stopped = inventory(&[instance("i-1", "a", InstanceState::Stopped)]);
        let running = inventory(&[instance("i-1", "a", InstanceState::Running)]);
        let up = initialised("a", "local://u1/i-1");
        let acts = node(&up, &stopped, "local://u1/", true, "now");
        let Some(Act::Spec(spec)) = acts.first() else { panic!("{acts:?}") };
        assert_eq!(spec["spec"]["taints"][1]["key"], SHUTDOWN);
        let down = Facts { taints: serde_json::from_value(spec["spec"]["taints"].clone()).unwrap(), ..up };
        assert_eq!(node(&down, &stopped, "local://u1/", true, "now"), []);
        let acts = node(&down, &running, "local://u1/", true, "now");
        let Some(Act::Spec(spec)) = acts.first() else { panic!("{acts:?}") };
        assert_eq!(spec["spec"]["taints"], json!([{"key": "mine", "effect": "NoExecute"}]));
    }

    #[test]
    fn routes_follow_nodes_within_the_clusters_range() {
        let cloud = inventory(&[instance("i-1", "a", InstanceState::Running)]);
        let nodes: BTreeMap<String, Facts> = [registered("a"), registered("stranger")].into_iter().map(|n| (n.name.clone(), n)).collect();
        let found = routes(&nodes, &cloud, "10.244.0.0/16".parse().unwrap());
        assert_eq!(found, BTreeSet::from([Route { destination: "10.244.3.0/24".parse().unwrap(), instance_id: "i-1".into() }]));
        assert!(routes(&nodes, &cloud, "10.0.0.0/16".parse().unwrap()).is_empty());
    }

    #[test]
    fn network_unavailable_becomes_false_once_routed() {
        let cloud = inventory(&[instance("i-1", "a", InstanceState::Running)]);
        let unrouted = Facts { network: false, ..initialised("a", "local://u1/i-1") };
        assert_eq!(node(&unrouted, &cloud, "local://u1/", false, "now"), []);
        let acts = node(&unrouted, &cloud, "local://u1/", true, "now");
        let Some(Act::Status(status)) = acts.first() else { panic!("{acts:?}") };
        assert_eq!(status["status"]["conditions"][0]["status"], "False");
    }
}
