//! `Cluster`: one object describes a whole Kubernetes cluster, its node pools inline.

use crate::cluster_status::ClusterStatus;
use crate::maintenance::{ControlPlaneUpgrade, Maintenance, PoolUpgrade, UpgradeChecks};
use crate::upgrade::Amount;
use crate::{rules, schemas};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use slipway_model::{DeletionPolicy, ProxyMode, TaintEffect};
use std::collections::BTreeMap;

/// The cluster that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slipway.dev",
    version = "v1alpha1",
    kind = "Cluster",
    namespaced,
    status = "ClusterStatus",
    derive = "PartialEq",
    cel,
    doc = "A whole Kubernetes cluster: control plane, node pools and the infrastructure under them. Slipway makes it real and keeps it so. Its admin kubeconfig is in the Secret `<name>-kubeconfig`, key `value`.",
    shortname = "cl",
    category = "slipway",
    validation = rules::cluster_name(),
    validation = rules::no_downgrade(),
    validation = rules::no_minor_skipped(),
    validation = rules::no_etcd_downgrade(),
    validation = rules::no_pool_downgrade(),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.kubernetesVersion", description = "Kubernetes version that is wanted"),
    printcolumn(name = "Control-Plane", type_ = "string", json_path = ".status.controlPlane.summary", description = "Control-plane machines, ready/wanted"),
    printcolumn(name = "Workers", type_ = "string", json_path = ".status.workers.summary", description = "Worker machines, ready/wanted"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", description = "Where its API is reached"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::room_for_nodes(), validation = rules::pools_not_newer(), validation = rules::pools_not_too_old())]
pub struct ClusterSpec {
    /// The Kubernetes version of the control plane and of every node, in full and with the leading v, e.g. v1.36.4. Raising it upgrades the cluster, one
    /// minor version at a time. It is lowered only to call an upgrade off that is not over: back to the version that it began with.
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::supported_version())]
    pub kubernetes_version: String,

    /// Where the machines run. Exactly one provider is named. It cannot be changed later.
    #[schemars(schema_with = "Provider::schema")]
    pub provider: Provider,

    /// Address ranges of pods and Services, and how Services are programmed.
    #[serde(default)]
    pub network: Network,

    /// The machines that run etcd, kube-apiserver, kube-controller-manager, kube-scheduler and the cloud-controller-manager.
    pub control_plane: ControlPlane,

    /// Pools of worker machines. None at all makes a cluster of control-plane machines only.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = rules::unique_pools())]
    pub pools: Vec<Pool>,

    /// Versions of components that shall differ from what the catalogue chooses for the Kubernetes version. Leave it out unless you have a reason.
    #[serde(default, skip_serializing_if = "ComponentVersions::is_empty")]
    pub component_versions: ComponentVersions,

    /// What happens to the machines when this object is deleted. Delete: machines, load balancer, network and Secrets go with it. Orphan: they stay and run
    /// on, and only Slipway's records go; nobody takes care of them from then on.
    #[serde(default)]
    #[schemars(schema_with = "schemas::deletion_policy")]
    pub deletion_policy: DeletionPolicy,

    /// When machines may be disturbed: by upgrades, by replacing what is outdated, by taking control planes away. Left out: at any time.
    #[serde(default, skip_serializing_if = "Maintenance::is_default")]
    pub maintenance: Maintenance,

    /// What an upgrade of the control plane may do without. Leave it out unless you have a reason.
    #[serde(default, skip_serializing_if = "UpgradeChecks::is_default")]
    pub upgrade: UpgradeChecks,
}

/// Where a cluster's machines run: exactly one of the fields that the schema knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// Machines on one Linux host, made by slipway-local.
    Local(LocalProvider),
}

/// Machines on one Linux host. There is nothing to choose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalProvider {}

impl Provider {
    /// Fields of the schema, one per variant.
    pub const NAMES: &'static [&'static str] = &["local"];

    /// An object with one optional field per provider, and the rule that exactly one is there: a `oneOf` would be refused without a word on what to write.
    fn schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let mut local = generator.subschema_for::<LocalProvider>();
        local.insert(
            "description".into(),
            "Machines on the host that runs slipway-local: systemd containers behind a router of their own. Write {}.".into(),
        );
        let rules = rules::provider(Self::NAMES);
        schemars::json_schema!({
            "type": "object",
            "properties": { "local": local },
            "x-kubernetes-validations": rules,
        })
    }
}

/// Address ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::disjoint())]
pub struct Network {
    /// IPv4 range that pods get their addresses from, between /8 and /24. Every node takes a /24 of it, so it limits the number of nodes. It cannot be changed
    /// later.
    #[serde(rename = "podCIDR", default = "default_pod_cidr")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = rules::is_range("podCIDR", "10.244.0.0/16"), validation = rules::no_host_bits("podCIDR"), validation = rules::pod_range_size(), validation = rules::immutable_range("podCIDR"))]
    pub pod_cidr: String,

    /// IPv4 range that Services get their addresses from, between /12 and /28. It cannot be changed later.
    #[serde(rename = "serviceCIDR", default = "default_service_cidr")]
    #[schemars(length(max = 43))]
    #[x_kube(validation = rules::is_range("serviceCIDR", "10.96.0.0/16"), validation = rules::no_host_bits("serviceCIDR"), validation = rules::service_range_size(), validation = rules::immutable_range("serviceCIDR"))]
    pub service_cidr: String,

    /// How kube-proxy programs Services on the nodes. ipvs is deprecated upstream.
    #[serde(default)]
    #[schemars(schema_with = "schemas::proxy_mode")]
    pub kube_proxy_mode: ProxyMode,
}

