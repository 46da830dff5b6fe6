//! What an action is known by: its identity over passes, the machine it is about, and whether it is one choice among several.

use super::Action;
use serde::{Deserialize, Serialize};
use slipway_model::MachineName;
use std::fmt;

/// What kind of action: half of an [`ActionKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one per variant of Action, which documents it")]
pub enum ActionKind {
    AddFinalizer,
    CreatePki,
    EnsureNetwork,
    EnsureLoadBalancer,
    RecordEndpoint,
    SetTargets,
    CreatePool,
    SetPoolReplicas,
    RemovePool,
    SetOrdinals,
    CreateMachine,
    SetVersions,
    RecordUpgrade,
    TakeSnapshot,
    AddMember,
    PromoteMember,
    RemoveMember,
    MoveLeader,
    Retire,
    Uncordon,
    IssueBootstrap,
    CreateInstance,
    RecordInstance,
    StartInstance,
    IssueCertificates,
    RecordFounders,
    Claim,
    DropBootstrap,
    ApplyPlan,
    UpdateAgent,
    RenewAgentCertificate,
    RecordBootstrapped,
    WriteKubeconfig,
    ApplyAddons,
    LabelNode,
    DeleteMachine,
    Cordon,
    Evict,
    DeleteInstance,
    DeleteStrayInstance,
    DeleteNode,
    RemoveMachine,
    DeleteLoadBalancer,
    DeleteNetwork,
    DeleteSecrets,
    RemoveFinalizer,
}

/// An action's identity over passes: its failures are counted under it, and it never runs twice at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionKey {
    /// What is done.
    pub kind: ActionKind,
    /// To what: a machine, pool, instance or pod; empty for the cluster itself.
    pub subject: String,
}

impl fmt::Display for ActionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.kind, self.subject)
    }
}

impl Action {
    /// Its identity over passes.
    #[must_use]
    pub fn key(&self) -> ActionKey {
        use ActionKind as K;
        let of = |kind, subject: &dyn fmt::Display| ActionKey { kind, subject: subject.to_string() };
        match self {
            Self::AddFinalizer => of(K::AddFinalizer, &""),
            Self::CreatePki => of(K::CreatePki, &""),
            Self::EnsureNetwork => of(K::EnsureNetwork, &""),
            Self::EnsureLoadBalancer { .. } => of(K::EnsureLoadBalancer, &""),
            Self::RecordEndpoint { .. } => of(K::RecordEndpoint, &""),
            Self::SetTargets { .. } => of(K::SetTargets, &""),
            Self::CreatePool { pool, .. } => of(K::CreatePool, pool),
            Self::SetPoolReplicas { pool, .. } => of(K::SetPoolReplicas, pool),
            Self::RemovePool { pool, .. } => of(K::RemovePool, pool),
            Self::SetOrdinals { pool, .. } => of(K::SetOrdinals, pool),
            Self::CreateMachine { machine, .. } => of(K::CreateMachine, machine),
            Self::SetVersions { machine, .. } => of(K::SetVersions, machine),
            Self::RecordUpgrade { .. } => of(K::RecordUpgrade, &""),
            Self::TakeSnapshot { snapshot, .. } => of(K::TakeSnapshot, snapshot),
            Self::AddMember { machine, .. } => of(K::AddMember, machine),
            Self::PromoteMember { member, .. } => of(K::PromoteMember, member),
            Self::RemoveMember { member, .. } => of(K::RemoveMember, member),
            Self::MoveLeader { from, .. } => of(K::MoveLeader, from),
            Self::Retire { machine, .. } => of(K::Retire, machine),
            Self::Uncordon { machine, .. } => of(K::Uncordon, machine),
            Self::IssueBootstrap { machine, .. } => of(K::IssueBootstrap, machine),
            Self::CreateInstance { machine, .. } => of(K::CreateInstance, machine),
            Self::RecordInstance { machine, .. } => of(K::RecordInstance, machine),
            Self::StartInstance { machine, .. } => of(K::StartInstance, machine),
            Self::IssueCertificates { machine, .. } => of(K::IssueCertificates, machine),
            Self::RecordFounders { .. } => of(K::RecordFounders, &""),
            Self::Claim { machine, .. } => of(K::Claim, machine),
            Self::DropBootstrap { machine } => of(K::DropBootstrap, machine),
            Self::ApplyPlan { machine, .. } => of(K::ApplyPlan, machine),
            Self::UpdateAgent { machine, .. } => of(K::UpdateAgent, machine),
            Self::RenewAgentCertificate { machine, .. } => of(K::RenewAgentCertificate, machine),
            Self::RecordBootstrapped { .. } => of(K::RecordBootstrapped, &""),
            Self::WriteKubeconfig => of(K::WriteKubeconfig, &""),
            Self::ApplyAddons { .. } => of(K::ApplyAddons, &""),
            Self::LabelNode { machine, .. } => of(K::LabelNode, machine),
            Self::DeleteMachine { machine, .. } => of(K::DeleteMachine, machine),
            Self::Cordon { machine, .. } => of(K::Cordon, machine),
            Self::Evict { pod, .. } => of(K::Evict, &format_args!("{pod} {}", pod.uid)),
            Self::DeleteInstance { machine, .. } => of(K::DeleteInstance, machine),
            Self::DeleteStrayInstance { instance, .. } => of(K::DeleteStrayInstance, instance),
            Self::DeleteNode { machine, .. } => of(K::DeleteNode, machine),
            Self::RemoveMachine { machine, .. } => of(K::RemoveMachine, machine),
            Self::DeleteLoadBalancer => of(K::DeleteLoadBalancer, &""),
            Self::DeleteNetwork => of(K::DeleteNetwork, &""),
            Self::DeleteSecrets => of(K::DeleteSecrets, &""),
            Self::RemoveFinalizer => of(K::RemoveFinalizer, &""),
        }
    }

