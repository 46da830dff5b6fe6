//! A validated cluster. Made by the operator's `validate` from a Cluster object and by nothing else.

use crate::{Allow, ClusterName, HealthCheck, KubernetesVersion, MachineVersions, Maintenance, Network, PoolName, PoolUpgrade, Strategy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// The control plane's machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPlane {
    /// 1, 3, 5 or 7.
    pub replicas: u32,
    /// What its machines shall come to run, the catalogue's choices and the user's applied.
    pub versions: MachineVersions,
    /// How outdated machines come to run it.
    pub strategy: Strategy,
    /// What may be done to machines on the way.
    pub allow: Allow,
    /// Of what only a new machine can bring; a machine recorded with another one is to be replaced.
    pub revision: String,
}

/// How careful changes are: it follows from the place where the machines run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// How many times in a row a machine's probes must have been good before the next one is touched, asked every [`Pace::PROBED_EVERY`].
    pub soak_probes: u32,
    /// How long a changed machine may take to be well again before the roll stops.
    pub step_timeout_seconds: u32,
}

impl Pace {
    /// Of machines on one host.
    pub const LOCAL: Self = Self { soak_probes: 3, step_timeout_seconds: 120 };

    /// How often an agent asks what is not well, or has not been for long.
    pub const PROBED_EVERY: Duration = Duration::from_millis(200);

    /// For how long a machine's probes must have been good before the next one is touched.
    #[must_use]
    pub fn soak(&self) -> Duration {
        Self::PROBED_EVERY.saturating_mul(self.soak_probes)
    }
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
    /// What its machines shall come to run; never newer than the control plane's target.
    pub versions: MachineVersions,
    /// How they come to run it, and how many at once.
    pub upgrade: PoolUpgrade,
    /// What may be done to machines on the way.
    pub allow: Allow,
    /// See [`ControlPlane::revision`].
    pub revision: String,
    /// When a machine of it counts as failed.
    pub health: HealthCheck,
}

/// What the user wants, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: ClusterName,
    /// The version of its control plane and of every pool that names none.
    pub kubernetes_version: KubernetesVersion,
    /// Where it runs.
    pub provider: Provider,
    /// Its address ranges.
    pub network: Network,
    /// Its control plane.
    pub control_plane: ControlPlane,
    /// Its workers, in the user's order.
    pub pools: Vec<Pool>,
    /// What deletion means.
    pub deletion_policy: DeletionPolicy,
    /// When machines may be disturbed.
    pub maintenance: Maintenance,
    /// APIs that a new version does not serve any more and whose use holds no upgrade up: `group/version resource`.
    pub ignored_apis: BTreeSet<String>,
    /// How careful changes are.
    pub pace: Pace,
}

impl ClusterSpec {
    /// What the machines of a pool, or of the control plane, shall come to run. `None` if it is no pool of the cluster.
    #[must_use]
    pub fn target(&self, pool: &PoolName) -> Option<MachineVersions> {
        if pool.is_control_plane() {
            return Some(self.control_plane.versions);
        }
        self.pools.iter().find(|p| p.name == *pool).map(|p| p.versions)
    }
}
