//! What a cluster's loop keeps between passes: connections, keys, running effects, failures. Nothing in it is the truth: an operator that starts with an
//! empty one only has to connect anew.

use crate::agents::AgentPool;
use crate::bell::{Bell, Kinds};
use crate::context::ClusterRef;
use crate::etcd::EtcdLink;
use crate::execute::Running;
use crate::failures::Failures;
use crate::keys::Keys;
use crate::observe::lists::Kept;
use crate::observe::{CloudWatch, PreflightLook};
use crate::report::Reported;
use crate::workload::WorkloadLink;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use slipway_cloud_api::ClusterKey;
use slipway_crds::{EtcdSnapshot, Machine, NodePool};
use slipway_model::{MachineName, PlanDigest};
use slipway_plan::ActionKey;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One cluster's.
pub struct Memory {
    /// Whose.
    pub cluster: ClusterRef,
    /// Wakes its loop.
    pub bell: Arc<Bell>,
    /// Its UID and name, once read.
    pub key: Option<ClusterKey>,
    /// Connections to its machines.
    pub agents: AgentPool,
    /// The connection to its API, and what it was opened for.
    pub workload: Option<(String, WorkloadLink)>,
    /// The ways to its etcd, and what they were opened for.
    pub etcd: Option<(String, EtcdLink)>,
    /// Looks at what speaks against an upgrade while one is wanted, and what for it was begun.
    pub preflight: Option<(String, PreflightLook)>,
    /// Long poll at the cloud.
    pub cloud_watch: Option<CloudWatch>,
    /// Its authorities, as last read.
    pub keys: Option<Arc<Keys>>,
    /// Its Machines, as last read.
    pub machines: Kept<Machine>,
    /// Its NodePools.
    pub pools: Kept<NodePool>,
    /// Its Secrets' metadata.
    pub secrets: Kept<PartialObjectMeta<Secret>>,
    /// Snapshots of its etcd.
    pub snapshots: Kept<EtcdSnapshot>,
    /// Digests of rendered plans, with what they were rendered from.
    pub digests: BTreeMap<MachineName, (String, PlanDigest)>,
    /// What failed lately.
    pub failures: Failures<ActionKey>,
    /// Effects that have begun and not ended.
    pub running: Running,
    /// What was last written into statuses.
    pub reported: Reported,
    /// Since when a part of the world cannot be seen.
    unseen: BTreeMap<&'static str, Timestamp>,
}

impl Memory {
    /// An empty one.
    #[must_use]
    pub fn new(cluster: ClusterRef, bell: Arc<Bell>) -> Self {
        Self {
            cluster,
            bell,
            key: None,
            agents: AgentPool::default(),
            workload: None,
            etcd: None,
            preflight: None,
            cloud_watch: None,
            keys: None,
            machines: Kept::new(Kinds::MACHINES),
            pools: Kept::new(Kinds::POOLS),
            secrets: Kept::new(Kinds::SECRETS),
            snapshots: Kept::new(Kinds::SNAPSHOTS),
            digests: BTreeMap::new(),
            failures: Failures::default(),
            running: Running::default(),
            reported: Reported::default(),
            unseen: BTreeMap::new(),
        }
    }

    /// Nothing will happen for a while: what would be too old by then is forgotten.
    pub fn rest(&mut self) {
        self.machines.rest();
        self.pools.rest();
        self.secrets.rest();
        self.snapshots.rest();
    }

    /// A pass that panicked may have left caches half-changed: they are made anew. Running effects and failures stay.
    pub fn after_panic(&mut self) {
        self.agents = AgentPool::default();
        self.workload = None;
        self.etcd = None;
        self.preflight = None;
        self.keys = None;
        self.rest();
        self.digests.clear();
    }

    /// The Cluster is another one than before: nothing that is known belongs to it.
    pub fn forget_everything(&mut self) {
        *self = Self::new(self.cluster.clone(), self.bell.clone());
    }

    /// Notes whether a part of the world was seen; gives since when it was not.
    pub fn seen(&mut self, part: &'static str, seen: bool, now: Timestamp) -> Timestamp {
        if seen {
            self.unseen.remove(part);
            return now;
        }
        *self.unseen.entry(part).or_insert(now)
    }
}
