//! Lists of a cluster's objects, kept from pass to pass until something may have changed them.
//!
//! Most passes are rung by agents, Nodes or the cloud, and find every object of the management API as the pass before left it. A list is read anew when
//! - a watch told of a change in it, or
//! - an effect of this operator that writes such objects has ended since, well or not, or
//! - it is older than [`KEPT_FOR`]: Secrets are not watched, and a call that was given up may come through late.
//!
//! So it is at least as fresh as every write that this operator has made, which is what the order of observation asks for (`slipway_plan::Observed`).

use crate::bell::{Bell, Kinds};
use slipway_plan::Action;
use std::time::{Duration, Instant};

/// How long a list is believed at most.
pub const KEPT_FOR: Duration = Duration::from_secs(10);

/// One list.
pub struct Kept<T> {
    kind: Kinds,
    read: Option<(Instant, Vec<T>)>,
}

impl<T: Clone> Kept<T> {
    /// Not read yet.
    #[must_use]
    pub fn new(kind: Kinds) -> Self {
        Self { kind, read: None }
    }

    /// As it was read last, or as `list` gives it now.
    pub async fn get<E>(&mut self, bell: &Bell, list: impl Future<Output = Result<Vec<T>, E>>) -> Result<Vec<T>, E> {
        // Taken before it is read: what changes meanwhile is for the next pass.
        if bell.take_changed(self.kind) {
            self.read = None;
        }
        if let Some((_, items)) = self.read.as_ref().filter(|(at, _)| at.elapsed() < KEPT_FOR) {
            return Ok(items.clone());
        }
        self.read = None;
        let now = Instant::now();
        let items = list.await?;
        self.read = Some((now, items.clone()));
        Ok(items)
    }

    /// Forgets it, where nobody will want it before it is too old anyway: thousands of idle clusters shall cost no memory.
    pub fn rest(&mut self) {
        self.read = None;
    }
}

/// Which lists an effect may have changed.
#[must_use]
pub fn touched(action: &Action) -> Kinds {
    match action {
        Action::CreatePool { .. } | Action::SetPoolReplicas { .. } | Action::RemovePool { .. } => Kinds::POOLS,
        Action::CreateMachine { .. }
        | Action::SetVersions { .. }
        | Action::RecordInstance { .. }
        | Action::AddMember { .. }
        | Action::Retire { .. }
        | Action::DeleteMachine { .. }
        | Action::UpdateAgent { .. } => Kinds::MACHINES,
        Action::Claim { .. } | Action::RemoveMachine { .. } | Action::RenewAgentCertificate { .. } => Kinds::MACHINES.and(Kinds::SECRETS),
        Action::CreatePki
        | Action::IssueBootstrap { .. }
        | Action::IssueCertificates { .. }
        | Action::DropBootstrap { .. }
        | Action::WriteKubeconfig
        | Action::DeleteSecrets => Kinds::SECRETS,
        Action::TakeSnapshot { .. } => Kinds::SNAPSHOTS,
        // In the Cluster, which every pass reads.
        Action::AddFinalizer
        | Action::RecordEndpoint { .. }
        | Action::SetOrdinals { .. }
        | Action::RecordUpgrade { .. }
        | Action::RecordFounders { .. }
        | Action::RecordBootstrapped { .. }
        | Action::RemoveFinalizer
        // Elsewhere.
        | Action::EnsureNetwork
        | Action::EnsureLoadBalancer { .. }
        | Action::SetTargets { .. }
        | Action::CreateInstance { .. }
        | Action::StartInstance { .. }
        | Action::DeleteInstance { .. }
        | Action::DeleteStrayInstance { .. }
        | Action::DeleteLoadBalancer
        | Action::DeleteNetwork
        | Action::ApplyPlan { .. }
        | Action::PromoteMember { .. }
        | Action::RemoveMember { .. }
        | Action::MoveLeader { .. }
        | Action::ApplyAddons { .. }
        | Action::LabelNode { .. }
        | Action::Cordon { .. }
        | Action::Uncordon { .. }
        | Action::Evict { .. }
        | Action::DeleteNode { .. } => Kinds::NONE,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn a_list_is_read_anew_when_something_may_have_changed_it_and_only_then() {
        let (bell, mut kept, mut reads) = (Bell::default(), Kept::new(Kinds::SECRETS), 0);
        let mut get = async |kept: &mut Kept<u32>| {
            kept.get(&bell, async {
                reads += 1;
                Ok::<_, Infallible>(vec![reads])
            })
            .await
            .unwrap()
        };
        assert_eq!(get(&mut kept).await, [1]);
        assert_eq!(get(&mut kept).await, [1]);
        bell.changed(Kinds::MACHINES);
        assert_eq!(get(&mut kept).await, [1]);
        bell.changed(Kinds::MACHINES.and(Kinds::SECRETS));
        assert_eq!(get(&mut kept).await, [2]);
        assert_eq!(get(&mut kept).await, [2]);
        kept.rest();
        assert_eq!(get(&mut kept).await, [3]);
    }

    #[tokio::test]
    async fn what_could_not_be_read_is_read_again() {
        let (bell, mut kept) = (Bell::default(), Kept::new(Kinds::POOLS));
        assert_eq!(kept.get(&bell, async { Ok::<_, &str>(vec![1]) }).await.unwrap(), [1]);
        bell.changed(Kinds::POOLS);
        assert_eq!(kept.get(&bell, async { Err("gone") }).await.unwrap_err(), "gone");
        assert_eq!(kept.get(&bell, async { Ok::<_, &str>(vec![2]) }).await.unwrap(), [2]);
    }
}
