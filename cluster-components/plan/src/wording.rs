//! Actions in words: the forecast, the steps in a Cluster's status and the log say them so.

use crate::agents::short;
use crate::{Action, Removal};
use slipway_model::Part;
use std::fmt;

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ScaleDown => "its pool wants fewer machines",
            Self::PoolRemoved => "its pool is no longer in the Cluster",
            Self::Dead => "it is dead and will be replaced",
            Self::FoundingFailed => "founding the control plane failed and begins anew",
            Self::Outdated => "a new machine takes its place",
        })
    }
}

/// For people: the forecast and the events say it so.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddFinalizer => f.write_str("take charge of the cluster (finalizer)"),
            Self::CreatePki => f.write_str("make the cluster's certificate authorities"),
            Self::EnsureNetwork => f.write_str("make the network"),
            Self::EnsureLoadBalancer { port } => write!(f, "make the load balancer on port {port}"),
            Self::RecordEndpoint { endpoint } => write!(f, "record the endpoint {endpoint}"),
            Self::SetTargets { instances } if instances.is_empty() => f.write_str("take all targets off the load balancer"),
            Self::SetTargets { instances } => write!(f, "point the load balancer to {}", instances.join(", ")),
            Self::CreatePool { pool, replicas } => write!(f, "make NodePool {pool} of size {replicas}"),
            Self::SetPoolReplicas { pool, from, to, .. } => {
                write!(f, "set the size of NodePool {pool} from {from} to {to}, as the Cluster says")
            }
            Self::RemovePool { pool, .. } => write!(f, "remove NodePool {pool}"),
            Self::SetOrdinals { pool, from, to } if to.next == from.next + 1 => write!(f, "hand out number {} of pool {pool}", from.next),
            Self::SetOrdinals { pool, from, to } if to.next > from.next => {
                write!(f, "hand out the numbers {} to {} of pool {pool}", from.next, to.next - 1)
            }
            Self::SetOrdinals { pool, to, .. } => write!(f, "settle the numbers of pool {pool} below {}", to.settled),
            Self::CreateMachine { machine, versions, .. } => write!(f, "record machine {machine} for {}", versions.node.kubelet),
            Self::SetVersions { machine, from, to, .. } => {
                let parts = [Part::Etcd, Part::ApiServer, Part::Controllers, Part::Node].into_iter().filter(|p| from.differs(*p, to));
                let names = parts.map(|p| p.to_string()).collect::<Vec<_>>().join("; ");
                write!(f, "exchange {names} on {machine}: {to}")
            }
            Self::RecordUpgrade { to: Some(upgrade), .. } if upgrade.stopped.is_some() => f.write_str("stop the upgrade"),
            Self::RecordUpgrade { from: None, to: Some(upgrade) } => write!(f, "begin the upgrade to {}", upgrade.to),
            Self::RecordUpgrade { from: Some(upgrade), to: None } if upgrade.stopped.is_some() => {
                f.write_str("let the pools' upgrade go on")
            }
            Self::RecordUpgrade { to: None, .. } => f.write_str("record that the upgrade is over"),
            Self::RecordUpgrade { to: Some(upgrade), .. } => write!(f, "turn the upgrade towards {}", upgrade.to),
            Self::TakeSnapshot { snapshot, machine } => write!(f, "take etcd snapshot {snapshot} from {machine}"),
            Self::AddMember { machine, .. } => write!(f, "add {machine} to etcd as a learner"),
            Self::PromoteMember { machine, .. } => write!(f, "let the etcd member of {machine} vote"),
            Self::RemoveMember { machine: Some(machine), .. } => write!(f, "remove {machine} from etcd"),
            Self::RemoveMember { machine: None, member } => write!(f, "remove etcd member {member}, which has no machine"),
            Self::MoveLeader { machine, to, .. } => write!(f, "hand etcd's leadership from {machine} to member {to}"),
            Self::Retire { machine, .. } => write!(f, "stop the API server of {machine}, which is leaving"),
            Self::Uncordon { node, .. } => write!(f, "uncordon Node {node}"),
            Self::IssueBootstrap { machine, .. } => write!(f, "freeze the first-boot script of {machine}"),
            Self::CreateInstance { machine, .. } => write!(f, "create machine {machine}"),
            Self::RecordInstance { machine, instance, .. } => {
                write!(f, "record that {machine} is instance {} at {}", instance.id, instance.address)
            }
            Self::StartInstance { machine, .. } => write!(f, "start machine {machine} again"),
            Self::IssueCertificates { machine, .. } => write!(f, "issue the certificates of {machine}"),
            Self::RecordFounders { founders, .. } => {
                f.write_str("record the founders of the control plane:")?;
                founders.iter().try_for_each(|m| write!(f, " {m}"))
            }
            Self::Claim { machine, .. } => write!(f, "claim the agent of {machine}"),
            Self::DropBootstrap { machine } => write!(f, "delete the used token of {machine}"),
            Self::ApplyPlan { machine, expected: None, .. } => write!(f, "configure {machine}"),
            Self::ApplyPlan { machine, expected: Some(_), .. } => write!(f, "reconfigure {machine} in place"),
            Self::UpdateAgent { machine, to, .. } => write!(f, "let the agent of {machine} try build {}", short(to)),
            Self::RenewAgentCertificate { machine, .. } => write!(f, "renew the certificate of the agent of {machine}"),
            Self::RecordBootstrapped { .. } => f.write_str("record that etcd has its quorum"),
            Self::WriteKubeconfig => f.write_str("write the kubeconfig"),
            Self::ApplyAddons { .. } => f.write_str("apply the addons"),
            Self::LabelNode { node, .. } => write!(f, "label Node {node}"),
            Self::DeleteMachine { machine, why, .. } => write!(f, "take machine {machine} away: {why}"),
            Self::Cordon { node, returns: false, .. } => write!(f, "cordon Node {node}, to evict its pods"),
            Self::Cordon { node, returns: true, .. } => write!(f, "cordon Node {node}, to change its machine in place"),
            Self::Evict { machine, pod } => write!(f, "evict {pod} from {machine}"),
            Self::DeleteInstance { machine, .. } => write!(f, "delete machine {machine}"),
            Self::DeleteStrayInstance { machine, instance, .. } => {
                write!(f, "delete instance {instance}, made for {machine}, of which there is no record")
            }
            Self::DeleteNode { node, .. } => write!(f, "delete Node {node}"),
            Self::RemoveMachine { machine, .. } => write!(f, "remove the record of {machine}"),
            Self::DeleteLoadBalancer => f.write_str("delete the load balancer"),
            Self::DeleteNetwork => f.write_str("delete the network"),
            Self::DeleteSecrets => f.write_str("delete the cluster's Secrets"),
            Self::RemoveFinalizer => f.write_str("let the cluster go (finalizer)"),
        }
    }
}
