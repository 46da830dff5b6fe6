//! etcd's membership after the founding: one change at a time, the safest first, and none while etcd cannot be asked.
//!
//! ```text
//!            AddMember            plan applied           in sync: PromoteMember
//!  claimed ────────────► learner ─────────────► started ─────────────────────► voter
//!                           │ its machine goes               ▲                    │ its machine is dead, or left (`departure`),
//!                           └──────────► RemoveMember        └─ waits             └──────────► RemoveMember, as far as the quorum bears it
//! ```
//! In this order: learners that lead nowhere, learners in sync, dead voters, voters of no machine, voters that leave, machines that join.

use crate::dead::death;
use crate::draft::{DEAD_AFTER, Draft};
use crate::quorum::{Votes, member_of, owner};
use crate::{Action, Certificates, EtcdFacts, Fact, MachineRecord, MemberFacts, Reason, departure};
use jiff::{SignedDuration, Timestamp};
use slipway_model::MachineName;

/// For how long all voters must have answered before etcd takes another member in: it refuses earlier.
pub const STABLE_FOR: SignedDuration = SignedDuration::from_secs(5);

/// The next change, if any may be made now.
pub(crate) fn step(draft: &mut Draft<'_>, votes: &Votes<'_>) {
    let changed =
        learners(draft, votes) || dead(draft, votes) || strangers(draft, votes) || departure::step(draft, votes) || join(draft, votes);
    draft.membership_changes |= changed;
}

/// a, b: learners. Removing one never endangers the quorum.
fn learners(draft: &mut Draft<'_>, votes: &Votes<'_>) -> bool {
    for member in votes.etcd.members.iter().filter(|m| m.learner) {
        let Some(machine) = owner(draft, member) else {
            remove(draft, None, member, "it is a learner, and no machine is its");
            return true;
        };
        if cannot_start(votes, machine, member) {
            remove(draft, Some(&machine.name), member, "etcd has other members by now than it was told to start with");
            return true;
        }
        if machine.deleting.is_some() {
            remove(draft, Some(&machine.name), member, "its machine is being taken away before it had a vote");
            return true;
        }
        if member.status.known().is_some_and(|s| s.in_sync) && !draft.is_taken(&machine.name) {
            let action = Action::PromoteMember { machine: machine.name.clone(), member: member.id };
            draft.decide(action, "it has caught up with the leader");
            return true;
        }
        draft.wait_on(&machine.name, Reason::MemberJoining, "its etcd member to catch up with the leader", machine.created);
    }
    false
}

/// A member starts for the first time only with exactly the members that etcd has: one that was told of others never will.
fn cannot_start(votes: &Votes<'_>, machine: &MachineRecord, member: &MemberFacts) -> bool {
    let told = machine.join.as_ref().filter(|j| j.member == member.id && member.name.is_empty());
    told.is_some_and(|join| !votes.etcd.is_told_by(join))
}

/// c: voters of dead machines whose record is being taken away, and of those that a person deleted and that do not answer.
fn dead(draft: &mut Draft<'_>, votes: &Votes<'_>) -> bool {
    for member in votes.etcd.voters().filter(|m| !votes.answers(m)) {
        let Some(machine) = owner(draft, member).filter(|m| m.deleting.is_some()) else { continue };
        let since = machine.deleting.unwrap_or(machine.created);
        if death(draft, machine).is_none() && !is_silent(draft, member) {
            draft.wait_on(&machine.name, Reason::MemberUnhealthy, "its etcd member to answer, or to be silent for longer", since);
        } else if votes.bear_its_loss(member) {
            let because = format!("it does not answer, and {} of {} members do", votes.without(member), votes.count());
            remove(draft, Some(&machine.name), member, &because);
            return true;
        } else {
            let what = format!("more members to answer: without it {} of {} do", votes.without(member), votes.count());
            draft.wait_on(&machine.name, Reason::MemberUnhealthy, what, since);
        }
    }
    false
}

/// Whether a member has not answered for so long that it is not merely being restarted. Asks for another look when only time is missing.
fn is_silent(draft: &mut Draft<'_>, member: &MemberFacts) -> bool {
    let Fact::Unknown { since, .. } = &member.status else { return false };
    let due = since.saturating_add(DEAD_AFTER).unwrap_or(*since);
    if draft.now < due {
        draft.look_at(due);
    }
    draft.now >= due
}

/// d: voters of no machine: its record was removed by force.
fn strangers(draft: &mut Draft<'_>, votes: &Votes<'_>) -> bool {
    let wanted = usize::try_from(draft.spec.control_plane.replicas).unwrap_or(usize::MAX);
    let strangers: Vec<&MemberFacts> = votes.etcd.voters().filter(|m| owner(draft, m).is_none()).collect();
    for member in strangers {
        let dispensable = if votes.answers(member) {
            votes.without(member) >= wanted && votes.bear_its_leave(member)
        } else {
            votes.bear_its_loss(member)
        };
        if dispensable {
            let name = member.name.parse::<MachineName>().ok();
            if let Some(name) = name.filter(|_| votes.answers(member))
                && hand_over(draft, votes, &name, member)
            {
                return true;
            }
            remove(draft, None, member, "no Machine object speaks of it, and the others are enough");
            return true;
        }
        let what = format!("a machine for etcd member {} ({}), whose Machine object is gone", member.name, member.id);
        draft.wait(Reason::ControlPlaneMachineLost, what, draft.observed.cluster.created);
    }
    false
}

