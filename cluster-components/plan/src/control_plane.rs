//! The control plane: founded once, all members together, and never again; its configuration changed one machine at a time.
//!
//! ```text
//! all records ─► founders recorded ─► all claimed ─► all configured ─► quorum seen ─► bootstrapped recorded ─► kubeconfig ─► addons
//!      ▲                                                  │
//!      └── the whole set is taken away ◄── a founder lost ┘      (before the quorum is recorded nobody was given a kubeconfig: there is no data)
//! ```
//! A founder that was lost before the quorum cannot be replaced alone: the others' etcd knows the old list, and perhaps they have a quorum already.
//! So the whole set goes, and its successors get new names and a new token. Once the quorum is recorded nothing is ever founded anew, whatever it looks like.

use crate::draft::{Draft, PROBE_API_SERVER, PROBE_ETCD};
use crate::{Action, AgentFacts, MachineRecord, Reason, Removal, pools};
use slipway_model::{MachineName, PlanDigest, PoolName};

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

/// After the founding: the set stays as it is in this release, and what cannot be done is said.
fn keep(draft: &mut Draft<'_>) {
    let cluster = &draft.observed.cluster;
    for name in &cluster.founders {
        let Some(machine) = draft.records().iter().find(|m| m.name == *name) else {
            draft.wait_on(name, Reason::ControlPlaneMachineLost, "its Machine object, which is gone", cluster.created);
            continue;
        };
        if draft.is_gone(machine) {
            draft.wait_on(name, Reason::ControlPlaneMachineLost, "its instance, which the cloud does not have any more", machine.created);
        }
    }
    pools::grow(draft, &PoolName::control_plane(), 0);
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

/// Who may be configured in this pass.
pub(crate) struct Turn<'a> {
    /// All founders are there and claimed, none but them.
    founders_ready: bool,
    /// The one control plane whose running configuration may be changed now.
    control_plane: Option<&'a MachineName>,
    /// The one worker of each pool whose running configuration may be changed now.
    workers: Vec<&'a MachineName>,
}

impl<'a> Turn<'a> {
    pub fn of(draft: &Draft<'a>) -> Self {
        let planes: Vec<&MachineRecord> = draft.control_planes().collect();
        let founders = &draft.observed.cluster.founders;
        let founder = |m: &MachineRecord| founders.contains(&m.name) && m.claimed && !draft.is_gone(m);
        let leaving = draft.records().iter().any(|m| m.is_control_plane() && m.deleting.is_some());
        let founders_ready = !founders.is_empty() && planes.len() == founders.len() && planes.iter().all(|m| founder(m)) && !leaving;
        let healthy = |m: &MachineRecord| {
            draft
                .heard(&m.name)
                .is_some_and(|s| s.applied.is_some() && s.applied == s.accepted && s.healthy(PROBE_ETCD) && s.healthy(PROBE_API_SERVER))
        };
        let control_plane = pick(draft, &planes, healthy);
        let working = |m: &MachineRecord| {
            let settled = draft.heard(&m.name).is_some_and(|s| s.applied.is_some() && s.applied == s.accepted);
            settled && draft.node(&m.name).is_some_and(|n| n.ready)
        };
        let in_pool = |pool: &PoolName| draft.workers().filter(|m| m.pool == *pool).collect::<Vec<_>>();
        let workers = draft.spec.pools.iter().filter_map(|p| pick(draft, &in_pool(&p.name), working)).collect();
        Self { founders_ready, control_plane, workers }
    }

    /// Whether this machine may get its wanted configuration now, or what it waits for.
    pub fn may_apply(
        &self,
        draft: &Draft<'_>,
        machine: &MachineRecord,
        accepted: Option<&PlanDigest>,
    ) -> Result<(), (Reason, &'static str)> {
        let others = (Reason::WaitingForOthers, "its turn: another machine is not healthy or not done yet");
        match (machine.is_control_plane(), accepted) {
            // All etcd members start together; and a disk that lost its plan after the founding has lost its member too.
            (true, None) if !draft.observed.cluster.bootstrapped => match self.founders_ready {
                true => Ok(()),
                false => Err((Reason::WaitingForFounders, "every founder of the control plane to be claimed")),
            },
            (true, None) => {
                Err((Reason::ControlPlaneMachineLost, "the disk it had: this one does not know the configuration it once accepted"))
            }
            // There is no quorum to protect yet, and the change may be what it lacks.
            (true, Some(_)) if !draft.observed.cluster.bootstrapped => Ok(()),
            (true, Some(_)) => {
                if self.control_plane == Some(&machine.name) {
                    Ok(())
                } else {
                    Err(others)
                }
            }
            (false, None) => Ok(()),
            (false, Some(_)) => {
                if self.workers.contains(&&machine.name) {
                    Ok(())
                } else {
                    Err(others)
                }
            }
        }
    }
}

/// The machine of a group whose configuration may be changed: only when all others are well. One that is ill itself comes first: the change may cure it.
fn pick<'a>(draft: &Draft<'a>, group: &[&'a MachineRecord], well: impl Fn(&MachineRecord) -> bool) -> Option<&'a MachineName> {
    let stale = |m: &MachineRecord| {
        let accepted = draft.heard(&m.name).and_then(|s| s.accepted.as_ref());
        accepted.is_some() && draft.observed.wanted.get(&m.name).is_some_and(|w| Some(w) != accepted)
    };
    let ill: Vec<&&MachineRecord> = group.iter().filter(|m| !well(m)).collect();
    match ill.as_slice() {
        [] => group.iter().find(|m| stale(m)).map(|m| &m.name),
        [one] => Some(&one.name).filter(|_| stale(one)),
        _ => None,
    }
}
