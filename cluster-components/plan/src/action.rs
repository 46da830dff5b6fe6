//! What the executor can do: every effect on the outside world, each safe to repeat, each with the check that is made at its target.
//!
//! The actions of one [`Plan`](crate::Plan) are independent: they may run concurrently and in any order, and any of them may be left out, fail,
//! or be carried out without anybody hearing of it.
//! An executor may begin the next pass while some still run and skips those whose [`Action::key`] is running; those that [`Action::chooses`] must
//! have ended before, because their choice depends on what they change.

mod key;

pub use key::{ActionKey, ActionKind};

use crate::{Endpoint, InstanceRef, MemberId, Ordinals, PodKey, UpgradeRecord};
use serde::{Deserialize, Serialize};
use slipway_model::{MachineName, MachineVersions, PlanDigest, PoolName};
use std::net::Ipv4Addr;

/// Why the planner itself takes a machine away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Removal {
    /// Its pool wants fewer.
    ScaleDown,
    /// Its pool is no longer in the Cluster.
    PoolRemoved,
    /// It is dead and will be replaced.
    Dead,
    /// The founding of the control plane failed and is begun anew with new machines.
    FoundingFailed,
    /// It runs, or is made of, what is not wanted any more, and a new machine takes its place.
    Outdated,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "a plan has a handful of actions, and a box in one variant would be in everybody's way")]
