//! Dead workers: who is, and how many may be replaced at once.
//!
//! | witness | verdict |
//! |---|---|
//! | its instance was recorded and the cloud does not have it any more | dead at once |
//! | agent silent for [`DEAD_AFTER`], and the cloud says powered off, or its Node is NotReady | dead |
//! | agent never heard for [`BOOT_TIMEOUT`] | dead |
//! | agent silent, and nobody else to ask (inventory or Nodes unknown) | alive: silence alone proves nothing |
//!
//! A dead worker's record is deleted, which makes its pool one short, which makes a new machine at once.

use crate::draft::{BOOT_TIMEOUT, DEAD_AFTER, Draft};
use crate::{Action, AgentFacts, InstanceState, MachineRecord, Reason, Removal};
use jiff::Timestamp;

/// Replaces dead workers, a few at a time.
pub(crate) fn workers(draft: &mut Draft<'_>) {
    if draft.machines().is_none() || draft.cloud().is_none() {
        return;
    }
    let workers: Vec<&MachineRecord> = draft.workers().collect();
    let dead: Vec<(&MachineRecord, Timestamp)> = workers.iter().filter_map(|m| dead_since(draft, m).map(|since| (*m, since))).collect();
    let leaving =
        draft.records().iter().filter(|m| !m.is_control_plane() && m.deleting.is_some() && dead_since(draft, m).is_some()).count();
    let off = powered_off(draft, &workers);

    let most = (workers.len() * 2 / 5).max(1);
    let at_once = 1 + workers.len() / 5;
    let brake = dead.len() > most;
    for (position, (machine, since)) in dead.iter().enumerate() {
        if brake {
            let what = format!(
                "most workers to be back: {} of {} look dead at once, which is more likely a fault of what connects them",
                dead.len(),
                workers.len()
            );
            draft.wait_on(&machine.name, Reason::TooManyMachinesLost, what, *since);
        } else if position + leaving < at_once {
            draft.take_away(machine, Removal::Dead);
            draft.wait_on(&machine.name, Reason::MachineDead, "it to be replaced", *since);
        } else {
            draft.wait_on(&machine.name, Reason::ReplacingOthersFirst, "its replacement", *since);
        }
    }
    // One worker that is off was switched off, or broke: it is replaced when its time is over. Many are off because their host was: they start again.
    for machine in &off {
        if off.len() > most
            && let Some(instance) = draft.instance(machine)
        {
            draft.start(Action::StartInstance { machine: machine.name.clone(), instance: instance.id.clone() });
        }
        draft.wait_on(
            &machine.name,
            Reason::MachinePoweredOff,
            "it to be started, or replaced",
            silent_since(draft, machine).unwrap_or(machine.created),
        );
    }
}

/// Claimed workers that the cloud calls powered off.
fn powered_off<'a>(draft: &Draft<'a>, workers: &[&'a MachineRecord]) -> Vec<&'a MachineRecord> {
    workers.iter().copied().filter(|m| m.claimed && draft.instance(m).is_some_and(|i| i.state == InstanceState::Stopped)).collect()
}

fn silent_since(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Timestamp> {
    match draft.observed.agents.get(&machine.name) {
        Some(AgentFacts::Silent { since, .. }) => Some(*since),
        Some(AgentFacts::Answering | AgentFacts::Heard(_)) | None => None,
    }
}

/// Since when a machine is dead, if it is. Asks for another look when only time is missing.
pub(crate) fn dead_since(draft: &mut Draft<'_>, machine: &MachineRecord) -> Option<Timestamp> {
    if draft.is_gone(machine) {
        return Some(silent_since(draft, machine).unwrap_or(machine.created));
    }
    let since = silent_since(draft, machine)?;
    let off = draft.instance(machine).is_some_and(|i| i.state == InstanceState::Stopped);
    let not_ready = draft.node(&machine.name).is_some_and(|n| !n.ready);
    let grace = if machine.claimed { DEAD_AFTER } else { BOOT_TIMEOUT };
    if machine.claimed && !off && !not_ready {
        return None;
    }
    // An unclaimed one is silent in the eyes of its cloud only while the inventory shows it.
    if !machine.claimed && draft.instance(machine).is_none() {
        return None;
    }
    let due = since.saturating_add(grace).unwrap_or(since);
    if draft.now < due {
        draft.look_at(due);
        return None;
    }
    Some(since)
}
