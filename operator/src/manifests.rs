//! What the operator needs in the management cluster beside the CRDs: a namespace and its rights, and nothing that runs.

use serde_json::{Value, json};

/// Namespace of the operator.
pub const NAMESPACE: &str = "slipway-system";
/// The operator as a user, where it has a client certificate, and as a service account.
pub const IDENTITY: &str = "slipway-operator";

/// Objects in the order in which they are applied.
#[must_use]
pub fn manifests() -> Vec<Value> {
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": IDENTITY, "namespace": NAMESPACE}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": IDENTITY},
            "rules": [
                rule(&["slipway.dev"], &["clusters", "nodepools", "machines", "etcdsnapshots"], &all),
                rule(
                    &["slipway.dev"],
                    &["clusters/status", "nodepools/status", "machines/status", "etcdsnapshots/status"],
                    &["get", "update", "patch"],
                ),
                rule(&["slipway.dev"], &["clusters/finalizers", "nodepools/finalizers", "machines/finalizers"], &["update"]),
                // Its clusters' keys. Everything that a cluster is stands in them.
                rule(&[""], &["secrets"], &all),
                rule(&["", "events.k8s.io"], &["events"], &["create", "patch"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": IDENTITY},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": IDENTITY},
            "subjects": subjects(),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": IDENTITY, "namespace": NAMESPACE},
            "rules": [rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update"])],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": IDENTITY, "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": IDENTITY},
            "subjects": subjects(),
        }),
    ]
}

fn subjects() -> Value {
    json!([
        {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": IDENTITY},
        {"kind": "ServiceAccount", "name": IDENTITY, "namespace": NAMESPACE},
    ])
}