    /// The machine it is about, if it is about one.
    #[must_use]
    pub fn machine(&self) -> Option<&MachineName> {
        match self {
            Self::CreateMachine { machine, .. }
            | Self::SetVersions { machine, .. }
            | Self::TakeSnapshot { machine, .. }
            | Self::AddMember { machine, .. }
            | Self::PromoteMember { machine, .. }
            | Self::MoveLeader { machine, .. }
            | Self::Retire { machine, .. }
            | Self::Uncordon { machine, .. }
            | Self::IssueBootstrap { machine, .. }
            | Self::CreateInstance { machine, .. }
            | Self::RecordInstance { machine, .. }
            | Self::StartInstance { machine, .. }
            | Self::IssueCertificates { machine, .. }
            | Self::Claim { machine, .. }
            | Self::DropBootstrap { machine }
            | Self::ApplyPlan { machine, .. }
            | Self::UpdateAgent { machine, .. }
            | Self::RenewAgentCertificate { machine, .. }
            | Self::LabelNode { machine, .. }
            | Self::DeleteMachine { machine, .. }
            | Self::Cordon { machine, .. }
            | Self::Evict { machine, .. }
            | Self::DeleteInstance { machine, .. }
            | Self::DeleteStrayInstance { machine, .. }
            | Self::DeleteNode { machine, .. }
            | Self::RemoveMachine { machine, .. } => Some(machine),
            Self::RemoveMember { machine, .. } => machine.as_ref(),
            Self::AddFinalizer
            | Self::RecordUpgrade { .. }
            | Self::CreatePki
            | Self::EnsureNetwork
            | Self::EnsureLoadBalancer { .. }
            | Self::RecordEndpoint { .. }
            | Self::SetTargets { .. }
            | Self::CreatePool { .. }
            | Self::SetPoolReplicas { .. }
            | Self::RemovePool { .. }
            | Self::SetOrdinals { .. }
            | Self::RecordFounders { .. }
            | Self::RecordBootstrapped { .. }
            | Self::WriteKubeconfig
            | Self::ApplyAddons { .. }
            | Self::DeleteLoadBalancer
            | Self::DeleteNetwork
            | Self::DeleteSecrets
            | Self::RemoveFinalizer => None,
        }
    }

    /// Whether Nodes may have to be marked otherwise after it: see [`is_upgrade_pending`](crate::is_upgrade_pending).
    pub(crate) fn marks(&self) -> bool {
        match self {
            Self::SetVersions { .. } => true,
            Self::CreateMachine { pool, .. } => pool.is_control_plane(),
            _ => false,
        }
    }

    /// Whether it is one choice among several: a plan made before its end could choose differently, so it must have ended before the next plan.
    #[must_use]
    pub fn chooses(&self) -> bool {
        matches!(
            self,
            Self::SetOrdinals { .. }
                | Self::CreateMachine { .. }
                | Self::DeleteMachine { .. }
                | Self::RecordFounders { .. }
                | Self::RecordBootstrapped { .. }
                | Self::ApplyPlan { .. }
                | Self::UpdateAgent { .. }
                | Self::SetVersions { .. }
                | Self::RecordUpgrade { .. }
                | Self::AddMember { .. }
                | Self::PromoteMember { .. }
                | Self::RemoveMember { .. }
                | Self::MoveLeader { .. }
                | Self::Retire { .. }
                | Self::Cordon { returns: true, .. }
        )
    }
}
