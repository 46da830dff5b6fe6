//! What the planner sees: [`Observed`], filled by the operator's `observe` and by nothing else.
//!
//! # The order of observation
//! Some conclusions compare two parts ("this instance has no record"), and the parts are read one after the other. They are sound in this order only:
//!
//! 1. the **cloud's inventory**, agents, Nodes,
//! 2. the **Cluster** record (its ordinals, founders, flags),
//! 3. the **Machine** and **NodePool** records and Secrets, at least as fresh as every write this operator has made.
//!
//! A Machine is recorded before its instance is asked for and outlives it, so an instance of (1) without a record in (3) had lost its record before
//! it was listed. An ordinal that (2) calls settled was seen as a record once, so a list in (3) that lacks it says that the machine is gone.
//! Whoever leads anew lists everything first. And because a cache can lie all the same, the actions that would do harm name a check that the
//! executor makes at the target, see [`Action`](crate::Action).
//!
//! # Unknown is never absent
//! What could not be read is [`Fact::Unknown`] with its reason. The planner neither creates nor deletes what it cannot see.

use crate::ActionKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_model::{KubernetesVersion, MachineName, PlanDigest, PoolName};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// A part of the world: seen, or not to be seen at the moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fact<T> {
    /// As it was when it was looked at.
    Known(T),
    /// It could not be looked at. That says nothing about what is there.
    Unknown {
        /// Why, for people.
        why: String,
        /// Since when it cannot be seen.
        since: Timestamp,
    },
}

impl<T> Fact<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// The value to change, where it is known.
    pub fn known_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown { .. } => None,
        }
    }

    /// Not seen, and why.
    pub fn unknown(why: impl Into<String>, since: Timestamp) -> Self {
        Self::Unknown { why: why.into(), since }
    }
}

/// All that a plan is made from, beside the spec and the time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observed {
    /// The Cluster object beside its spec.
    pub cluster: ClusterFacts,
    /// The cluster's Secrets (their presence; never their contents).
    pub secrets: Fact<SecretFacts>,
    /// NodePool objects of this cluster.
    pub pools: Fact<Vec<PoolRecord>>,
    /// Machine objects of this cluster.
    pub machines: Fact<Vec<MachineRecord>>,
    /// The cloud's inventory of this cluster.
    pub cloud: Fact<CloudFacts>,
    /// Agents of the machines that have an instance. A machine that is missing here was not asked yet.
    pub agents: BTreeMap<MachineName, AgentFacts>,
    /// What each machine should be told, as the digest of its rendered plan. Missing while something that it is made of is not known (certificates,
    /// the endpoint; for a control plane the addresses of all founders). Rendered for the version in the Machine record, not the one in the spec.
    pub wanted: BTreeMap<MachineName, PlanDigest>,
    /// Nodes of the cluster. Unknown until its API answers.
    pub nodes: Fact<Vec<NodeFacts>>,
    /// Digest of the addons (CoreDNS, RBAC, …) that were last applied completely, if any.
    pub addons: Fact<Option<String>>,
    /// Digest of the addons as they should be.
    pub wanted_addons: String,
    /// What failed lately and is left alone for a while.
    pub failures: BTreeMap<ActionKey, Failure>,
}

/// The Cluster object: its metadata and what the operator recorded in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// `metadata.deletionTimestamp`.
    pub deleting: Option<Timestamp>,
    /// Whether our finalizer is on it.
    pub finalizer: bool,
    /// Recorded: where its API is reached. Never changes.
    pub endpoint: Option<Endpoint>,
    /// Recorded: the machines whose etcd members found the cluster, sorted; empty before. Every founder's etcd gets exactly this list as its initial
    /// cluster, and the token `<cluster uid>-<first founder>`: names are never used twice, so neither is a token.
    pub founders: Vec<MachineName>,
    /// Recorded: etcd had a quorum once. From then on nothing is ever founded again.
    pub bootstrapped: bool,
    /// Recorded: which ordinals each pool (`cp` for the control plane) has used up.
    pub ordinals: BTreeMap<PoolName, Ordinals>,
}

