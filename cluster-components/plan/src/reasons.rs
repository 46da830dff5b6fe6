//! Reasons of waits and conditions: one word for programs, a paragraph for people. docs/troubleshooting.md is made from [`Reason::ALL`].

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! reasons {
    ($($name:ident: $explain:literal,)*) => {
        /// Why something waits, or why a condition is what it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $explain] $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As written in the object.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What it means and what to do.
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self {
                    $(Self::$name => $explain,)*
                }
            }
        }
    };
}

reasons! {
    AllReady: "Everything the spec asks for exists and works. Nothing to do.",
    InfrastructureExists: "The network, the load balancer and every machine exist.",
    ApiServersHealthy: "Every API server answers.",
    QuorumOfApiServersHealthy: "The API answers, but not every API server does. `slipway describe` names the machine and the unit that is not healthy; its journal (`slipway logs`) says why.",
    MembersHealthy: "Every etcd member is healthy.",
    QuorumHealthy: "etcd serves reads and writes, but a member is not healthy: one more loss may stop it. Look at the named machine.",
    QuorumLost: "Fewer than half of the etcd members answer, so the API cannot write. Nothing destructive is done. Start the machines again; if they are lost for good, the cluster has to be restored from a backup.",
    WorkersJoined: "Every wanted worker has a Ready Node.",
    NoWorkersWanted: "No pool wants machines.",
    RunsTheSpec: "Every machine runs what the spec says.",
    Settled: "Nothing is being changed.",
    Creating: "The cluster is being made for the first time. `slipway describe` shows every machine and what it waits for.",
    Scaling: "Machines are being added to or taken from a pool.",
    Replacing: "A machine is being replaced, because it is dead or because its Machine object was deleted.",
    Reconfiguring: "A machine gets a changed configuration of the same version, one at a time.",
    Deleting: "The cluster is being deleted: load balancer and machines at once, then the network, then its Secrets and records.",
    Orphaning: "The Cluster was deleted with `deletionPolicy: Orphan`: only the records go; machines, load balancer, network and Secrets stay and are nobody's from now on.",
    Healing: "Something that worked before is being mended.",
    CannotObserve: "A part of the world cannot be seen at the moment (the message says which, and why). What cannot be seen is neither created nor deleted. It goes on by itself when the cause is gone.",
    ActionFailing: "An action failed and is tried again later with growing pauses. The message carries the last error, which names what to mend.",
    MakingNetwork: "The cloud makes the network.",
    MakingLoadBalancer: "The cloud makes the load balancer, or it does not forward yet.",
    MachineStarting: "The cloud makes or boots the machine, or its first-boot script installs the agent. If this lasts more than a minute, look at the machine's console; the first-boot script logs to the journal as slipway-user-data.service.",
    MachineNeverAnswered: "The machine's agent has not answered since the machine was made, longer than any boot should take. Workers are replaced, and control planes that join a cluster; while the control plane is being founded, look at its console. Its first-boot script logs to the journal as slipway-user-data.service.",
    AgentSilent: "The machine's agent answered before and does not any more. A worker is replaced when its Node is NotReady too, or its cloud says that it is powered off; a control plane only if its etcd member does not answer either. The processes on the machine do not need the agent and may be well.",
    MachinePoweredOff: "The cloud says that the machine is powered off. A control plane is started again at once (and replaced if it does not come back within a minute and etcd bears it), and so are workers when many are off together; a single worker is replaced after its grace period.",
    MachineDead: "The worker is dead: its instance is gone, or its agent is silent and a second witness (the cloud, or its Node's Ready condition) agrees. It is replaced.",
    ControlPlaneMachineLost: "etcd has a member whose Machine object is gone: it was removed by force. A new machine takes its place; then the member is removed, and its instance with it. While it does not answer, it is removed as soon as the others are a quorum.",
    TooManyMachinesLost: "So many workers look dead at once that the fault is more likely in what connects them (a zone, a switch, the host) than in them. Nothing is replaced; powered-off ones are started again. When they really are gone, delete their Machine objects and they are replaced.",
    ReplacingOthersFirst: "The machine is dead, but only a part of the workers and of their zones is replaced at the same time. Its turn comes when the others have joined.",
    EndpointMoved: "The load balancer was made anew and its address is not the published endpoint, which never changes: kubeconfigs, kubelets and certificates name it. Give the old address back to it, or make a new cluster.",
    AuthoritiesLost: "The Secret `<cluster>-pki` is gone although machines trust what was in it. It is never made anew under a living cluster: restore it from a backup. Until then nothing can be claimed, configured or renewed; the cluster itself goes on working.",
    WaitingForAddresses: "A control plane's configuration names every founder's address, and not all founders have one yet.",
    WaitingForFounders: "etcd's members are started together: every control-plane machine has to be claimed first.",
    WaitingForQuorum: "etcd's members are being started and have no quorum yet. If this lasts more than half a minute, look at etcd's journal on the named machines: `slipway logs MACHINE etcd.service`.",
    FoundingFailed: "A control-plane machine was lost before etcd ever had a quorum. The unfinished set holds no data; it is taken away completely and new machines begin anew.",
    Rendering: "The machine's configuration cannot be made yet: its certificates or the cluster's endpoint are still missing.",
    ApplyingConfiguration: "The agent makes its machine's configuration real: fetching and verifying artifacts, writing files, starting units.",
    ConfigurationTroubled: "The agent cannot make its machine's configuration real (the message carries its error: a truncated artifact, a taken port, a full disk, a unit that fails). It tries again by itself; mend what the error names.",
    UnitFailing: "A unit of the machine is not active. systemd starts it again and again; its journal says why: `slipway logs MACHINE UNIT`.",
    ProbeFailing: "A component of the machine runs but does not answer its probe yet.",
    WaitingForApi: "The cluster's API does not answer yet.",
    NodeNotRegistered: "The machine's kubelet has not registered its Node yet. Workers' kubelets are held until the load balancer answers.",
    NodeNotReady: "The Node is registered, but its kubelet says it is not Ready; the message carries its reason.",
    WaitingForAddons: "The addons (CoreDNS and the roles of the cluster's own components) are not applied completely yet.",
    WaitingForOthers: "Only one machine is changed at a time, and another one is not healthy or not done yet.",
    EvictionBlocked: "A PodDisruptionBudget does not allow a pod to be evicted; the message names pod and budget. It is tried again until the pool's drainTimeoutSeconds are over (0: for ever). Add replicas, relax the budget, or delete the pod.",
    PodTerminating: "A pod was evicted and is shutting down within its grace period.",
    VolumesAttached: "Every pod of the Node has left, and volumes are still attached to it; the message names them. They are detached before the machine is deleted, so that their data is whole where they are attached next. When the pool's drainTimeoutSeconds are over it is deleted all the same (0: never). If this lasts, look at the driver: its node pod unmounts, its controller detaches, and each VolumeAttachment's status carries its error.",
    InstanceDeleting: "The cloud removes the machine.",
    WaitingForPoolSize: "The Cluster leaves the pool's `replicas` out, so its NodePool object says how many machines it wants, and that object is not there yet or is being deleted. It is made (again) by itself.",
    NumbersUnsettled: "Machine numbers were handed out and are not all used; that is written down before a record goes, so that none is used twice.",
    ScalingControlPlane: "Control-plane machines are being added to etcd or taken from it, one at a time.",
    MemberJoining: "The machine's etcd member is a learner: it gets a vote when it has caught up with the leader.",
    MemberUnhealthy: "An etcd member does not answer, so etcd's membership is left alone: a change now could cost the quorum. Look at the journal of etcd on its machine. If it cannot be mended, delete its Machine object: it is replaced as soon as the others are a quorum.",
    WaitingForReplacement: "The control-plane machine leaves as soon as its replacement has a vote in etcd.",
    Retiring: "The control-plane machine is leaving: its API server ends its requests, then its etcd member is removed, then the machine.",
    ControlPlaneMachineDead: "The control-plane machine is dead: its instance is gone, or its agent and its etcd member are silent and its Node is NotReady. Its member is removed from etcd and a new machine takes its place.",
    RestoreNeeded: "More control-plane machines are lost for good than etcd's quorum bears. Nothing destructive is done. Start machines that still have their disks; if they are lost, restore the cluster from an EtcdSnapshot.",
    ZoneLost: "Most machines of a zone are gone at once: more likely a fault of the zone than of the machines. Nothing of it is replaced. When they really are gone, delete their Machine objects and they are replaced.",
    KeptForInspection: "The machine failed and carries the annotation `slipway.dev/keep`: it was replaced, and stays as it is until the annotation is removed.",
    Upgrading: "Machines are being brought to the versions that the spec wants, one step at a time.",
    PreflightFailed: "Something speaks against the upgrade, and nothing was changed yet. The message names it; the upgrade begins by itself when it is gone.",
    TakingSnapshot: "A snapshot of etcd is taken before anything is changed.",
    Soaking: "A machine was changed and is well; it has to stay well for a moment before the next one is touched.",
    UpgradeStopped: "A machine did not come back after it was changed. It was told its old versions again where that is possible, and nothing else is changed. Set the old version again to go back, or mend the machine and set another version.",
    VersionSkew: "The change would let components meet whose versions do not go together; it waits until those that have to go first have gone.",
    Paused: "spec.maintenance.paused is true: nothing that disturbs machines is begun. What was begun is finished; dead machines are still replaced unless spec.maintenance.healing says otherwise.",
    OutsideMaintenanceWindow: "Machines may be disturbed only in spec.maintenance.windows; the message says when the next one begins.",
    ReplacementRefused: "The change needs new machines, and `upgrade.allow: InPlaceOnly` forbids to replace any. Nothing is changed. Allow it, or take the change back.",
    UpdatingAgents: "Agents are brought to the build that the operator gives new machines, one machine of the cluster at a time, workers first. Nothing else on a machine is touched. A build stays only if the operator reaches it; otherwise the build before it comes back by itself.",
    AgentUpdateRefused: "The machine's agent tried another build and went back to the one before; the message says why, and the journal of slipway-agent.service on that machine says more. That build is not tried there again, and on no other machine while this stands. A further build (`slipway up`) is tried anew; so is this one when the machine is replaced (delete its Machine object).",
    NodeUnhealthy: "A Node condition of the pool's health check has lasted too long: the machine is replaced.",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
