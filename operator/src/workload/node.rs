//! What is needed of a Node, and of the pods on one that is being drained.

use crate::execute::workload::{CORDONED, POOL_DIGEST};
use crate::render::UPGRADE_PENDING;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Volume};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// A Node, trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Its Ready condition, `None` before the kubelet has written one.
    pub ready: Option<bool>,
    /// Since when it is so.
    pub since: Option<Timestamp>,
    /// Why it is not, in the kubelet's words.
    pub message: String,
    /// Cordoned.
    pub unschedulable: bool,
    /// `spec.providerID`, empty before the cloud-controller-manager has set it.
    pub provider_id: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// Digest of the pool's labels and taints that were last put on, empty before.
    pub pool_digest: String,
    /// Whether new pods rather go elsewhere, because it is emptied soon.
    pub upgrade_pending: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `v1.36.4`.
    pub kubelet_version: String,
    /// Since when it is cordoned by us, to be given back.
    pub cordoned: Option<Timestamp>,
    /// Its other conditions: kind, status, last transition.
    pub conditions: Vec<(String, String, Timestamp)>,
}

/// Pods in the way of a drain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodCount {
    /// Pods that have to leave.
    pub to_leave: Vec<PodKey>,
    /// Of these, on their way out.
    pub leaving: usize,
    /// Claims of the pods that a drain leaves where they are, by namespace and name: their volumes stay as long as the Node does.
    pub claims: BTreeSet<(String, String)>,
}

/// A pod to evict. The UID is the precondition: a pod of the same name that came later is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Told to end, and not gone yet.
    pub terminating: bool,
}

impl NodeFacts {
    /// Trims a Node.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let ready = condition(node, "Ready");
        let spec = node.spec.as_ref();
        let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
        Self {
            name: node.name_any(),
            uid: node.uid().unwrap_or_default(),
            ready: ready.and_then(|c| match c.status.as_str() {
                "True" => Some(true),
                "False" | "Unknown" => Some(false),
                _ => None,
            }),
            since: ready.and_then(|c| c.last_transition_time.as_ref().map(|t| t.0)),
            message: ready.and_then(|c| c.message.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            provider_id: spec.and_then(|s| s.provider_id.clone()).unwrap_or_default(),
            created: node.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            upgrade_pending: spec.and_then(|s| s.taints.as_deref()).unwrap_or_default().iter().any(|t| t.key == UPGRADE_PENDING),
            pool_digest: node.annotations().get(POOL_DIGEST).cloned().unwrap_or_default(),
            labels: node.labels().clone(),
            kubelet_version: info.map(|i| i.kubelet_version.clone()).unwrap_or_default(),
            cordoned: node.annotations().get(CORDONED).and_then(|at| at.parse().ok()),
            conditions: others(node),
        }
    }
}

/// Heartbeats are left out: only a transition is news.
fn others(node: &Node) -> Vec<(String, String, Timestamp)> {
    let all = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let since = |c: &NodeCondition| c.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    all.iter().filter(|c| c.type_ != "Ready").map(|c| (c.type_.clone(), c.status.clone(), since(c))).collect()
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

impl PodCount {
    /// Counts as `kubectl drain --ignore-daemonsets --delete-emptydir-data --force` does: DaemonSets' pods, mirrors of static pods and what has already ended
    /// stay out of it.
    #[must_use]
    pub fn of(pods: &[Pod]) -> Self {
        let to_leave: Vec<PodKey> = pods.iter().filter(|p| has_to_leave(p)).map(PodKey::of).collect();
        let leaving = to_leave.iter().filter(|p| p.terminating).count();
        let claims = pods.iter().filter(|p| !has_ended(p) && !has_to_leave(p)).flat_map(claims).collect();
        Self { to_leave, leaving, claims }
    }
}

impl PodKey {
    fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Of generic ephemeral volumes, too: their claims are named after pod and volume.
fn claims(pod: &Pod) -> Vec<(String, String)> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let claim = |v: &Volume| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), v.name)),
        (None, None) => None,
    };
    volumes.iter().filter_map(claim).map(|name| (pod.namespace().unwrap_or_default(), name)).collect()
}

fn has_to_leave(pod: &Pod) -> bool {
    let daemon = pod.owner_references().iter().any(|o| o.kind == "DaemonSet" && o.controller == Some(true));
    let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
    !(daemon || mirror || has_ended(pod))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn daemons_mirrors_and_ended_pods_are_not_in_the_way_of_a_drain() {
        let pods = [
            pod(serde_json::json!({"metadata": {"name": "app", "namespace": "a", "uid": "1"}, "status": {"phase": "Running"}})),
            pod(
                serde_json::json!({"metadata": {"name": "going", "namespace": "a", "uid": "2", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            pod(
                serde_json::json!({"metadata": {"name": "d", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "x", "controller": true}]}}),
            ),
            pod(serde_json::json!({"metadata": {"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}}})),
            pod(serde_json::json!({"metadata": {"name": "job"}, "status": {"phase": "Succeeded"}})),
        ];
        let count = PodCount::of(&pods);
        assert_eq!(count.to_leave.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["app", "going"]);
        assert_eq!(count.leaving, 1);
    }

    #[test]
    fn the_volumes_of_pods_that_stay_are_known_by_their_claims() {
        let volumes = serde_json::json!({"containers": [], "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "own"}}, {"name": "scratch", "ephemeral": {}}, {"name": "dir", "emptyDir": {}}
        ]});
        let owner = serde_json::json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "x", "controller": true}]);
        let pods = [
            pod(serde_json::json!({"metadata": {"name": "stays", "namespace": "a", "ownerReferences": owner}, "spec": volumes})),
            pod(serde_json::json!({"metadata": {"name": "leaves", "namespace": "b"}, "spec": volumes})),
            pod(serde_json::json!({"metadata": {"name": "ended", "namespace": "c"}, "spec": volumes, "status": {"phase": "Failed"}})),
        ];
        let of_a = |name: &str| ("a".to_owned(), name.to_owned());
        assert_eq!(PodCount::of(&pods).claims, BTreeSet::from([of_a("own"), of_a("stays-scratch")]));
    }

    #[test]
    fn a_node_without_conditions_is_neither_ready_nor_not() {
        assert_eq!(NodeFacts::of(&Node::default()).ready, None);
    }
}