impl Default for Network {
    fn default() -> Self {
        Self { pod_cidr: default_pod_cidr(), service_cidr: default_service_cidr(), kube_proxy_mode: ProxyMode::default() }
    }
}

fn default_pod_cidr() -> String {
    "10.244.0.0/16".to_owned()
}

fn default_service_cidr() -> String {
    "10.96.0.0/16".to_owned()
}

/// The control plane's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlane {
    /// How many there are: 1, 3, 5 or 7. Each runs a member of etcd, which needs more than half of them to be alive: 3 bear the loss of one, 5 of two, 7 of
    /// three. An even number would bear no more than the odd one below it.
    #[schemars(with = "i32")]
    #[x_kube(validation = rules::control_plane_replicas())]
    pub replicas: u32,

    /// How its machines come to run what is wanted.
    #[serde(default, skip_serializing_if = "ControlPlaneUpgrade::is_default")]
    pub upgrade: ControlPlaneUpgrade,

    /// Any text, such as a date: when it changes, every control-plane machine is replaced by a new one, one after the other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub replace_request: String,
}

/// A pool of worker machines that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name: a DNS label of at most 20 characters, unique within the cluster. Machines are called `<cluster>-<pool>-<number>`. cp is the control plane's.
    #[schemars(schema_with = "schemas::pool_name")]
    pub name: String,

    /// How many machines it has. Left out, the NodePool object `<cluster>-<pool>` decides: it starts at 1 and can be scaled by `kubectl scale nodepool`, a
    /// HorizontalPodAutoscaler or a cluster autoscaler. Given, this field decides, and a scaled NodePool is set back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>", range(min = 0, max = 1000))]
    pub replicas: Option<u32>,

    /// Labels that its Nodes carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schemas::node_labels")]
    pub labels: BTreeMap<String, String>,

    /// Taints that its Nodes carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["key", "effect"]))]
    pub taints: Vec<Taint>,

    /// How many seconds a machine that is taken away may wait for PodDisruptionBudgets while it is drained, for its pods to end and for their volumes to be
    /// detached. When they are over, it goes all the same. 0 waits for ever.
    #[serde(default = "default_drain_timeout")]
    #[schemars(with = "i32", range(min = 0, max = 604_800))]
    pub drain_timeout_seconds: u32,

    /// The Kubernetes version of its nodes, where it is to stay behind the control plane's: at most three minor versions older, never newer. Left out: the
    /// Cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::supported_pool_version())]
    pub kubernetes_version: Option<String>,

    /// How its machines come to run what is wanted.
    #[serde(default, skip_serializing_if = "PoolUpgrade::is_default")]
    pub upgrade: PoolUpgrade,

    /// Any text, such as a date: when it changes, every machine of the pool is replaced by a new one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub replace_request: String,

    /// When a machine of it counts as failed and is replaced.
    #[serde(default, skip_serializing_if = "HealthCheck::is_default")]
    pub health_check: HealthCheck,
}

/// When a machine counts as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// After so many seconds of its agent's silence a machine is replaced, if its cloud or its Node's Ready condition agrees.
    #[serde(default = "agent_silent_seconds")]
    #[schemars(with = "i32", range(min = 10, max = 86_400))]
    pub agent_silent_seconds: u32,
    /// Node conditions that must not last, such as Ready being False for 600 seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub node_conditions: Vec<NodeCondition>,
    /// How many machines of the pool are replaced at once for their health: a number, or a percentage (rounded up).
    #[serde(default = "fifth")]
    #[schemars(schema_with = "schemas::amount")]
    pub max_replacing: Amount,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { agent_silent_seconds: agent_silent_seconds(), node_conditions: vec![], max_replacing: fifth() }
    }
}

impl HealthCheck {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn agent_silent_seconds() -> u32 {
    30
}

fn fifth() -> Amount {
    Amount::String("20%".to_owned())
}

/// A Node condition that makes its machine failed when it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCondition {
    /// Its type, e.g. Ready or DiskPressure.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// The status that must not last.
    #[schemars(schema_with = "schemas::condition_status")]
    pub status: String,
    /// For how many seconds it may last.
    #[schemars(with = "i32", range(min = 30, max = 86_400))]
    pub seconds: u32,
}

impl Pool {
    /// Seconds that a drain may wait where nothing is said.
    pub const DRAIN_TIMEOUT_SECONDS: u32 = 300;
}

fn default_drain_timeout() -> u32 {
    Pool::DRAIN_TIMEOUT_SECONDS
}

/// A taint of a pool's Nodes: pods that do not tolerate it stay away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Its key, a qualified name such as example.com/dedicated.
    #[schemars(length(max = 317))]
    #[x_kube(validation = rules::taint_key())]
    pub key: String,
    /// Its value: at most 63 letters, digits, '-', '_' and '.'; it may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::taint_value())]
    pub value: String,
    /// NoSchedule: nothing new comes. PreferNoSchedule: little comes. NoExecute: what is there goes, too.
    #[schemars(schema_with = "schemas::taint_effect")]
    pub effect: TaintEffect,
}

/// Versions of components, with the leading v. Only versions that the catalogue lists for the Kubernetes version can be had: `slipway artifacts list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentVersions {
    /// etcd's, e.g. v3.6.14. It can be raised, and lowered only to call an upgrade off that is not over, within a minor version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::component_version("etcd", 3, "v3.6.14"), validation = rules::no_etcd_minor_skipped())]
    pub etcd: Option<String>,
    /// containerd's, e.g. v2.3.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = rules::component_version("containerd", 2, "v2.3.4"))]
    pub containerd: Option<String>,
}

impl ComponentVersions {
    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
