//! How many control planes there are: what is missing is made at once (machines boot together and join one by one), what is too many goes one by one.

use crate::draft::Draft;
use crate::quorum::{Votes, member_of};
use crate::{MachineRecord, Reason, Removal, departure, maintenance, pools, rollout, zones};
use slipway_model::PoolName;

/// Makes and takes away machines of a control plane that was founded.
pub(crate) fn keep(draft: &mut Draft<'_>, votes: &Votes<'_>) {
    let staying: Vec<&MachineRecord> = draft.control_planes().collect();
    let wanted = draft.spec.control_plane.replicas.saturating_add(draft.surge);
    let there = u32::try_from(staying.len()).unwrap_or(u32::MAX);
    pools::grow(draft, &PoolName::control_plane(), wanted.saturating_sub(there));
    if there > wanted {
        shrink(draft, votes, &staying);
    }
}

/// Takes one away, when nobody else is on the way out.
fn shrink(draft: &mut Draft<'_>, votes: &Votes<'_>, staying: &[&MachineRecord]) {
    // One that only stays to be looked at is out of the way.
    if let Some(other) = draft.leaving_control_planes().find(|m| !departure::is_set_aside(draft, m)) {
        let (name, since) = (other.name.clone(), other.deleting.unwrap_or(other.created));
        draft.wait_on(&name, Reason::ScalingControlPlane, "it to be gone before the next one goes", since);
        return;
    }
    if staying.iter().any(|m| draft.is_taken(&m.name)) {
        return;
    }
    let Some(leaver) = staying.iter().min_by_key(|m| order(draft, votes, staying, m)) else { return };
    let votes_now = member_of(votes.etcd, leaver).is_some_and(|m| !m.learner);
    if votes_now && !maintenance::may_disturb(draft, &format!("{} leaves the control plane then", leaver.name)) {
        return;
    }
    let reason = because(draft, votes, leaver);
    draft.take_away_because(
        leaver,
        Removal::ScaleDown,
        format!("{} of {} control planes are wanted; {reason}", draft.spec.control_plane.replicas, staying.len()),
    );
}

/// Who goes first: those without a vote, then those that do not answer, then what a new machine would replace anyway, then those in over-full zones, the
/// leader last, and the youngest before the oldest.
fn order(draft: &Draft<'_>, votes: &Votes<'_>, staying: &[&MachineRecord], machine: &MachineRecord) -> impl Ord + use<> {
    let member = member_of(votes.etcd, machine).filter(|m| !m.learner);
    let answers = member.is_some_and(|m| votes.answers(m));
    let leads = member.is_some_and(|m| m.status.known().is_some_and(|s| s.leader));
    let zone = |m: &MachineRecord| zones::zone(draft, m);
    let neighbours = staying.iter().filter(|m| zone(m) == zone(machine)).count();
    let reverse = std::cmp::Reverse::<u32>;
    (member.is_some(), answers, !rollout::is_outdated(draft, machine), std::cmp::Reverse(neighbours), leads, reverse(machine.ordinal))
}

fn because(draft: &Draft<'_>, votes: &Votes<'_>, machine: &MachineRecord) -> &'static str {
    match member_of(votes.etcd, machine).filter(|m| !m.learner) {
        None => "this one has no vote in etcd yet",
        Some(member) if !votes.answers(member) => "this one's etcd member does not answer",
        Some(_) if rollout::is_outdated(draft, machine) => "this one is outdated",
        Some(_) => "of those in the fullest zone that do not lead etcd, this one is the youngest",
    }
}
