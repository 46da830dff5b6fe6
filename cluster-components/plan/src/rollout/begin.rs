//! An upgrade's beginning and end: preflight, snapshot, and the record that says that it is under way.
//!
//! The record is what makes calling it off possible: only while it stands may versions go back to where they came from.

use super::control_plane::{Readiness, leads, readiness};
use super::undo::no_return;
use super::well::ill;
use super::{PARTS, goes_back, serving};
use crate::draft::Draft;
use crate::{Action, EtcdFacts, Fact, MachineRecord, Reason, SnapshotFacts, UpgradeRecord, departure, maintenance, preflight};
use jiff::{SignedDuration, Timestamp};
use slipway_model::MachineVersions;

/// How old a snapshot may be when the upgrade begins.
const SNAPSHOT_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Whether machines of the control plane may be changed towards the target: an upgrade to it is recorded. Otherwise the next step towards that.
pub(super) fn under_way(draft: &mut Draft<'_>) -> bool {
    let target = draft.spec.control_plane.versions;
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    let counts = |m: &&MachineRecord| m.is_control_plane() && !departure::is_set_aside(draft, m);
    let differs = draft.records().iter().filter(counts).any(|m| m.versions != target);
    match (&draft.observed.cluster.upgrade, differs) {
        (None, false) => false,
        (None, true) => {
            begin(draft, &planes, &target);
            false
        }
        (Some(record), false) => {
            end(draft, &planes, record);
            false
        }
        (Some(record), true) if record.to != target => {
            turn(draft, record, &target);
            false
        }
        (Some(_), true) => true,
    }
}

/// The spec wants something else now: another version, or what there was before.
fn turn(draft: &mut Draft<'_>, record: &UpgradeRecord, target: &MachineVersions) {
    if let Some(part) = PARTS.into_iter().find(|p| goes_back(*p, &record.from, target)) {
        let what =
            format!("a version not older than before the upgrade: {part} was {}, and going back further would be a downgrade", record.from);
        draft.wait(Reason::PreflightFailed, what, record.since);
        return;
    }
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    if let Some(why) = no_return(&planes, &[], target) {
        draft.wait(Reason::PreflightFailed, format!("a version that can be gone back to: {why} {}", record.snapshot), record.since);
        return;
    }
    let because = match *target == record.from {
        true => format!("the spec wants {target} again: the upgrade is called off"),
        false => format!("the spec wants {target} now"),
    };
    let to = UpgradeRecord { to: *target, stopped: None, ..record.clone() };
    draft.decide(Action::RecordUpgrade { from: Some(record.clone()), to: Some(to) }, because);
}

/// Every control plane was told what is wanted: it is over when all of them are well with it.
fn end(draft: &mut Draft<'_>, planes: &[&MachineRecord], record: &UpgradeRecord) {
    let sick: Vec<_> = planes.iter().filter_map(|m| ill(draft, m).map(|i| (*m, i))).collect();
    if sick.is_empty() {
        let because = format!("every control plane is well with {}", record.to);
        draft.decide(Action::RecordUpgrade { from: Some(record.clone()), to: None }, because);
    }
    for (machine, ill) in sick {
        draft.wait_on(&machine.name, ill.reason, ill.what, ill.since);
    }
}

fn begin(draft: &mut Draft<'_>, planes: &[&MachineRecord], target: &MachineVersions) {
    let created = draft.observed.cluster.created;
    match preflight::problems(draft, planes, target) {
        Ok(found) if found.is_empty() => {}
        Ok(found) => {
            for problem in found {
                draft.wait(Reason::PreflightFailed, format!("this to be mended before the upgrade begins: {problem}"), created);
            }
            return;
        }
        Err(what) => {
            draft.wait(Reason::Upgrading, what, created);
            return;
        }
    }
    if !maintenance::may_disturb(draft, &format!("the upgrade of the control plane to {target} begins then")) {
        return;
    }
    let Some(etcd) = draft.etcd() else { return };
    match readiness(draft, planes, etcd) {
        Readiness::Well => {}
        Readiness::Soaking(until) => return draft.look_at(until),
        Readiness::OneIll(_) | Readiness::Unsettled => return,
    }
    let Some(snapshot) = snapshot(draft, planes, etcd, target) else { return };
    let Some(from) = oldest(planes) else { return };
    let record = UpgradeRecord { from, to: *target, snapshot: snapshot.clone(), since: draft.now, stopped: None };
    let because = format!("nothing speaks against {target}, every control plane is well, and snapshot {snapshot} is complete");
    draft.decide(Action::RecordUpgrade { from: None, to: Some(record) }, because);
}

/// The name of a snapshot that was taken for this upgrade and is complete; otherwise it is taken.
fn snapshot(draft: &mut Draft<'_>, planes: &[&MachineRecord], etcd: &EtcdFacts, target: &MachineVersions) -> Option<String> {
    let created = draft.observed.cluster.created;
    let known = match &draft.observed.snapshots {
        Fact::Known(known) => known,
        Fact::Unknown { why, since } => {
            draft.wait(Reason::CannotObserve, format!("the EtcdSnapshot objects to be seen again ({why})"), *since);
            return None;
        }
    };
    let version = target.control_plane.map_or(target.node.kubelet, |v| v.api_server);
    let prefix = format!("{}-before-{version}-", draft.spec.name);
    let number = |s: &SnapshotFacts| s.name.strip_prefix(&prefix).and_then(|n| n.parse::<u32>().ok());
    let last = known.iter().filter_map(|s| number(s).map(|n| (n, s))).max_by_key(|(n, _)| *n);
    let next = match last {
        Some((_, s)) if s.completed.is_some_and(|at| is_fresh(draft, planes, at)) => return Some(s.name.clone()),
        // An earlier upgrade's, or from before something hindered this one.
        Some((n, s)) if s.completed.is_some() => n.saturating_add(1),
        Some((n, _)) => n,
        None => 1,
    };
    let name = format!("{prefix}{next}");
    let trouble = last.filter(|(n, _)| *n == next).and_then(|(_, s)| s.trouble.clone()).unwrap_or_default();
    // A follower has less to do than the leader.
    let from = planes.iter().min_by_key(|m| (leads(etcd, m), m.ordinal))?;
    draft.decide(
        Action::TakeSnapshot { snapshot: name.clone(), machine: from.name.clone() },
        format!("nothing is changed before what etcd holds is safe; {} does not lead, or is alone", from.name),
    );
    draft.wait_after(&from.name, Reason::TakingSnapshot, format!("snapshot {name} to be complete"), created, &trouble);
    None
}

/// Whether a snapshot holds what the cluster is now: it is young, and nothing was changed since.
fn is_fresh(draft: &Draft<'_>, planes: &[&MachineRecord], completed: Timestamp) -> bool {
    let changed = planes.iter().filter_map(|m| m.changed.as_ref().map(|c| c.at)).max();
    let young = completed.saturating_add(SNAPSHOT_AGE).unwrap_or(completed) > draft.now;
    young && changed.is_none_or(|at| at < completed)
}

/// What the control plane runs: of machines that differ, what the least advanced does.
fn oldest(planes: &[&MachineRecord]) -> Option<MachineVersions> {
    planes.iter().map(|m| m.versions).min()
}