pub enum Action {
    /// Puts our finalizer on the Cluster. Safe to repeat: it is there or not. Always the first: nothing outside is made before.
    AddFinalizer,
    /// Makes `<cluster>-pki`. Safe to repeat: create-only, "already exists" is success; the keys that are there stay.
    /// (Secrets carry no ownerReference, or an orphaned cluster would lose them.)
    CreatePki,
    /// Makes the network. Safe to repeat: keyed by the cluster's UID. Check at the target: the Cluster exists with this UID and is not being deleted.
    EnsureNetwork,
    /// Makes the load balancer. Safe to repeat: keyed by the cluster's UID. Check at the target: as [`Action::EnsureNetwork`].
    EnsureLoadBalancer {
        /// Front and back port.
        port: u16,
    },
    /// Writes the endpoint into the Cluster. Safe to repeat: only where none is recorded.
    RecordEndpoint {
        /// The load balancer's.
        endpoint: Endpoint,
    },
    /// Tells the load balancer its targets. Safe to repeat: the whole list.
    SetTargets {
        /// Instance ids, sorted.
        instances: Vec<String>,
    },
    /// Makes a NodePool object. Safe to repeat: named, "already exists" is success.
    CreatePool {
        /// Which.
        pool: PoolName,
        /// `spec.replicas`.
        replicas: u32,
    },
    /// Sets a NodePool's replicas to what the Cluster says, with an Event that says so. Safe to repeat: uid and old value are the precondition.
    SetPoolReplicas {
        /// Which.
        pool: PoolName,
        /// Precondition.
        uid: String,
        /// Precondition: what it is now.
        from: u32,
        /// What the Cluster says.
        to: u32,
    },
    /// Deletes a NodePool object and takes our finalizer off. Safe to repeat: uid is the precondition, "not found" is success.
    RemovePool {
        /// Which.
        pool: PoolName,
        /// Precondition.
        uid: String,
    },
    /// Hands out ordinals, or settles them, in the Cluster record. Safe to repeat: compare-and-swap on `from`.
    SetOrdinals {
        /// Which pool.
        pool: PoolName,
        /// Precondition.
        from: Ordinals,
        /// New.
        to: Ordinals,
    },
    /// Makes a Machine object (with our finalizer from birth): the record. Safe to repeat: named, "already exists" is success.
    /// Check at the target: the Cluster exists with its UID, is not being deleted, and its book says that the ordinal is open (`settled..next`).
    CreateMachine {
        /// Its name.
        machine: MachineName,
        /// Its pool.
        pool: PoolName,
        /// Its ordinal.
        ordinal: u32,
        /// What it is made to run.
        versions: MachineVersions,
        /// Of what only a new machine can bring.
        revision: String,
    },
    /// Writes what a machine shall run from now on into its record: the machine itself is changed by the [`Action::ApplyPlan`] that follows from it.
    /// Safe to repeat: uid and `from` are the precondition.
    /// Check at the target: with all Machines of the cluster as read now, no version skew is broken by it, and no other machine of the control plane is
    /// half changed.
    SetVersions {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// Precondition.
        from: MachineVersions,
        /// New.
        to: MachineVersions,
    },
    /// Writes the upgrade (its beginning, its end, that it stopped) into the Cluster record. Safe to repeat: compare-and-swap on `from`.
    RecordUpgrade {
        /// Precondition.
        from: Option<UpgradeRecord>,
        /// New.
        to: Option<UpgradeRecord>,
    },
    /// Takes a snapshot of etcd from a member, stores and verifies it, and records it in an EtcdSnapshot object, which is made first. Safe to repeat:
    /// a complete one is left alone.
    TakeSnapshot {
        /// The object's name.
        snapshot: String,
        /// From whose member.
        machine: MachineName,
    },
    /// Adds a machine's etcd member as a learner and writes its [`JoinRecord`](crate::JoinRecord) into the Machine. Safe to repeat: a member with its peer
    /// address that has never started is the one.
    /// Check at the target, by a linearizable member list read now: no other learner, every voter answers; the Machine has this uid, is not being deleted
    /// and has no join recorded.
    AddMember {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// Its peer address.
        address: Ipv4Addr,
    },
    /// Makes a learner a voter. Safe to repeat: a voter is left alone. etcd itself refuses one that is not in sync.
    PromoteMember {
        /// On which machine.
        machine: MachineName,
        /// Which.
        member: MemberId,
    },
    /// Removes a member. Safe to repeat: "not found" is success.
    /// Check at the target, by a linearizable member list and statuses read now: the voters that answer, this one left out, are a quorum of the voters
    /// that remain; and if it answers, it does not lead. No other Machine that stays is its, by name, by recorded join or, if it has never
    /// started, by address (read now: an old view may take it for the member of a machine that is gone and had that address).
    /// And a voter only while no learner is about to start for the first time: it was told of exactly the members that there are.
    RemoveMember {
        /// On which machine it is, or was.
        machine: Option<MachineName>,
        /// Which.
        member: MemberId,
    },
    /// Hands etcd's leadership over before its leader is stopped. Safe to repeat: one that does not lead is left alone.
    MoveLeader {
        /// From which machine.
        machine: MachineName,
        /// From which member.
        from: MemberId,
        /// To which, a voter that answers.
        to: MemberId,
    },
    /// Writes into a control plane's record that it is leaving: it is told to stop its API server and controllers. Safe to repeat; never undone.
    /// Check at the target: its Machine carries a deletionTimestamp.
    Retire {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
    },
    /// Lets pods come to a Node again that was cordoned to change its machine. Safe to repeat: uid is the precondition; one that a person cordoned stays.
    Uncordon {
        /// Whose Node.
        machine: MachineName,
        /// Its name.
        node: String,
        /// Precondition.
        uid: String,
    },
    /// Makes `<machine>-bootstrap`: token and user data, frozen before the first create call. Safe to repeat: create-only.
    IssueBootstrap {
        /// Which.
        machine: MachineName,
        /// Its uid.
        uid: String,
    },
    /// Asks the cloud for the machine. Safe to repeat: keyed by the Machine's uid, with frozen user data.
    /// Check at the target: a quorum read of the Machine shows this uid, not being deleted, and no recorded instance.
    CreateInstance {
        /// Which.
        machine: MachineName,
        /// Its uid, the idempotency key.
        uid: String,
    },
    /// Writes the instance into the Machine record. Safe to repeat: only where none is recorded, or its zone is not; uid is the precondition.
    RecordInstance {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// What the cloud made.
        instance: InstanceRef,
    },
    /// Starts a powered-off instance. Safe to repeat: one that runs stays as it is.
    StartInstance {
        /// Which machine's.
        machine: MachineName,
        /// The cloud's id.
        instance: String,
    },
    /// Makes the machine's leaf certificates for its address (and the endpoint) and keeps them. Safe to repeat: create-only.
    IssueCertificates {
        /// Which.
        machine: MachineName,
        /// Its uid.
        uid: String,
    },
    /// Writes the founders into the Cluster record. Safe to repeat: compare-and-swap on `from`, refused once bootstrapped.
    /// Check at the target: each founder's Machine exists and is not being deleted, and none of `from` exists any more (quorum reads).
    RecordFounders {
        /// Precondition.
        from: Vec<MachineName>,
        /// Sorted.
        founders: Vec<MachineName>,
    },
    /// Claims the agent with the one-time token, makes the first mTLS call, pins its key in the record. Safe to repeat: until that first call by
    /// protocol; after it the executor finds the agent answering over mTLS and only the record is missing.
    Claim {
        /// Which.
        machine: MachineName,
        /// Its uid.
        uid: String,
        /// Where it is.
        address: Ipv4Addr,
    },
    /// Deletes `<machine>-bootstrap` after the claim. Safe to repeat: "not found" is success.
    DropBootstrap {
        /// Which.
        machine: MachineName,
    },
    /// Hands the agent its rendered plan. Safe to repeat: compare-and-swap on the digest last accepted, by uid and epoch.
    /// Check at the target: what is rendered now still has the digest `wanted`; with all Machines as read now no version skew is broken by its following
    /// what it was told; and where a control plane gets its first (`expected` is `None`), that
    /// the Cluster is not recorded as bootstrapped, or that its Machine records a join, is not being deleted, and etcd's member of that id is a learner
    /// that has never started.
    ApplyPlan {
        /// Which.
        machine: MachineName,
        /// Its uid.
        uid: String,
        /// Precondition: what the agent last accepted.
        expected: Option<PlanDigest>,
        /// What it gets.
        wanted: PlanDigest,
    },
    /// Lets an agent try another build of itself, which stays only if it is reached over mTLS. Nothing else on the machine is touched. Safe to repeat:
    /// compare-and-swap on the build that runs; one that is on trial is left alone.
    /// Check at the target: every other machine's agent answers, none of them is on trial, and none has refused this build; the agent itself refuses what
    /// it refused before.
    UpdateAgent {
        /// Whose.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// Precondition: the build that runs.
        from: String,
        /// The build to try.
        to: String,
    },
    /// Signs a new certificate for an agent's key. Safe to repeat: the next one counts. Check at the target: the key is the one that was pinned.
    RenewAgentCertificate {
        /// Whose.
        machine: MachineName,
        /// Precondition.
        uid: String,
    },
    /// Writes "etcd had a quorum" into the Cluster record, for good. Safe to repeat. Precondition: the same founders.
    /// Check at the target: each founder's Machine exists and is not being deleted (quorum reads).
    RecordBootstrapped {
        /// Precondition.
        founders: Vec<MachineName>,
    },
    /// Makes or mends `<cluster>-kubeconfig`. Safe to repeat: the same endpoint and authority; a usable one is left alone.
    WriteKubeconfig,
    /// Applies the addons to the cluster by server-side apply and notes their digest when all are in. Safe to repeat.
    ApplyAddons {
        /// Their digest.
        wanted: String,
    },
    /// Sets a Node's labels and taints by server-side apply. Safe to repeat: uid is the precondition.
    LabelNode {
        /// Whose Node.
        machine: MachineName,
        /// Its name.
        node: String,
        /// Precondition.
        uid: String,
    },
    /// Deletes a Machine object, whose finalizer keeps it until the machine is gone. Safe to repeat: uid is the precondition.
    /// Check at the target, for [`Removal::FoundingFailed`]: the Cluster is not recorded as bootstrapped; for [`Removal::Dead`]: an inventory read now does
    /// not show its instance running, or its agent is (still) not heard, or its agent says that it knows no plan although its etcd member once started.
    DeleteMachine {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// Why.
        why: Removal,
    },
    /// Marks a Node unschedulable, with the time beside it where it is to come back. Safe to repeat: uid is the precondition.
    Cordon {
        /// Whose Node.
        machine: MachineName,
        /// Its name.
        node: String,
        /// Precondition.
        uid: String,
        /// It is changed in place and uncordoned afterwards.
        returns: bool,
    },
    /// Evicts a pod through the Eviction API. Safe to repeat: the pod's uid is the precondition; "not found" is success; a budget's refusal is a
    /// failure like any other, tried again later.
    Evict {
        /// From whose Node.
        machine: MachineName,
        /// Which.
        pod: PodKey,
    },
    /// Removes a recorded machine's instance. Safe to repeat: "not found" is success.
    /// Check at the target: the Cluster carries a deletionTimestamp; or [`may_be_deleted`](crate::may_be_deleted) says so of the Machine, its Node,
    /// pods and volumes, and its agent as they are now.
    DeleteInstance {
        /// Which machine's.
        machine: MachineName,
        /// The cloud's id.
        instance: String,
    },
    /// Removes an instance that no record speaks of (a create call that came through late, a record removed by force). Safe to repeat.
    /// Check at the target: a quorum read of the Machine by name finds none with this uid (uids never come back, so none will appear), and if it is a
    /// control plane's of a Cluster that is recorded as bootstrapped, no member of etcd has its name or its address, by a linearizable list read now.
    DeleteStrayInstance {
        /// The name it was made for.
        machine: MachineName,
        /// The uid it was made for.
        machine_uid: String,
        /// The cloud's id.
        instance: String,
    },
    /// Deletes a Node whose instance is gone. Safe to repeat: uid is the precondition, "not found" is success.
    DeleteNode {
        /// Whose Node.
        machine: MachineName,
        /// Its name.
        node: String,
        /// Precondition.
        uid: String,
    },
    /// Deletes a Machine's Secrets (unless orphaned) and object, and takes the finalizer off: nothing of the machine is left (or, orphaned, all of it stays).
    /// Safe to repeat: uid is the precondition, "not found" is success.
    /// Check at the target: the Cluster carries a deletionTimestamp; or the Machine does, and if it is a control plane's of a Cluster that is recorded
    /// as bootstrapped, [`is_no_member`](crate::is_no_member) says so of etcd's members as they are now, and (unless orphaned) an inventory read now has no
    /// instance for it.
    RemoveMachine {
        /// Which.
        machine: MachineName,
        /// Precondition.
        uid: String,
        /// Whether its Secrets stay.
        keep_secrets: bool,
    },
    /// Removes the load balancer. Safe to repeat.
    DeleteLoadBalancer,
    /// Removes the network. Safe to repeat; refused by the cloud while something is in it.
    DeleteNetwork,
    /// Deletes every Secret of the cluster (and the finalizer of the PKI's). Safe to repeat.
    DeleteSecrets,
    /// Takes our finalizer off the Cluster. Safe to repeat. Always the last.
    /// Check at the target: no other action of this cluster is running, and an inventory and lists of its Machines, NodePools and Secrets read after that
    /// are empty (orphaned: those of Machines and NodePools).
    RemoveFinalizer,
}