/// Where the API is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// An address or a name.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Ordinals of a pool. `settled..next` are handed out but perhaps not yet made: a Machine that is missing among them was never there (its
/// finalizer stays until it is settled), so it is made under the same name. Below `settled`, a missing one is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Ordinals {
    /// Below this, every ordinal has had its Machine, or never will.
    pub settled: u32,
    /// The first that was never handed out.
    pub next: u32,
}

/// Which Secrets there are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SecretFacts {
    /// `<cluster>-pki`, complete.
    pub pki: bool,
    /// `<cluster>-kubeconfig`, for the recorded endpoint.
    pub kubeconfig: bool,
    /// Per machine. A machine without any may be missing.
    pub machines: BTreeMap<MachineName, MachineSecrets>,
}

impl SecretFacts {
    /// Of one machine.
    #[must_use]
    pub fn of(&self, machine: &MachineName) -> MachineSecrets {
        self.machines.get(machine).copied().unwrap_or_default()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.pki && !self.kubeconfig && self.machines.values().all(|m| *m == MachineSecrets::default())
    }
}

/// Secrets of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct MachineSecrets {
    /// `<machine>-bootstrap`: one-time token and the frozen user data.
    pub bootstrap: bool,
    /// The machine's leaf certificates, valid for its addresses (and the endpoint, for a control plane).
    pub certificates: bool,
}

/// A NodePool object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PoolRecord {
    /// The pool's name in the Cluster (the object may be called `<cluster>-<pool>`).
    pub name: PoolName,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Whether it carries a deletionTimestamp.
    pub deleting: bool,
    /// `spec.drainTimeoutSeconds` where the object carries it: used when the pool is gone from the Cluster. 300 s otherwise.
    pub drain_timeout_seconds: Option<u32>,
}

/// A Machine object: the record of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MachineRecord {
    /// `<cluster>-<pool>-<ordinal>`.
    pub name: MachineName,
    /// `metadata.uid`: the idempotency key of its instance.
    pub uid: String,
    /// Its pool; `cp` is the control plane.
    pub pool: PoolName,
    /// Its ordinal.
    pub ordinal: u32,
    /// The Kubernetes version it was made for.
    pub version: KubernetesVersion,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// `metadata.deletionTimestamp` (minus the grace period, i.e. when it was asked for), by the user or by [`Action::DeleteMachine`](crate::Action).
    pub deleting: Option<Timestamp>,
    /// Recorded: its instance.
    pub instance: Option<InstanceRef>,
    /// Recorded: the agent's key was pinned (its token is burnt).
    pub claimed: bool,
}

impl MachineRecord {
    /// Whether it belongs to the control plane.
    #[must_use]
    pub fn is_control_plane(&self) -> bool {
        self.pool.is_control_plane()
    }
}

/// An instance as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceRef {
    /// The cloud's id.
    pub id: String,
    /// Address of agent and kubelet.
    pub address: Ipv4Addr,
}

/// The cloud's inventory, as far as the planner cares.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CloudFacts {
    /// Whether the cluster's network is there.
    pub network: bool,
    /// The load balancer.
    pub load_balancer: Option<LoadBalancerFacts>,
    /// Instances, deleted ones excepted.
    pub instances: Vec<InstanceFacts>,
}

impl CloudFacts {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.network && self.load_balancer.is_none() && self.instances.is_empty()
    }

    /// The instance made for a Machine.
    #[must_use]
    pub fn of(&self, machine_uid: &str) -> Option<&InstanceFacts> {
        self.instances.iter().find(|i| i.machine_uid == machine_uid)
    }
}

