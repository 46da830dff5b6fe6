//! `NodePool`: made by the operator from a Cluster's pool, so that whatever scales Deployments can scale machines.

use crate::{rules, schemas};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The pool that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slipway.dev",
    version = "v1alpha1",
    kind = "NodePool",
    namespaced,
    status = "NodePoolStatus",
    derive = "PartialEq",
    cel,
    doc = "A pool of worker machines, made by Slipway from an entry of `spec.pools` of a Cluster. Scale it where the Cluster leaves that pool's `replicas` out; everything else of the pool stands in the Cluster.",
    shortname = "np",
    category = "slipway",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas", label_selector_path = ".status.selector"),
    validation = rules::pool_object_name(),
    selectable = ".spec.cluster",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Wanted", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Machines", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct NodePoolSpec {
    /// Name of the Cluster in the same namespace. It cannot be changed.
    #[schemars(length(max = 30))]
    #[x_kube(validation = rules::immutable("spec.cluster"))]
    pub cluster: String,
    /// Name of the pool in that Cluster. It cannot be changed.
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::immutable("spec.pool"))]
    pub pool: String,
    /// How many machines the pool has. Where the Cluster gives a number, it is set back to that.
    #[serde(default = "one")]
    #[schemars(with = "i32", range(min = 0, max = 1000))]
    pub replicas: u32,
    /// Copied from the Cluster's pool, for the time when the pool is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 0, max = 604_800))]
    pub drain_timeout_seconds: Option<u32>,
}

fn one() -> u32 {
    1
}

/// What was last seen of the pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// metadata.generation that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Machines that there are.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub replicas: u32,
    /// Machines whose Node is Ready.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub ready_replicas: u32,
    /// Label selector of its Machines, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Ready: as many machines as wanted have a Ready Node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}
