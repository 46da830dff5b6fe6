//! A validated cluster. Made by the operator's `validate` from a Cluster object and by nothing else.

use crate::{ClusterName, KubernetesVersion, Network, PoolName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a cluster's machines run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Provider {
    /// Machines on one Linux host, made by `slipway-local`.
    Local {},
}

/// What happens to the machines when the Cluster object is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// Everything is removed.
    #[default]
    Delete,
    /// The cloud side and the cluster's Secrets stay; only the records go.
    Orphan,
}

/// Versions held back or forward by the user, beside the catalogue's choice for the Kubernetes version. With leading `v`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ComponentVersions {
    /// etcd's.
    pub etcd: Option<String>,
    /// containerd's.
    pub containerd: Option<String>,
}

/// The control plane's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlane {
    /// 1, 3, 5 or 7.
    pub replicas: u32,
}

/// What a taint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Nothing new is scheduled there.
    NoSchedule,
    /// Avoided where possible.
    PreferNoSchedule,
    /// What is there is evicted.
    NoExecute,
}

impl TaintEffect {
    /// As the Kubernetes API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint of every Node of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Taint {
    /// Key, a qualified name.
    pub key: String,
    /// Value, possibly empty.
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

/// A pool of worker machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Unique within the cluster, never `cp`.
    pub name: PoolName,
    /// `None`: the NodePool object decides (and starts at 1).
    pub replicas: Option<u32>,
    /// Labels of its Nodes.
    pub labels: BTreeMap<String, String>,
    /// Taints of its Nodes.
    pub taints: Vec<Taint>,
    /// How long a drain may wait for disruption budgets, in seconds. `0` waits for ever.
    pub drain_timeout_seconds: u32,
}

/// What the user wants, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: ClusterName,
    /// The version of its control plane and, in this release, of all its pools.
    pub kubernetes_version: KubernetesVersion,
    /// Where it runs.
    pub provider: Provider,
    /// Its address ranges.
    pub network: Network,
    /// Its control plane.
    pub control_plane: ControlPlane,
    /// Its workers, in the user's order.
    pub pools: Vec<Pool>,
    /// Versions the user holds.
    pub component_versions: ComponentVersions,
    /// What deletion means.
    pub deletion_policy: DeletionPolicy,
}