/// The load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LoadBalancerFacts {
    /// Where clients connect.
    pub endpoint: Endpoint,
    /// Instance ids it forwards to, sorted.
    pub targets: Vec<String>,
    /// Whether it forwards by now.
    pub ready: bool,
    /// Why not, where the cloud knows.
    pub trouble: Option<String>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InstanceState {
    /// Being made.
    Pending,
    /// Its operating system was started.
    Running,
    /// Powered off; its disk is intact.
    Stopped,
    /// Being removed.
    Deleting,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceFacts {
    /// The cloud's id.
    pub id: String,
    /// The Machine's UID it was made for.
    pub machine_uid: String,
    /// The Machine's name it was made for.
    pub machine: MachineName,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its address.
    pub address: Ipv4Addr,
    /// Why it is not what it should be, where the cloud knows.
    pub trouble: Option<String>,
}

/// What is known of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AgentFacts {
    /// It answers GetInfo under the machine's uid and is not recorded as claimed (its own record may say otherwise: then the claim's last step, our
    /// record, is missing). The operator knocks often while a machine boots, so that no back-off delays the claim.
    Answering,
    /// It does not answer: a fact, not the absence of one.
    Silent {
        /// Since when (since the first try, if it never answered).
        since: Timestamp,
        /// The last error.
        error: String,
        /// What it last said, if it ever did to this operator.
        last: Option<AgentState>,
    },
    /// It is claimed and answers over mTLS.
    Heard(AgentState),
}

impl AgentFacts {
    /// What it says now.
    #[must_use]
    pub fn heard(&self) -> Option<&AgentState> {
        match self {
            Self::Heard(state) => Some(state),
            Self::Answering | Self::Silent { .. } => None,
        }
    }
}

/// What an agent says of its machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct AgentState {
    /// Of the plan it last accepted.
    pub accepted: Option<PlanDigest>,
    /// Of the plan it made completely real.
    pub applied: Option<PlanDigest>,
    /// What it is doing towards it.
    pub applying: String,
    /// The last failure on the way.
    pub trouble: Option<Trouble>,
    /// Units that are not active though they should be, by name.
    pub failing_units: BTreeMap<String, Trouble>,
    /// Probes by name (`etcd`, `kube-apiserver`, …).
    pub probes: BTreeMap<String, ProbeFacts>,
}

impl AgentState {
    /// Whether a probe is there and healthy.
    #[must_use]
    pub fn healthy(&self, probe: &str) -> bool {
        self.probes.get(probe).is_some_and(|p| p.healthy)
    }
}

/// Something that does not go as it should.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Trouble {
    /// What.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// A probe's last answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProbeFacts {
    /// Whether the unit does its work.
    pub healthy: bool,
    /// Why not.
    pub message: String,
    /// Since when it has been so.
    pub since: Timestamp,
}

/// A Node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The Machine it belongs to (by providerID, or by name while it has none); foreign Nodes have none and are left alone.
    pub machine: Option<MachineName>,
    /// Condition Ready is True.
    pub ready: bool,
    /// Last transition of that condition (creation, if it has none).
    pub since: Timestamp,
    /// The condition's message, empty when Ready.
    pub message: String,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Labels and taints are as the pool says (and the role label is there).
    pub labels_ok: bool,
    /// Pods to evict: all but DaemonSets' and mirror pods and finished ones. Read only where the machine is being deleted: `Unknown` elsewhere.
    pub pods: Fact<Vec<PodFacts>>,
}

/// A pod on a Node that is to be drained.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodFacts {
    /// Who.
    pub pod: PodKey,
    /// Evicted, and on its way out.
    pub terminating: bool,
}

/// A pod by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// An action's failures in a row, from the executor's book. A disruption budget's refusal of an eviction is one too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// How many in a row.
    pub attempts: u32,
    /// When the first of the row happened.
    pub since: Timestamp,
    /// When the last happened.
    pub last: Timestamp,
    /// What it said.
    pub error: String,
    /// Not before then.
    pub next_try: Timestamp,
}
