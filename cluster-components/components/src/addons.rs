//! What the operator applies to a new cluster, in order.

use crate::part::sorted;
use crate::{Image, coredns};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slipway_model::Network;

/// What the addons depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonSettings {
    /// Address ranges; the DNS Service has a fixed place in them.
    pub network: Network,
    /// CoreDNS's image, imported on every node.
    pub coredns: Image,
}

/// Objects in the order in which they are applied (server-side apply, field manager `slipway`), and their identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Addons {
    /// Complete objects with apiVersion and kind.
    pub objects: Vec<Value>,
    /// sha256 over all of them, hex: equal digests need no new apply.
    pub digest: String,
}

/// Renders them: first who may do what, since exec, logs and the cloud's controller manager depend on it, then CoreDNS.
#[must_use]
pub fn render(settings: &AddonSettings) -> Addons {
    let mut objects = access();
    objects.extend(coredns::objects(settings));
    let objects: Vec<_> = objects.iter().map(sorted).collect();
    let digest = hex::encode(Sha256::digest(serde_json::to_vec(&objects).unwrap_or_default()));
    Addons { objects, digest }
}

/// RBAC of identities that have a certificate and no default binding upstream.
fn access() -> Vec<Value> {
    let subject = |kind: &str, name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name });
    let bind = |name: &str, role: &str, subject: Value| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [subject],
        })
    };
    let cloud = "system:cloud-controller-manager";
    vec![
        // exec, logs and port-forward: the apiserver towards kubelets.
        bind("slipway:kube-apiserver-kubelet-client", "system:kubelet-api-admin", subject("User", "kube-apiserver-kubelet-client")),
        // Whoever holds the cluster's kubeconfig, for as long as this binding stands.
        bind("slipway:cluster-admins", "cluster-admin", subject("Group", "slipway:cluster-admins")),
        cloud_role(cloud),
        bind(cloud, cloud, subject("User", cloud)),
    ]
}

fn cloud_role(name: &str) -> Value {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": verbs });
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name },
        "rules": [
            rule("", &["nodes"], &["get", "list", "watch", "update", "patch", "delete"]),
            rule("", &["nodes/status"], &["patch", "update"]),
            rule("", &["services"], &["get", "list", "watch", "patch"]),
            rule("", &["services/status"], &["patch", "update"]),
            rule("", &["events"], &["create", "patch", "update"]),
            rule("events.k8s.io", &["events"], &["create", "patch", "update"]),
            rule("coordination.k8s.io", &["leases"], &["create", "get", "list", "patch", "update", "watch"]),
        ],
    })
}
