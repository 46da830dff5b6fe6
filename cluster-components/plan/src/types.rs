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

use crate::{ActionKey, AgentFacts, CloudFacts, EtcdFacts, MemberId, NodeFacts, PreflightFacts, SnapshotFacts};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_model::{MachineName, MachineVersions, PlanDigest, PoolName};
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
    /// etcd's members, as a quorum of them says (a linearizable read through any agent's tunnel). Unknown until the cluster is bootstrapped, and whenever
    /// no quorum answers.
    pub etcd: Fact<EtcdFacts>,
    /// Snapshots of this cluster's etcd that were taken or begun.
    pub snapshots: Fact<Vec<SnapshotFacts>>,
    /// What would speak against an upgrade. Looked at only while one is wanted and not begun: `Unknown` otherwise.
    pub preflight: Fact<PreflightFacts>,
    /// Agents of the machines that have an instance. A machine that is missing here was not asked yet.
    pub agents: BTreeMap<MachineName, AgentFacts>,
    /// What each machine should be told, as the digest of its rendered plan. Missing while something that it is made of is not known (certificates,
    /// the endpoint; for a founder the addresses of all founders; for a later member its recorded [`JoinRecord`]). Rendered for the versions in the
    /// Machine record, not those in the spec, and without API server and controllers where the record says `retiring`.
    pub wanted: BTreeMap<MachineName, PlanDigest>,
    /// The build of the agent that the operator gives new machines, as the sha256 of its file. `None`: not known, so no agent is exchanged.
    pub wanted_agent: Option<String>,
    /// How long a certificate lives that the operator signs for an agent.
    pub agent_certificate_life: SignedDuration,
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
    /// Recorded: the upgrade that was begun and is not over.
    pub upgrade: Option<UpgradeRecord>,
}

/// An upgrade that was begun. It ends when every control-plane machine runs what the spec says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UpgradeRecord {
    /// What the control plane ran before.
    pub from: MachineVersions,
    /// What it shall run.
    pub to: MachineVersions,
    /// Name of the snapshot that was taken before anything changed.
    pub snapshot: String,
    /// When it was begun.
    pub since: Timestamp,
    /// A step failed: the roll stands still, and the machine was told its old versions again. Goes when `to` changes.
    pub stopped: Option<StoppedRoll>,
}

/// Why a roll stands still.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoppedRoll {
    /// Which machine did not come back.
    pub machine: MachineName,
    /// Which part of it was changed.
    pub part: slipway_model::Part,
    /// What it said.
    pub why: String,
    /// When.
    pub since: Timestamp,
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
    /// The machine's leaf certificates.
    pub certificates: Certificates,
    /// The certificates before these, which the machine may still have, are in the last tenth of their life: what it is told now waits for no window.
    /// No more as soon as it was given anything with these.
    pub pressing: bool,
}

/// A machine's leaf certificates: for its addresses (and the endpoint, for a control plane), or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Certificates {
    /// There are none that are valid for what the machine is.
    #[default]
    Missing,
    /// More than a third of their life is left.
    Good,
    /// A third is left. Other certificates are another configuration, which restarts what uses them: they are renewed when machines may be disturbed.
    Due,
    /// A tenth is left: they are renewed whatever the hour.
    Overdue,
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
    /// What it is told to run. Changed by [`Action::SetVersions`](crate::Action), one part at a time, before the machine is.
    pub versions: MachineVersions,
    /// When `versions` was last changed, and what it was before. `None`: never since it was made.
    pub changed: Option<VersionChange>,
    /// Of what only a new machine can bring, as it was made with.
    pub revision: String,
    /// Recorded: how its etcd member joins a cluster that was founded before. `None` for founders and for those that have not joined yet.
    pub join: Option<JoinRecord>,
    /// Recorded, for good: it is leaving the control plane and is told to run neither API server nor controllers.
    pub retiring: bool,
    /// A person wants to look at it if it fails: it is replaced, but neither powered off nor deleted while this stands.
    pub kept: bool,
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

/// A change of a machine's versions that may have to be undone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionChange {
    /// What it was told to run before.
    pub from: MachineVersions,
    /// When that changed.
    pub at: Timestamp,
}

/// How an etcd member joins: written down together with its id before its machine is configured, so that it is rendered the same ever after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JoinRecord {
    /// The id that etcd gave it.
    pub member: MemberId,
    /// All members when it was added, itself included, by name and peer address: its `--initial-cluster`.
    pub members: BTreeMap<MachineName, Ipv4Addr>,
}

/// An instance as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceRef {
    /// The cloud's id.
    pub id: String,
    /// Address of agent and kubelet.
    pub address: Ipv4Addr,
    /// Where it stands, where the cloud has zones: of a machine that is gone nobody else says it any more.
    pub zone: Option<String>,
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
