//! How a living control plane leaves: when etcd does not need its vote, and without anybody noticing.
//!
//! ```text
//! deletion asked for ─► others enough ─► drained ─► off the load balancer ─► Retire: API server ends its requests ─► MoveLeader ─► RemoveMember ─► `drain`
//! ```
//! It is drained while its API server still runs: its kubelet hears from no other.

use crate::dead::{is_dead, silent_since};
use crate::draft::{DEAD_AFTER, Draft, PROBE_API_SERVER, PROBE_ETCD};
use crate::quorum::{Votes, member_of};
use crate::{Action, MachineRecord, MemberFacts, Reason, drain, membership};
use jiff::Timestamp;

/// A voter that answers and whose machine is being taken away, with its member.
type Leaver<'a> = (&'a MachineRecord, &'a MemberFacts);

/// e: brings the one that leaves a step further; says whether membership was changed.
pub(crate) fn step(draft: &mut Draft<'_>, votes: &Votes<'_>) -> bool {
    let leavers = leavers(draft, votes);
    let next = next(draft, votes);
    for (machine, _) in leavers.iter().filter(|(m, _)| next.as_ref().is_none_or(|(n, _)| n.name != m.name)) {
        let since = machine.deleting.unwrap_or(machine.created);
        let wanted = draft.spec.control_plane.replicas;
        let what = format!("{wanted} members of etcd to be well without it, and its turn");
        draft.wait_on(&machine.name, Reason::WaitingForReplacement, what, since);
    }
    let Some((machine, member)) = next else { return false };
    let since = machine.deleting.unwrap_or(machine.created);
    if !machine.retiring {
        retire(draft, machine, since);
        return false;
    }
    if !has_retired(draft, machine) {
        draft.wait_on(&machine.name, Reason::Retiring, "its API server and controllers to end", since);
        return false;
    }
    if !is_enough(draft, votes, member) {
        draft.wait_on(&machine.name, Reason::MemberUnhealthy, "enough other members of etcd to answer again", since);
        return false;
    }
    if !membership::hand_over(draft, votes, &machine.name, member) {
        let because = format!("it leaves, and {} of {} members answer without it", votes.without(member), votes.count());
        membership::remove(draft, Some(&machine.name), member, &because);
    }
    true
}

/// The one that may leave now: one that has begun to before all others.
pub(crate) fn next<'a>(draft: &Draft<'a>, votes: &Votes<'a>) -> Option<Leaver<'a>> {
    let (machine, member) = leavers(draft, votes).into_iter().next()?;
    if machine.retiring {
        return Some((machine, member));
    }
    let ill = |m: &MachineRecord| member_of(votes.etcd, m).is_some_and(|m| !m.learner) && !serves(draft, m);
    let others_well = draft.control_planes().all(|m| !ill(m));
    (is_enough(draft, votes, member) && others_well).then_some((machine, member))
}

/// Whether etcd has the members that are wanted without this one.
fn is_enough(draft: &Draft<'_>, votes: &Votes<'_>, member: &MemberFacts) -> bool {
    let wanted = usize::try_from(draft.spec.control_plane.replicas).unwrap_or(usize::MAX);
    votes.without(member) >= wanted && votes.bear_its_leave(member)
}

/// Those that leave, in their order.
fn leavers<'a>(draft: &Draft<'a>, votes: &Votes<'a>) -> Vec<Leaver<'a>> {
    let voter =
        |m: &'a MachineRecord| member_of(votes.etcd, m).filter(|member| !member.learner && votes.answers(member)).map(|member| (m, member));
    let mut leavers: Vec<Leaver<'a>> = draft.leaving_control_planes().filter_map(voter).collect();
    leavers.sort_by_key(|(m, _)| (!m.retiring, m.deleting, m.ordinal));
    leavers
}

/// Whether a control plane does what it should; one that is not heard is not said to be ill as long as its member answers.
fn serves(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    match draft.heard(&machine.name) {
        Some(state) => {
            state.applied.is_some() && state.applied == state.accepted && state.healthy(PROBE_ETCD) && state.healthy(PROBE_API_SERVER)
        }
        None => !is_dead(draft, machine),
    }
}

fn retire(draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) {
    draft.wait_on(&machine.name, Reason::Retiring, "its pods and its clients to go elsewhere", since);
    let drained = drain::drained(draft, machine, since);
    let Some(cloud) = draft.cloud() else { return };
    let id = draft.instance(machine).map(|i| &i.id);
    let off = cloud.load_balancer.as_ref().is_none_or(|b| b.targets.iter().all(|t| Some(t) != id));
    if drained && off {
        let action = Action::Retire { machine: machine.name.clone(), uid: machine.uid.clone() };
        draft.decide(action, "enough others have a vote and are well, and no client is sent to it any more");
    }
}

/// Whether it has done what it was told, or will not: its agent is silent, or in trouble, for too long.
fn has_retired(draft: &mut Draft<'_>, machine: &MachineRecord) -> bool {
    let since = match draft.heard(&machine.name) {
        Some(state) => {
            let wanted = draft.observed.wanted.get(&machine.name);
            if wanted.is_some() && state.applied.as_ref() == wanted && state.accepted.as_ref() == wanted {
                return true;
            }
            state.trouble.as_ref().map(|t| t.since)
        }
        None => silent_since(draft, machine),
    };
    let Some(since) = since else { return false };
    let due = since.saturating_add(DEAD_AFTER).unwrap_or(since);
    if draft.now < due {
        draft.look_at(due);
    }
    draft.now >= due
}

/// Whether a machine that is being taken away does nothing any more and only stays because somebody wants to look at it: all else goes on as if it were
/// gone.
pub(crate) fn is_set_aside(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    if !machine.kept || machine.deleting.is_none() {
        return false;
    }
    if machine.is_control_plane() {
        return draft.observed.cluster.bootstrapped && is_released(draft, machine);
    }
    draft.node(&machine.name).is_none_or(|n| !n.ready || (n.unschedulable && n.pods.known().is_some_and(Vec::is_empty)))
}

/// Whether a control plane of a founded cluster that is being taken away holds nothing of etcd any more, so that it may go like any other machine.
pub(crate) fn is_released(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    draft.observed.etcd.known().is_some_and(|etcd| member_of(etcd, machine).is_none())
}
