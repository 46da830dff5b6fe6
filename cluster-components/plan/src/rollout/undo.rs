//! A step that fails: the roll stops, that is written down, and then the machine is told its old versions again, where that is possible.
//!
//! ```text
//! told new versions ─► not well when its time is over ─► stopped recorded ─► old versions told ─► stands still ─► the spec wants something else ─► goes on
//! ```
//! In this order, so that a crash in between does not forget that the step failed: the roll would try it again and again.

use super::well::{Ill, ill};
use super::{PARTS, has_followed, serving, skew, target, tell};
use crate::dead::is_dead;
use crate::draft::Draft;
use crate::{Action, AgentFacts, MachineRecord, Reason, StoppedRoll, UpgradeRecord, VersionChange, reconfigure};
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
    let plane = machine.map_or(stopped.part != Part::Node, MachineRecord::is_control_plane);
    // What failed: a control plane's part of the target that is recorded, or a pool's target.
    let failed = if plane { Some(record.to) } else { machine.and_then(|m| target(draft, m)) };
    let still_told = machine.filter(|m| failed.is_some_and(|f| !m.versions.differs(stopped.part, &f)));
    let undone = machine.is_some_and(|m| m.changed.as_ref().is_some_and(|c| failed.is_some_and(|f| !c.from.differs(stopped.part, &f))));

    if plane && record.to != draft.spec.control_plane.versions {
        // The target has turned, which `begin` writes down: after what failed was undone, or everything would wait for it to come back.
        return still_told.is_some_and(|m| undo(draft, m, stopped));
    }
    // What was told after the stop is the undoing, even where it is what a pool wants by now; and a machine may come back after all.
    let after = |m: &MachineRecord| m.changed.as_ref().is_some_and(|c| c.at > stopped.since);
    let because = match still_told {
        Some(m) if ill(draft, m).is_none() => format!("{} is well with {}", m.name, m.versions),
        Some(m) if !plane && after(m) => format!("the pool of {} wants what it was told when its change was undone", m.name),
        None if !plane && !undone => format!("{} is gone, or its pool wants other versions than those that failed", stopped.machine),
        Some(_) | None => String::new(),
    };
    if !because.is_empty() {
        let to = Some(UpgradeRecord { stopped: None, ..record.clone() }).filter(is_of_control_plane);
        draft.decide(Action::RecordUpgrade { from: Some(record.clone()), to }, because);
        return true;
    }
    if let Some(machine) = still_told {
        undo(draft, machine, stopped);
    }
    let told = if still_told.is_none() { "; it was told its old versions again" } else { "" };
    let what = format!("another version in the spec: {} did not come back after {} was exchanged{told}", stopped.machine, stopped.part);
    draft.wait_after(&stopped.machine, Reason::UpgradeStopped, what, stopped.since, &stopped.why);
    true
}

/// Whether a record is more than that a pool's roll stands still: an upgrade that began with preflight and a snapshot. Nothing else may lead control planes on.
fn is_of_control_plane(record: &UpgradeRecord) -> bool {
    !record.snapshot.is_empty()
}

/// Tells a machine its old versions again, where they may come back.
fn undo(draft: &mut Draft<'_>, machine: &MachineRecord, stopped: &StoppedRoll) -> bool {
    let Some(change) = &machine.changed else { return false };
    match undoable(draft, machine, change) {
        Ok(()) => {
            let because = format!("{} did not come back after {} was exchanged ({})", machine.name, stopped.part, stopped.why);
            tell(draft, machine, change.from, because);
            true
        }
        Err(why) => {
            let what = format!("somebody: it cannot be told its old versions again: {why}");
            draft.wait_on(&machine.name, Reason::UpgradeStopped, what, stopped.since);
            false
        }
    }
}

/// A machine that has not followed yet is to run something else by now: it is told first what it ran before, so that it is known what it runs. Only if that
/// is what is wanted, or older: what was taken back once is not taken back again.
///
/// One that waits for another configuration runs what its record says.
pub(super) fn take_back(draft: &mut Draft<'_>, machine: &MachineRecord, target: &MachineVersions) {
    let Some(change) = machine.changed.as_ref().filter(|_| !reconfigure::awaits(draft, machine)) else { return };
    let changed = || PARTS.into_iter().filter(|p| machine.versions.differs(*p, &change.from));
    let unwanted = changed().any(|p| machine.versions.differs(p, target));
    let where_to = changed().all(|p| !change.from.differs(p, target)) || change.from < machine.versions;
    if unwanted && where_to && undoable(draft, machine, change).is_ok() {
        tell(draft, machine, change.from, "it has not followed yet, and the spec does not want that any more: first it is what it was");
    }
}

/// Whether the old versions may come back.
fn undoable(draft: &Draft<'_>, machine: &MachineRecord, change: &VersionChange) -> Result<(), String> {
    skew(draft, &machine.name, change.from).map_err(|v| v.to_string())?;
    let others: Vec<&MachineRecord> = serving(draft).filter(|m| m.name != machine.name).collect();
    no_return(&[machine], &others, &change.from).map_or(Ok(()), Err)
}

/// Why etcd cannot go back to the minor in `to`, if it cannot: etcd raises the cluster's version when every member has the new minor, and from then on
/// the old one refuses the data (<https://etcd.io/docs/v3.6/upgrades/>). As long as a single member has the old one, all may go back.
pub(super) fn no_return(back: &[&MachineRecord], others: &[&MachineRecord], to: &MachineVersions) -> Option<String> {
    let minor = |v: &MachineVersions| v.control_plane.map(|v| (v.etcd.major, v.etcd.minor));
    let moves = back.iter().any(|m| minor(&m.versions) > minor(to));
    let old = back.iter().chain(others).any(|m| minor(&m.versions) == minor(to));
    let etcd = to.control_plane.map(|v| v.etcd.to_string()).unwrap_or_default();
    (moves && !old).then(|| {
        format!("every etcd member was told a newer minor than {etcd}, which is the point of no return: hold etcd's version, or restore the snapshot")
    })
}

/// The part and what is wrong, if a machine was told new versions and is not well although its time is over. Asks for another look when only time is missing.
fn failure(draft: &mut Draft<'_>, machine: &MachineRecord) -> Option<(Part, Ill)> {
    let change = machine.changed.as_ref()?;
    let part = PARTS.into_iter().find(|p| machine.versions.differs(*p, &change.from))?;
    let ill = ill(draft, machine).filter(|_| is_seen(draft, machine))?;
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

/// Whether anything is known of a machine by now. An operator that has just begun, or cannot read a Secret, knows nothing of one that may be well.
fn is_seen(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let spoken_to = match draft.observed.agents.get(&machine.name) {
        Some(AgentFacts::Heard(_) | AgentFacts::Silent { .. }) => true,
        Some(AgentFacts::Answering) | None => false,
    };
    spoken_to && draft.observed.wanted.contains_key(&machine.name)
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
    // Its kubelet is what it was told, so that what it makes real now came after the step.
    if ill.reason == Reason::ApplyingConfiguration && has_followed(draft, machine) {
        return false;
    }
    // That the API does not answer is no worker's fault.
    if ill.reason == Reason::WaitingForApi && !machine.is_control_plane() {
        return false;
    }
    let last = serving(draft).filter_map(|m| m.changed.as_ref().map(|c| c.at)).max();
    !machine.is_control_plane() || (draft.observed.cluster.upgrade.is_some() && last == Some(change.at))
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
