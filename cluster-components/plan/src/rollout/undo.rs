//! A step that fails: the roll stops, that is written down, and then the machine is told its old versions again, where that is possible.
//!
//! ```text
//! told new versions ─► not well when its time is over ─► stopped recorded ─► old versions told ─► stands still ─► the spec wants something else ─► goes on
//! ```
//! In this order, so that a crash in between neither forgets that the step failed (the roll would try it again and again) nor undoes it twice: what was
//! told after the stop was recorded is the undoing.

use super::well::{Ill, ill};
use super::{PARTS, serving, skew, target, tell};
use crate::dead::is_dead;
use crate::draft::Draft;
use crate::{Action, AgentFacts, MachineRecord, Reason, StoppedRoll, UpgradeRecord, VersionChange};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{MachineVersions, Part};

/// For how many times of a step's own patience an ill machine counts as a failed step, where nothing else tells a step from a later illness.
const REMEMBERED: i32 = 10;

/// Whether the roll stands still, or stops now.
pub(super) fn stands_still(draft: &mut Draft<'_>) -> bool {
    let record = draft.observed.cluster.upgrade.as_ref();
    if let Some((record, stopped)) = record.and_then(|r| r.stopped.as_ref().map(|s| (r, s))) {
        return stands(draft, record, stopped);
    }
    let failed = draft.records().iter().filter(|m| m.deleting.is_none()).find_map(|m| failure(draft, m).map(|f| (m, f)));
    match failed {
        Some((machine, (part, ill))) => {
            stop(draft, machine, part, &ill);
            true
        }
        None => false,
    }
}

/// A roll that was stopped: its machine is told its old versions, once; and it goes on when the spec wants something else.
fn stands(draft: &mut Draft<'_>, record: &UpgradeRecord, stopped: &StoppedRoll) -> bool {
    let machine = draft.records().iter().find(|m| m.name == stopped.machine && m.deleting.is_none());
    if record.to != draft.spec.control_plane.versions {
        // The target has turned, which `begin` writes down: after what failed was undone, or everything would wait for it to come back.
        let undoing = machine.is_some_and(|m| m.changed.as_ref().is_some_and(|c| c.at <= stopped.since && undoable(draft, m, c).is_ok()));
        return undoing && machine.is_some_and(|m| !undo(draft, m, stopped));
    }
    if !is_for_control_plane(draft, stopped) && machine.is_none_or(|m| failing(m, stopped) != target(draft, m)) {
        let because = format!("{} is gone, or its pool wants other versions than those that failed", stopped.machine);
        let to = UpgradeRecord { stopped: None, ..record.clone() };
        draft.decide(Action::RecordUpgrade { from: Some(record.clone()), to: Some(to) }, because);
        return true;
    }
    let undone = machine.is_some_and(|m| undo(draft, m, stopped));
    let what = match undone {
        true => format!("another version in the spec: {} did not come back after {} was exchanged; it was told its old versions again", stopped.machine, stopped.part),
        false => format!("another version in the spec: {} did not come back after {} was exchanged", stopped.machine, stopped.part),
    };
    draft.wait_after(&stopped.machine, Reason::UpgradeStopped, what, stopped.since, &stopped.why);
    true
}

fn is_for_control_plane(draft: &Draft<'_>, stopped: &StoppedRoll) -> bool {
    draft.records().iter().any(|m| m.is_control_plane() && m.name == stopped.machine) || stopped.part != Part::Node
}

/// What it was told that failed: before it was undone or after.
fn failing(machine: &MachineRecord, stopped: &StoppedRoll) -> Option<MachineVersions> {
    let change = machine.changed.as_ref()?;
    Some(if change.at > stopped.since { change.from } else { machine.versions })
}

/// Tells a machine its old versions again, unless that was done. Says whether it was.
fn undo(draft: &mut Draft<'_>, machine: &MachineRecord, stopped: &StoppedRoll) -> bool {
    let Some(change) = &machine.changed else { return false };
    if change.at > stopped.since {
        return true;
    }
    match undoable(draft, machine, change) {
        Ok(()) => {
            let because = format!("{} did not come back after {} was exchanged ({})", machine.name, stopped.part, stopped.why);
            tell(draft, machine, change.from, because);
        }
        Err(why) => draft.wait_on(&machine.name, Reason::UpgradeStopped, format!("somebody: it cannot be told its old versions again: {why}"), stopped.since),
    }
    false
}

