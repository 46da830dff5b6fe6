//! Control planes changed in place: stage after stage, machine after machine, each only while all of them are well.

use super::well::{Ill, ill, is_settled, soaks_until};
use super::{PARTS, begin, goes_back, node, replace, serving, skew, tell, undo};
use crate::draft::Draft;
use crate::quorum::is_of;
use crate::{Action, EtcdFacts, MachineRecord, MemberFacts, Reason, departure, maintenance};
use jiff::Timestamp;
use slipway_model::{MachineName, MachineVersions, Part, Strategy};

/// Parts of one machine that are told together, in the order of an upgrade. Going back takes the reverse.
const STAGES: [&[Part]; 3] = [&[Part::Etcd], &[Part::ApiServer], &[Part::Controllers, Part::Node]];

/// The next step, if there is one to be made now.
pub(super) fn roll(draft: &mut Draft<'_>) {
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    if replace::refused(draft, draft.spec.control_plane.allow, &planes) {
        return;
    }
    let under_way = begin::under_way(draft);
    if under_way && draft.spec.control_plane.strategy == Strategy::InPlace {
        in_place(draft, &planes);
    } else {
        replace::control_planes(draft, &planes);
    }
}

fn in_place(draft: &mut Draft<'_>, planes: &[&MachineRecord]) {
    let target = draft.spec.control_plane.versions;
    // Those that are ahead of it go back first, and leave the others alone: one that is behind would only meet versions that are about to go.
    let ahead: Vec<&MachineRecord> = planes.iter().copied().filter(|m| is_ahead(m, &target)).collect();
    let (group, back) = if ahead.is_empty() { (planes.to_vec(), false) } else { (ahead, true) };
    let stage = |parts: &&&[Part]| group.iter().any(|m| parts.iter().any(|p| m.versions.differs(*p, &target)));
    let next = if back { STAGES.iter().rev().find(stage) } else { STAGES.iter().find(stage) };
    let Some(parts) = next else { return };
    let behind: Vec<&MachineRecord> = group.iter().copied().filter(|m| parts.iter().any(|p| m.versions.differs(*p, &target))).collect();
    let names = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if !maintenance::may_disturb(draft, &format!("{names} of {} come then", list(&behind))) {
        return;
    }
    let since = draft.observed.cluster.upgrade.as_ref().map_or(draft.observed.cluster.created, |u| u.since);
    draft.wait(Reason::Upgrading, format!("{names} of {} to be {}", list(&behind), of(parts, &target)), since);
    let Some(etcd) = draft.etcd() else { return };
    let mut by_turn = behind.clone();
    by_turn.sort_by_key(|m| (leads(etcd, m), m.ordinal));
    let turn = match readiness(draft, planes, etcd) {
        Readiness::Well => by_turn.first().copied(),
        Readiness::Soaking(until) => {
            draft.look_at(until);
            return empty_next(draft, &by_turn, parts, &target);
        }
        // One that is ill itself comes first: the change may cure it, and nobody else is touched.
        Readiness::OneIll(name) => {
            let changed = behind.iter().copied().find(|m| m.name == name).filter(|m| may_be_changed_ill(draft, m, &target));
            if changed.is_none() && follows(draft, planes, &name) {
                by_turn.retain(|m| m.name != name);
                return empty_next(draft, &by_turn, parts, &target);
            }
            changed
        }
        Readiness::Unsettled => None,
    };
    if let Some(machine) = turn {
        step(draft, machine, parts, &target, etcd);
    }
}

/// Empties the Node that is exchanged next: that disturbs no component of the control plane, so it need not wait for the machine before.
fn empty_next(draft: &mut Draft<'_>, by_turn: &[&MachineRecord], parts: &[Part], target: &MachineVersions) {
    if let Some(next) = by_turn.first()
        && parts.contains(&Part::Node)
    {
        node::emptied(draft, next, target);
    }
}

/// Whether a machine is not well only because it follows what it was told a moment ago.
fn follows(draft: &Draft<'_>, planes: &[&MachineRecord], name: &MachineName) -> bool {
    planes.iter().any(|m| m.name == *name && super::is_in_step(draft, m) && !is_settled(draft, m))
}

/// One machine's step of a stage.
fn step(draft: &mut Draft<'_>, machine: &MachineRecord, parts: &[Part], target: &MachineVersions, etcd: &EtcdFacts) {
    let to = parts.iter().fold(machine.versions, |to, part| to.with(*part, target));
    let since = machine.changed.as_ref().map_or(machine.created, |c| c.at);
    if let Err(violation) = skew(draft, &machine.name, to) {
        draft.wait_after(&machine.name, Reason::VersionSkew, "others to be changed first", since, &violation.to_string());
        return;
    }
    if parts.contains(&Part::Etcd)
        && leads(etcd, machine)
        && let (Some(leader), Some(heir)) = (etcd.leader(), heir(etcd))
    {
        let because = format!("etcd of {} is to be exchanged, and it leads: handing over costs no election", machine.name);
        draft.decide(Action::MoveLeader { machine: machine.name.clone(), from: leader.id, to: heir.id }, because);
        return;
    }
    if parts.contains(&Part::Node) && !node::emptied(draft, machine, &to) {
        return;
    }
    let names = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let because = format!(
        "{names} come next, and it is the turn of {}: every control plane is well and has been for {} good probes in a row",
        machine.name, draft.spec.pace.soak_probes
    );
    tell(draft, machine, to, because);
}

/// Whether the control plane is to go back to what it ran before. Then everything goes in the reverse order.
pub(super) fn is_back(planes: &[&MachineRecord], target: &MachineVersions) -> bool {
    planes.iter().any(|m| is_ahead(m, target))
}

