//! The control plane: founded once, all members together, and never again; healed, grown and shrunk member by member ever after.
//!
//! ```text
//! all records ─► founders recorded ─► all claimed ─► all configured ─► quorum seen ─► bootstrapped recorded ─► kubeconfig ─► addons
//!      ▲                                                  │
//!      └── the whole set is taken away ◄── a founder lost ┘      (before the quorum is recorded nobody was given a kubeconfig: there is no data)
//! ```
//! A founder that was lost before the quorum cannot be replaced alone: the others' etcd knows the old list, and perhaps they have a quorum already.
//! So the whole set goes, and its successors get new names and a new token. Once the quorum is recorded nothing is ever founded anew, whatever it looks like.

use crate::draft::{Draft, PROBE_ETCD};
use crate::quorum::Votes;
use crate::{Action, AgentFacts, MachineRecord, Reason, Removal, healing, membership, pools, rollout, size};
use slipway_model::{MachineName, PoolName};

/// Machines of the control plane: made, founded, or kept as they are.
pub(crate) fn members(draft: &mut Draft<'_>) {
    if draft.machines().is_none() {
        return;
    }
    if draft.observed.cluster.bootstrapped {
        keep(draft);
    } else {
        found(draft);
    }
}

/// Whether etcd's quorum is still to be seen for the first time.
pub(crate) fn is_founding(draft: &Draft<'_>) -> bool {
    !draft.observed.cluster.bootstrapped
}

fn found(draft: &mut Draft<'_>) {
    let founders = &draft.observed.cluster.founders;
    let wanted = usize::try_from(draft.spec.control_plane.replicas).unwrap_or(usize::MAX);
    let there: Vec<&MachineRecord> = draft.control_planes().collect();
    let leaving: Vec<&MachineRecord> = draft.records().iter().filter(|m| m.is_control_plane() && m.deleting.is_some()).collect();
    let (old, new): (Vec<&MachineRecord>, Vec<&MachineRecord>) = there.iter().partition(|m| founders.contains(&m.name));

    let broken = !old.is_empty() && (old.len() != founders.len() || old.len() != wanted || old.iter().any(|m| draft.is_gone(m)));
    if broken {
        for machine in &old {
            draft.take_away(machine, Removal::FoundingFailed);
        }
        let since = draft.observed.cluster.created;
        draft.wait(Reason::FoundingFailed, "the unfinished control plane to be taken away", since);
    }
    // Those that are no founders were told nothing yet: they are taken away one by one.
    let surplus = if old.is_empty() { new.len().saturating_sub(wanted) } else { new.len() };
    let mut spare: Vec<&MachineRecord> = new.clone();
    spare.sort_by_key(|m| (!draft.is_gone(m), std::cmp::Reverse(m.ordinal)));
    let lost = spare.iter().filter(|m| draft.is_gone(m)).count();
    for machine in spare.iter().take(surplus.max(lost)) {
        draft.take_away(machine, Removal::FoundingFailed);
    }
    if broken || surplus > 0 || lost > 0 {
        return;
    }
    // Successors begin when nothing of their predecessors is left: two founding sets never live side by side.
    if let Some(since) = leaving.iter().filter_map(|m| m.deleting).min() {
        draft.wait(Reason::FoundingFailed, "the former control-plane machines to be gone", since);
        pools::grow(draft, &PoolName::control_plane(), 0);
        return;
    }
    let missing = u32::try_from(wanted.saturating_sub(there.len())).unwrap_or(u32::MAX);
    pools::grow(draft, &PoolName::control_plane(), missing);
    if missing == 0 && old.is_empty() && !new.is_empty() {
        let mut names: Vec<MachineName> = new.iter().map(|m| m.name.clone()).collect();
        names.sort();
        draft.start(Action::RecordFounders { from: founders.clone(), founders: names });
    }
    if !old.is_empty() {
        quorum(draft, &old);
    }
}

/// The end of the founding: all founders were told what they are, and most of their etcds say that they have a quorum.
///
/// "All were told" makes it certain later that a founder without a plan has lost its disk, and must never found again.
fn quorum(draft: &mut Draft<'_>, founders: &[&MachineRecord]) {
    let told = |m: &MachineRecord| match draft.observed.agents.get(&m.name) {
        Some(AgentFacts::Heard(state)) => state.accepted.is_some(),
        Some(AgentFacts::Silent { last: Some(state), .. }) => state.accepted.is_some(),
        Some(AgentFacts::Silent { last: None, .. } | AgentFacts::Answering) | None => false,
    };
    let healthy = founders.iter().filter(|m| draft.heard(&m.name).is_some_and(|s| s.healthy(PROBE_ETCD))).count();
    if founders.iter().all(|m| told(m)) && healthy > founders.len() / 2 {
        draft.start(Action::RecordBootstrapped { founders: draft.observed.cluster.founders.clone() });
    }
}

/// After the founding: healed, kept at its size, and etcd's members changed one at a time. Nothing of it while etcd cannot be asked.
fn keep(draft: &mut Draft<'_>) {
    let Some(etcd) = draft.etcd() else {
        healing::without_quorum(draft);
        return;
    };
    let votes = Votes::of(draft, etcd);
    healing::control_planes(draft, &votes);
    size::keep(draft, &votes);
    membership::step(draft, &votes);
}

/// What follows from a control plane that answers.
pub(crate) fn access(draft: &mut Draft<'_>) {
    let cluster = &draft.observed.cluster;
    if !cluster.bootstrapped {
        return;
    }
    if let Some(secrets) = draft.secrets()
        && secrets.pki
        && !secrets.kubeconfig
        && cluster.endpoint.is_some()
    {
        draft.start(Action::WriteKubeconfig);
    }
    match &draft.observed.addons {
        // They are made for the new API servers; until those are there, the old ones stay.
        crate::Fact::Known(Some(_)) if rollout::holds_addons(draft) => {}
        crate::Fact::Known(applied) if applied.as_ref() != Some(&draft.observed.wanted_addons) => {
            draft.start(Action::ApplyAddons { wanted: draft.observed.wanted_addons.clone() });
            draft.wait(Reason::WaitingForAddons, "the addons to be applied", cluster.created);
        }
        crate::Fact::Known(_) => {}
        crate::Fact::Unknown { why, since } => {
            let what = format!("the cluster's API to answer about its addons ({why})");
            draft.wait(Reason::WaitingForApi, what, *since);
        }
    }
}