/// f: a claimed machine becomes a learner.
fn join(draft: &mut Draft<'_>, votes: &Votes<'_>) -> bool {
    let candidates: Vec<&MachineRecord> = draft.control_planes().filter(|m| is_candidate(draft, m)).collect();
    let candidates = candidates.into_iter().filter(|m| member_of(votes.etcd, m).is_none_or(|m| m.learner));
    // One that etcd has already and whose record is missing comes first: all others wait for it.
    let Some(machine) = candidates.min_by_key(|m| member_of(votes.etcd, m).is_none()) else { return false };
    let Some(address) = machine.instance.as_ref().map(|i| i.address) else { return false };
    let wanted = draft.spec.control_plane.replicas.saturating_add(draft.surge);
    if draft.control_planes().count() > usize::try_from(wanted).unwrap_or(usize::MAX) {
        draft.wait_on(&machine.name, Reason::ScalingControlPlane, "machines that are too many to be gone", machine.created);
        return false;
    }
    // The answer to an earlier call was lost: it is asked again, for the same member.
    let begun = member_of(votes.etcd, machine).is_some();
    let another = votes.etcd.members.iter().any(|m| m.learner && owner(draft, m).is_none_or(|o| o.name != machine.name));
    if another {
        draft.wait_on(&machine.name, Reason::MemberJoining, "its turn: etcd's members change one at a time", machine.created);
        return false;
    }
    if !begun && !stable(draft, votes, machine) {
        return false;
    }
    let action = Action::AddMember { machine: machine.name.clone(), uid: machine.uid.clone(), address };
    draft.decide(action, format!("every one of {} voters answers, and no other member is joining", votes.count()));
    true
}

/// Claimed, heard, equipped, and in no way a member yet.
fn is_candidate(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let founder = draft.observed.cluster.founders.contains(&machine.name);
    let certified = draft.observed.secrets.known().is_some_and(|s| s.of(&machine.name).certificates != Certificates::Missing);
    machine.claimed
        && machine.join.is_none()
        && !founder
        && certified
        && draft.heard(&machine.name).is_some()
        && !draft.is_taken(&machine.name)
}

/// Whether etcd would take a member in now, or what for it is waited.
fn stable(draft: &mut Draft<'_>, votes: &Votes<'_>, machine: &MachineRecord) -> bool {
    let mut due: Option<Timestamp> = None;
    for member in votes.etcd.voters() {
        let Some(status) = member.status.known().filter(|_| votes.answers(member)) else {
            let what = format!("etcd to take it in: member {} does not answer", member.name);
            draft.wait_on(&machine.name, Reason::MemberUnhealthy, what, machine.created);
            return false;
        };
        let at = status.healthy_since.saturating_add(STABLE_FOR).unwrap_or(status.healthy_since);
        due = Some(due.map_or(at, |d| d.max(at)));
    }
    if let Some(at) = due.filter(|at| draft.now < *at) {
        draft.look_at(at);
        draft.wait_on(&machine.name, Reason::MemberJoining, "etcd's voters to be well for five seconds", machine.created);
        return false;
    }
    true
}

/// Removes a member. A voter only when nobody is about to start with the list that it is in.
pub(crate) fn remove(draft: &mut Draft<'_>, machine: Option<&MachineName>, member: &MemberFacts, because: &str) {
    let starting = draft.observed.etcd.known().filter(|_| !member.learner).and_then(EtcdFacts::starting);
    if let Some(starting) = starting {
        let since = draft.observed.cluster.created;
        let what = format!("etcd member {}, which joins, to have started: it was told of all members that there are", starting.id);
        match machine {
            Some(machine) => draft.wait_on(machine, Reason::MemberJoining, what, since),
            None => draft.wait(Reason::MemberJoining, what, since),
        }
        return;
    }
    draft.decide(Action::RemoveMember { machine: machine.cloned(), member: member.id }, because);
}

/// Hands leadership over if this member has it. Says whether it had.
pub(crate) fn hand_over(draft: &mut Draft<'_>, votes: &Votes<'_>, machine: &MachineName, member: &MemberFacts) -> bool {
    if !member.status.known().is_some_and(|s| s.leader) {
        return false;
    }
    let others = || votes.answering().iter().filter(|m| m.id != member.id);
    let stays = |m: &MemberFacts| owner(draft, m).is_some_and(|o| o.deleting.is_none());
    let Some(to) = others().find(|m| stays(m)).or_else(|| others().next()) else { return false };
    let action = Action::MoveLeader { machine: machine.clone(), from: member.id, to: to.id };
    draft.decide(action, "a leader that is removed costs an election; one that hands over does not");
    true
}
