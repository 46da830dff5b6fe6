//! Machines whose configuration changed although nobody told them other versions: another proxy mode, renewed certificates, something that a newer operator
//! renders otherwise. Whoever is well without that change is disturbed by it, so that it waits for its hour, and for its turn: of a pool, one machine at a
//! time, out of the same budget as versions.
//!
//! What was begun is finished in any case: a machine that was told versions follows, one that retires retires, and what ails an ill one may be just what the
//! change cures. Nor is a machine left with certificates that are about to end.

use crate::draft::{Draft, PROBE_API_SERVER, PROBE_ETCD};
use crate::maintenance::maintenance_open;
use crate::quorum::member_of;
use crate::{AgentState, Fact, MachineRecord, rollout};

/// Whether a machine has to wait with its new configuration until machines may be disturbed.
pub(crate) fn is_held(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    maintenance_open(&draft.spec.maintenance, draft.now).is_err() && begins(draft, machine)
}

/// Whether its new configuration would begin something.
fn begins(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    draft.observed.cluster.bootstrapped && works(draft, machine) && !presses(draft, machine)
}

/// Whether the certificates that it has are about to end.
pub(crate) fn presses(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    draft.observed.secrets.known().is_some_and(|s| s.of(&machine.name).pressing)
}

/// Whether it has done all that it was told, and what it is to be told now is no versions.
pub(crate) fn awaits(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let Some(state) = draft.heard(&machine.name).filter(|s| s.accepted.is_some()) else { return false };
    let other = draft.observed.wanted.get(&machine.name).is_some_and(|w| Some(w) != state.accepted.as_ref());
    other && state.applied == state.accepted && !machine.retiring && !is_told(draft, machine)
}

/// Whether it does its work, all that it was told, while it is to be told something else that is no versions.
pub(crate) fn works(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    awaits(draft, machine) && draft.heard(&machine.name).is_some_and(|state| is_well(draft, machine, state))
}

/// Whether it does all that it was told, as far as it and its Node can say.
fn is_well(draft: &Draft<'_>, machine: &MachineRecord, state: &AgentState) -> bool {
    let needed: &[&str] = if machine.is_control_plane() { &[PROBE_ETCD, PROBE_API_SERVER] } else { &[] };
    let serves = state.probes.values().all(|p| p.healthy) && needed.iter().all(|probe| state.healthy(probe));
    let ready = match &draft.observed.nodes {
        Fact::Known(_) => draft.node(&machine.name).is_some_and(|n| n.ready),
        // That the API cannot be asked is nothing that a machine says of itself.
        Fact::Unknown { .. } => true,
    };
    state.applied == state.accepted && state.trouble.is_none() && state.failing_units.is_empty() && serves && ready
}

/// Whether it is on its way to versions that it was told: a moment ago, or because what it was told failed, or as its Node and its member show.
fn is_told(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let stopped = draft.observed.cluster.upgrade.as_ref().and_then(|u| u.stopped.as_ref());
    let undone = stopped.is_some_and(|s| s.machine == machine.name);
    let kubelet = draft.node(&machine.name).and_then(|n| n.kubelet);
    let other_kubelet = kubelet.is_some_and(|k| k != machine.versions.node.kubelet);
    let member = draft.observed.etcd.known().and_then(|etcd| member_of(etcd, machine)).and_then(|m| m.status.known());
    let other_etcd = member.zip(machine.versions.control_plane).is_some_and(|(member, told)| member.version != told.etcd);
    let follows = rollout::is_in_step(draft, machine) && !rollout::has_followed(draft, machine);
    follows || undone || other_kubelet || other_etcd
}
