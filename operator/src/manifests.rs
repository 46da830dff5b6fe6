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

/// The same as one stream of YAML documents, as `kubectl apply --filename -` reads it.
pub fn manifests_yaml() -> Result<String, serde_saphyr::ser::Error> {
    let documents: Vec<String> = manifests().iter().map(serde_saphyr::to_string).collect::<Result<_, _>>()?;
    Ok(documents.iter().map(|document| format!("---\n{}\n", document.trim_end())).collect())
}

fn subjects() -> Value {
    json!([
        {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": IDENTITY},
        {"kind": "ServiceAccount", "name": IDENTITY, "namespace": NAMESPACE},
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_parser_of_yaml_streams_reads_every_object() {
        let text = manifests_yaml().unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, manifests());
        assert_eq!(text.lines().filter(|line| *line == "---").count(), read.len(), "one mark before each document, and none left over");
    }
}
