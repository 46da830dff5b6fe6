//! What the outside world says of itself: the cloud's inventory, agents, Nodes and their pods. Parts of [`Observed`](crate::Observed).

use crate::{Endpoint, Fact, JoinRecord, MachineRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_model::{ComponentVersion, MachineName, MachineVersions, PlanDigest};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

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

    /// The instance that a Machine is: the recorded one, as soon as one is recorded. A create call that came through late, after that was gone, made another
    /// one, which nobody claims: it goes with the Machine's record.
    #[must_use]
    pub fn instance(&self, machine: &MachineRecord) -> Option<&InstanceFacts> {
        let recorded = |i: &&InstanceFacts| machine.instance.as_ref().is_none_or(|at| at.id == i.id);
        self.instances.iter().filter(|i| i.machine_uid == machine.uid).find(recorded)
    }

    /// What was made for a Machine.
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
    /// Where it stands, where the cloud has zones.
    pub zone: Option<String>,
    /// Why it is not what it should be, where the cloud knows.
    pub trouble: Option<String>,
}

/// etcd's own number of a member: 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// etcd's membership and how its members are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct EtcdFacts {
    /// Voters and learners, by id.
    pub members: Vec<MemberFacts>,
    /// Alarms that are raised, as etcd names them (`NOSPACE`, `CORRUPT`), with the member.
    pub alarms: Vec<(MemberId, String)>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberFacts {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty while it was added and has never started.
    pub name: String,
    /// Address in its peer URL. Whose machine it is, its name says: clouds use addresses again.
    pub peer: Ipv4Addr,
    /// It does not vote yet.
    pub learner: bool,
    /// What it says when asked itself; `Unknown` where it does not answer (then `since` says for how long).
    pub status: Fact<MemberStatus>,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its program's version.
    pub version: ComponentVersion,
    /// It leads.
    pub leader: bool,
    /// It has applied at least nine tenths of what the leader has: etcd promotes no learner before.
    pub in_sync: bool,
    /// Since when it has answered without a break.
    pub healthy_since: Timestamp,
    /// Size of its database, in bytes.
    pub db_bytes: u64,
}

impl EtcdFacts {
    /// Members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &MemberFacts> {
        self.members.iter().filter(|m| !m.learner)
    }

    /// The member that leads, if any says so.
    #[must_use]
    pub fn leader(&self) -> Option<&MemberFacts> {
        self.members.iter().find(|m| m.status.known().is_some_and(|s| s.leader))
    }

    /// A learner that has never started. It starts only if etcd still has exactly the members that it was told of, so until then none may go.
    #[must_use]
    pub fn starting(&self) -> Option<&MemberFacts> {
        self.members.iter().find(|m| m.learner && m.name.is_empty())
    }

    /// Whether a joining member was told of exactly the members that there are.
    #[must_use]
    pub fn is_told_by(&self, join: &JoinRecord) -> bool {
        let told: BTreeSet<Ipv4Addr> = join.members.values().copied().collect();
        told == self.members.iter().map(|m| m.peer).collect()
    }
}

/// A snapshot of etcd, from its EtcdSnapshot object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotFacts {
    /// The object's name.
    pub name: String,
    /// When it was stored completely and verified; `None` while it is not. An upgrade begins only after one that is younger than the last change.
    pub completed: Option<Timestamp>,
    /// Why not, the last time it was tried.
    pub trouble: Option<String>,
}

/// What would speak against an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PreflightFacts {
    /// The versions that this was looked at for.
    pub to: Option<MachineVersions>,
    /// Uses of APIs that the new version does not serve any more, from the API servers' own metrics: `group/version resource`.
    pub removed_apis: Vec<String>,
    /// Disruption budgets that can never be satisfied (they allow no disruption even when all of their pods are healthy): `namespace/name`.
    pub impossible_budgets: Vec<String>,
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
    /// Free bytes where the machine keeps its state, where the agent says so.
    pub disk_free: Option<u64>,
    /// When the agent's certificate ends, where it says so.
    pub certificate_expires: Option<Timestamp>,
    /// Which build of the agent runs, where it says so: those that do not cannot be exchanged either.
    pub build: Option<AgentBuild>,
}

/// What an agent says of its own program. Builds are named by the sha256 of their file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct AgentBuild {
    /// What runs.
    pub sha256: String,
    /// On trial now: it stays once it was reached, and otherwise the build before it comes back.
    pub trial: Option<String>,
    /// The last one that was tried and did not stay.
    pub refused: Option<RefusedBuild>,
}

/// A build that was tried on a machine and did not stay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RefusedBuild {
    /// Which.
    pub sha256: String,
    /// Why not.
    pub why: String,
    /// When that was.
    pub since: Timestamp,
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
    /// We cordoned it to change its machine in place, then: [`Action::Cordon`](crate::Action) writes the time beside it, and only such a Node is uncordoned.
    pub cordoned: Option<Timestamp>,
    /// `status.nodeInfo.kubeletVersion`, where it is one of ours.
    pub kubelet: Option<slipway_model::KubernetesVersion>,
    /// Conditions other than what `ready` says, with status and last transition: read for pools' health checks.
    pub conditions: Vec<(String, String, Timestamp)>,
    /// Labels and taints are as the pool says (and the role label is there).
    pub labels_ok: bool,
    /// Pods to evict: all but DaemonSets' and mirror pods and finished ones. Read only where the machine is being deleted or the Node is
    /// unschedulable: `Unknown` elsewhere.
    pub pods: Fact<Vec<PodFacts>>,
    /// Volumes that are attached to it, being attached or being detached, by name, but for those that a pod uses which a drain leaves where it is. Read
    /// only where the machine is being deleted and no pod is left to evict: `Unknown` elsewhere.
    pub volumes: Fact<Vec<String>>,
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
