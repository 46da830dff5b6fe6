//! Dead control planes: their records are taken away one at a time, as far as etcd's quorum bears it; `membership` removes the members, `size` makes
//! the successors.
//!
//! What etcd does not bear is not done: then only a person can bring machines back, or restore a snapshot.

use crate::dead::{Death, death};
use crate::draft::Draft;
use crate::quorum::{Votes, member_of, quorum};
use crate::zones::Zones;
use crate::{AgentFacts, MachineRecord, Reason, maintenance};

/// Takes dead control planes away, one voter at a time.
pub(crate) fn control_planes(draft: &mut Draft<'_>, votes: &Votes<'_>) {
    if draft.cloud().is_none() {
        return;
    }
    let staying: Vec<&MachineRecord> = draft.control_planes().collect();
    let mut dead: Vec<(&MachineRecord, Death)> = staying.iter().filter_map(|m| death(draft, m).map(|d| (*m, d))).collect();
    dead.sort_by_key(|(m, d)| (!draft.is_gone(m), d.since, m.ordinal));
    if dead.is_empty() {
        return;
    }
    let zones = Zones::of(draft);
    let voters_leaving =
        draft.leaving_control_planes().filter(|m| member_of(votes.etcd, m).is_some_and(|m| !m.learner && !votes.answers(m)));
    let mut busy = voters_leaving.count() > 0;
    let lost = dead.iter().filter(|(m, _)| member_of(votes.etcd, m).is_some_and(|m| !m.learner)).count();
    for (machine, death) in dead {
        if zones.hold(draft, machine, death.since) {
            continue;
        }
        if !maintenance::may_heal(draft, &format!("{} is dead and is replaced then", machine.name)) {
            continue;
        }
        let voter = member_of(votes.etcd, machine).filter(|m| !m.learner);
        match voter {
            Some(member) if !votes.bear_its_loss(member) => unbearable(draft, votes, machine, &death, lost),
            Some(_) if busy => draft.wait_on(&machine.name, Reason::ReplacingOthersFirst, "its replacement", death.since),
            Some(_) => {
                busy = true;
                let (without, count) = (votes.answering().len(), votes.count());
                replace(draft, machine, &death, &format!("{without} of {count} members of etcd answer, which bears its loss"));
            }
            None => replace(draft, machine, &death, "it has no vote in etcd"),
        }
    }
}

fn replace(draft: &mut Draft<'_>, machine: &MachineRecord, death: &Death, bearing: &str) {
    draft.take_away_because(machine, death.why, format!("{}; {bearing}", death.because));
    draft.wait_after(&machine.name, Reason::ControlPlaneMachineDead, "it to be replaced", death.since, death.because);
}

/// Its loss is more than etcd bears: by lost machines alone, or because others do not answer at the moment.
fn unbearable(draft: &mut Draft<'_>, votes: &Votes<'_>, machine: &MachineRecord, death: &Death, lost: usize) {
    let count = votes.count();
    let told = format!("{} of {count} members answer, and {} have to", votes.answering().len(), quorum(count));
    if count.saturating_sub(lost) < quorum(count) {
        draft.wait_after(
            &machine.name,
            Reason::RestoreNeeded,
            format!("a restore, or its machine back: {told}"),
            death.since,
            death.because,
        );
    } else {
        draft.wait_after(&machine.name, Reason::MemberUnhealthy, format!("other members to answer: {told}"), death.since, death.because);
    }
}

/// Without a quorum nobody says who is a member. Then records have to do: too many machines are lost for good, or the others only have to come back.
pub(crate) fn without_quorum(draft: &mut Draft<'_>) {
    let founders = &draft.observed.cluster.founders;
    let joined = |m: &&MachineRecord| m.is_control_plane() && (m.join.is_some() || founders.contains(&m.name));
    // Those that are gone and were being taken away are no members any more, as far as anybody can tell.
    let past = |m: &MachineRecord| m.deleting.is_some() && draft.is_gone(m);
    let members: Vec<&MachineRecord> = draft.records().iter().filter(joined).filter(|m| !past(m)).collect();
    let lost: Vec<&MachineRecord> = members.iter().copied().filter(|m| is_lost(draft, m)).collect();
    let (alive, needed) = (members.len().saturating_sub(lost.len()), quorum(members.len()));
    if members.is_empty() || alive >= needed {
        return;
    }
    for machine in lost {
        let what = format!("a restore, or its machine back: {alive} of {} control planes are left, and {needed} have to be", members.len());
        draft.wait_on(&machine.name, Reason::RestoreNeeded, what, machine.created);
    }
}

/// Whether a member's machine has certainly lost its disk.
fn is_lost(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let forgot = match draft.observed.agents.get(&machine.name) {
        Some(AgentFacts::Heard(state)) => state.accepted.is_none() && machine.join.is_none(),
        Some(AgentFacts::Silent { .. } | AgentFacts::Answering) | None => false,
    };
    draft.is_gone(machine) || (machine.claimed && forgot)
}