fn is_ahead(machine: &MachineRecord, target: &MachineVersions) -> bool {
    PARTS.iter().any(|p| goes_back(*p, &machine.versions, target))
}

/// Whether another control plane may be disturbed.
pub(super) enum Readiness {
    /// All are well and have been for long enough.
    Well,
    /// All are well, but have to stay so until then.
    Soaking(Timestamp),
    /// Only this one is not.
    OneIll(MachineName),
    /// The membership changes, or several are ill.
    Unsettled,
}

/// Whether another control plane may be disturbed now. Says what is waited for.
pub(super) fn readiness(draft: &mut Draft<'_>, planes: &[&MachineRecord], etcd: &EtcdFacts) -> Readiness {
    // What this very plan does to etcd's membership comes first.
    if draft.membership_changes {
        return Readiness::Unsettled;
    }
    if let Some(Ill { reason, what, since }) = unsettled(draft, planes, etcd) {
        draft.wait(reason, what, since);
        return Readiness::Unsettled;
    }
    let sick: Vec<(&MachineRecord, Ill)> = planes.iter().filter_map(|m| ill(draft, m).map(|i| (*m, i))).collect();
    for (machine, Ill { reason, what, since }) in &sick {
        draft.wait_on(&machine.name, *reason, what.clone(), *since);
    }
    match sick.as_slice() {
        [] => {}
        [(one, _)] => return Readiness::OneIll(one.name.clone()),
        _ => return Readiness::Unsettled,
    }
    let soaking = planes.iter().filter_map(|m| soaks_until(draft, m).map(|until| (until, *m))).max_by_key(|(until, _)| *until);
    match soaking {
        Some((until, machine)) => {
            let since = machine.changed.as_ref().map_or(machine.created, |c| c.at);
            draft.wait_on(&machine.name, Reason::Soaking, format!("{} good probes in a row", draft.spec.pace.soak_probes), since);
            Readiness::Soaking(until)
        }
        None => Readiness::Well,
    }
}

/// What is not as it should be about the control plane as a whole.
fn unsettled(draft: &Draft<'_>, planes: &[&MachineRecord], etcd: &EtcdFacts) -> Option<Ill> {
    let created = draft.observed.cluster.created;
    let ill = |reason, what: String, since| Some(Ill { reason, what, since });
    if let Some(leaving) = draft.leaving_control_planes().find(|m| !departure::is_set_aside(draft, m)) {
        return ill(Reason::ScalingControlPlane, format!("{} to be gone", leaving.name), leaving.deleting.unwrap_or(created));
    }
    if let Some(learner) = etcd.members.iter().find(|m| m.learner) {
        return ill(Reason::MemberJoining, format!("etcd member {} to get its vote", learner.id), created);
    }
    if let Some((silent, since)) = etcd.voters().find_map(|m| match &m.status {
        crate::Fact::Unknown { since, .. } => Some((m, *since)),
        crate::Fact::Known(_) => None,
    }) {
        return ill(Reason::MemberUnhealthy, format!("etcd member {} ({}) to answer", silent.id, silent.name), since);
    }
    if etcd.leader().is_none() {
        return ill(Reason::MemberUnhealthy, "etcd to have a leader".into(), created);
    }
    let wanted = usize::try_from(draft.spec.control_plane.replicas.saturating_add(draft.surge)).unwrap_or(usize::MAX);
    if planes.len() != wanted || etcd.voters().count() != wanted {
        let what = format!("{wanted} control planes with a vote each ({} machines, {} voters)", planes.len(), etcd.voters().count());
        return ill(Reason::ScalingControlPlane, what, created);
    }
    None
}

/// Whether an ill machine may be changed: only where the spec does not want any more what it was told last, and it is known what it runs. Whatever else is
/// ill is waited for: its step has to end, well or undone.
fn may_be_changed_ill(draft: &mut Draft<'_>, machine: &MachineRecord, target: &MachineVersions) -> bool {
    if !is_settled(draft, machine) {
        undo::take_back(draft, machine, target);
        return false;
    }
    let told = machine.changed.as_ref().map(|c| c.from);
    told.is_some_and(|from| PARTS.into_iter().any(|p| machine.versions.differs(p, &from) && machine.versions.differs(p, target)))
}

/// Whether a machine's member leads.
pub(super) fn leads(etcd: &EtcdFacts, machine: &MachineRecord) -> bool {
    etcd.leader().is_some_and(|l| is_of(l, machine))
}

/// Who takes leadership over: a voter that answers, of the newest version: it will not have to hand it over again.
fn heir(etcd: &EtcdFacts) -> Option<&MemberFacts> {
    let answering = etcd.voters().filter_map(|m| m.status.known().map(|s| (m, s)));
    answering.filter(|(_, s)| !s.leader).max_by_key(|(m, s)| (s.version, std::cmp::Reverse(m.id))).map(|(m, _)| m)
}

fn list(machines: &[&MachineRecord]) -> String {
    machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The versions of some parts, for people.
fn of(parts: &[Part], target: &MachineVersions) -> String {
    let one = |part: &Part| match (part, target.control_plane) {
        (Part::Etcd, Some(v)) => v.etcd.to_string(),
        (Part::ApiServer, Some(v)) => v.api_server.to_string(),
        (Part::Controllers, Some(v)) => v.controllers.to_string(),
        _ => format!("{} (containerd {})", target.node.kubelet, target.node.containerd),
    };
    parts.iter().map(one).collect::<Vec<_>>().join(" and ")
}