/// Whether the old versions may come back.
pub(super) fn undoable(draft: &Draft<'_>, machine: &MachineRecord, change: &VersionChange) -> Result<(), String> {
    skew(draft, &machine.name, change.from).map_err(|v| v.to_string())?;
    let etcd = |v: &MachineVersions| v.control_plane.map(|v| (v.etcd.major, v.etcd.minor));
    let (old, new) = (etcd(&change.from), etcd(&machine.versions));
    // etcd raises the cluster's version when every member has the new minor; from then on the old one refuses the data.
    let others_old = serving(draft).any(|m| m.name != machine.name && etcd(&m.versions) == old);
    if old != new && !others_old {
        return Err("it was etcd's last member of the old minor, which is the point of no return; mend the machine, or restore the snapshot".into());
    }
    Ok(())
}

/// The part and what is wrong, if a machine was told new versions and is not well although its time is over. Asks for another look when only time is missing.
fn failure(draft: &mut Draft<'_>, machine: &MachineRecord) -> Option<(Part, Ill)> {
    let change = machine.changed.as_ref()?;
    let part = PARTS.into_iter().find(|p| machine.versions.differs(*p, &change.from))?;
    let ill = ill(draft, machine)?;
    let patience = SignedDuration::from_secs(i64::from(draft.spec.pace.step_timeout_seconds));
    let due = change.at.saturating_add(patience).unwrap_or(change.at);
    // An illness that began when the step's time was over is another story, and so is a machine that is lost.
    if ill.since > due || !is_of_roll(draft, machine, change, &ill) || is_dead(draft, machine) || waits_for_others(draft, machine) {
        return None;
    }
    if draft.now < due {
        draft.look_at(due);
        return None;
    }
    Some((part, ill))
}

/// Whether an illness belongs to the roll that is under way: later, an ill machine is only an ill machine.
fn is_of_roll(draft: &Draft<'_>, machine: &MachineRecord, change: &VersionChange, ill: &Ill) -> bool {
    let patience = SignedDuration::from_secs(i64::from(draft.spec.pace.step_timeout_seconds));
    let recent = draft.now < change.at.saturating_add(patience.saturating_mul(REMEMBERED)).unwrap_or(change.at);
    let cordoned = draft.node(&machine.name).is_some_and(|n| n.cordoned.is_some());
    // A machine may follow a new configuration of the same versions, or be cut off, long after its step: of these nothing tells when they began.
    let vague = matches!(ill.reason, Reason::ApplyingConfiguration | Reason::AgentSilent | Reason::MachineStarting);
    if vague && !cordoned && !recent {
        return false;
    }
    if machine.is_control_plane() {
        let last = serving(draft).filter_map(|m| m.changed.as_ref().map(|c| c.at)).max();
        let begun = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| change.at >= u.since);
        return begun && last == Some(change.at);
    }
    true
}

/// Its agent was not even given the new configuration, because another machine is not well: not its fault.
fn waits_for_others(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let wanted = draft.observed.wanted.get(&machine.name);
    let untold = matches!(draft.observed.agents.get(&machine.name), Some(AgentFacts::Heard(s)) if s.accepted.as_ref() != wanted);
    untold && draft.records().iter().any(|m| m.pool == machine.pool && m.name != machine.name && ill(draft, m).is_some())
}

fn stop(draft: &mut Draft<'_>, machine: &MachineRecord, part: Part, ill: &Ill) {
    let stopped = StoppedRoll { machine: machine.name.clone(), part, why: format!("waiting for {}", ill.what), since: draft.now };
    let patience = draft.spec.pace.step_timeout_seconds;
    let because = format!("{} was told {} and is not well after {patience} s: {}", machine.name, machine.versions, ill.what);
    let from = draft.observed.cluster.upgrade.clone();
    let target = draft.spec.control_plane.versions;
    // A pool may be upgraded when the control plane's upgrade is over: then the record says no more than that the roll stands still.
    let fresh = || UpgradeRecord { from: target, to: target, snapshot: String::new(), since: draft.now, stopped: None };
    let to = UpgradeRecord { stopped: Some(stopped.clone()), ..from.clone().unwrap_or_else(fresh) };
    draft.decide(Action::RecordUpgrade { from, to: Some(to) }, because);
    let since: Timestamp = stopped.since;
    draft.wait_after(&machine.name, Reason::UpgradeStopped, format!("it to come back after {part} was exchanged"), since, &stopped.why);
}
