//! What the conditions say of the control plane: its API servers and etcd's members.

use super::{Verdict, tell};
use crate::draft::{Draft, PROBE_ETCD};
use crate::quorum::{Votes, member_of, quorum};
use crate::{AgentFacts, Fact, InstanceState, MachineRecord, Reason, Status, Wait};
use slipway_model::MachineName;
use std::collections::BTreeSet;

/// Control planes that are to serve: those that stay and have a vote; before the founding, and while etcd cannot be asked, those that may have one.
fn serving<'a>(draft: &Draft<'a>) -> Vec<&'a MachineRecord> {
    let cluster = &draft.observed.cluster;
    let may_vote = |m: &MachineRecord| match &draft.observed.etcd {
        Fact::Known(etcd) if cluster.bootstrapped => member_of(etcd, m).is_some_and(|member| !member.learner),
        Fact::Known(_) | Fact::Unknown { .. } => !cluster.bootstrapped || m.join.is_some() || cluster.founders.contains(&m.name),
    };
    let serves = |m: &&MachineRecord| !m.retiring && (cluster.bootstrapped || m.deleting.is_none()) && may_vote(m);
    draft.records().iter().filter(|m| m.is_control_plane()).filter(serves).collect()
}

/// How many of the control plane's `probe`s are healthy: all, a quorum, fewer, or nobody answers.
pub(super) fn component(draft: &Draft<'_>, waits: &BTreeSet<Wait>, probe: &str, what: &str, all: Reason, most: Reason) -> Verdict {
    let members = serving(draft);
    let total = if draft.observed.cluster.bootstrapped { members.len() } else { members.len().max(draft.observed.cluster.founders.len()) };
    let healthy = members.iter().filter(|m| draft.heard(&m.name).is_some_and(|s| s.healthy(probe))).count();
    // One that the cloud calls powered off, or does not have, is not well, whoever can be asked.
    let off = |m: &MachineRecord| draft.is_gone(m) || draft.instance(m).is_some_and(|i| i.state == InstanceState::Stopped);
    let unheard = |m: &MachineRecord| matches!(draft.observed.agents.get(&m.name), None | Some(AgentFacts::Silent { .. }));
    let silent = members.iter().filter(|m| m.claimed && unheard(m) && !off(m)).count();
    let count = format!("{healthy} of {total} {what}s healthy");
    let told = told(draft, waits);
    if total > 0 && healthy == total {
        return (Status::True, all, count);
    }
    if healthy > total / 2 {
        return (Status::True, most, format!("{count}{told}"));
    }
    if !draft.observed.cluster.bootstrapped {
        return (Status::False, Reason::Creating, format!("{count}{told}"));
    }
    // What nobody can ask may be well or not.
    if healthy + silent > total / 2 {
        return (Status::Unknown, Reason::AgentSilent, format!("{count}, {silent} not heard{told}"));
    }
    (Status::False, if probe == PROBE_ETCD { Reason::QuorumLost } else { Reason::ProbeFailing }, format!("{count}{told}"))
}

/// What is waited for that has to do with the control plane.
fn told(draft: &Draft<'_>, waits: &BTreeSet<Wait>) -> String {
    let plane = |name: &MachineName| draft.records().iter().any(|m| m.name == *name && m.is_control_plane());
    let about = |w: &&Wait| w.machine.as_ref().is_none_or(plane);
    tell(waits.iter().filter(about)).map_or_else(String::new, |(_, text)| format!(": {text}"))
}

/// etcd's members, as etcd itself tells them; where it cannot be asked, as the agents' probes do.
pub(super) fn members(draft: &Draft<'_>, waits: &BTreeSet<Wait>) -> Verdict {
    let Some(etcd) = draft.observed.etcd.known().filter(|_| draft.observed.cluster.bootstrapped) else {
        return component(draft, waits, PROBE_ETCD, "etcd member", Reason::MembersHealthy, Reason::QuorumHealthy);
    };
    let votes = Votes::of(draft, etcd);
    let (answering, count) = (votes.answering().len(), votes.count());
    let learners = etcd.members.iter().filter(|m| m.learner).count();
    let joining = if learners > 0 { format!(", {learners} joining") } else { String::new() };
    let mut text = format!("{answering} of {count} etcd members healthy{joining}");
    if !etcd.alarms.is_empty() {
        let alarms = etcd.alarms.iter().map(|(member, alarm)| format!("{alarm} on member {member}")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("; alarms are raised: {alarms}"));
        return (Status::False, Reason::MemberUnhealthy, text);
    }
    match answering {
        _ if count > 0 && answering == count => (Status::True, Reason::MembersHealthy, text),
        _ if answering >= quorum(count) => (Status::True, Reason::QuorumHealthy, format!("{text}{}", told(draft, waits))),
        _ => (Status::False, Reason::QuorumLost, format!("{text}{}", told(draft, waits))),
    }
}

/// The API answers if anybody got an answer from it, whatever agents say.
pub(super) fn available(draft: &Draft<'_>, verdict: Verdict) -> Verdict {
    match (&draft.observed.nodes, verdict) {
        (Fact::Known(_), (Status::Unknown | Status::False, _, text)) if draft.observed.cluster.bootstrapped => {
            (Status::True, Reason::QuorumOfApiServersHealthy, format!("the API answers; {text}"))
        }
        (Fact::Known(_) | Fact::Unknown { .. }, verdict) => verdict,
    }
}

/// A quorum serves, but is not health: one more loss may end it.
pub(super) fn redundant(verdict: Verdict) -> Verdict {
    match verdict {
        (Status::True, Reason::QuorumHealthy, text) => (Status::False, Reason::QuorumHealthy, text),
        other => other,
    }
}
