//! The agents' own programs and certificates: which build each runs, one machine of the cluster at a time, and certificates long before they end.
//!
//! ```text
//! behind ─► nobody has refused it ─► the time is right ─► nobody is on trial, silent, or being changed ─► UpdateAgent ─► on trial ─┬─► it stays
//!                                                                                                                             └─► refused: all wait
//! ```
//! A new build stays on a machine only once the operator has reached it, so a bad one costs one machine's agent some moments, and no unit of it anything.

use crate::draft::Draft;
use crate::{Action, AgentBuild, AgentFacts, AgentState, MachineRecord, Reason, RefusedBuild, maintenance, rollout};
use jiff::{SignedDuration, Timestamp};
use slipway_model::MachineName;

/// How many machines a message names.
const NAMED: usize = 3;
/// How much of a build's name people need.
const SHORT: usize = 12;

/// A build's name as people are told it.
pub(crate) fn short(sha256: &str) -> &str {
    sha256.get(..SHORT).unwrap_or(sha256)
}

// === certificates ===

/// Renews certificates of which less than a third of their life is left. Nothing is disturbed by it, so it waits for no window.
pub(crate) fn certificates(draft: &mut Draft<'_>) {
    let life = draft.observed.agent_certificate_life;
    for machine in staying(draft) {
        let Some(expires) = draft.heard(&machine.name).and_then(|s| s.certificate_expires) else { continue };
        let due = renewal_due(expires, life);
        if draft.now < due {
            draft.look_at(due);
            continue;
        }
        let because = format!("its certificate ends {}, and less than a third of its life is left", crate::outcome::seconds(expires));
        draft.decide(Action::RenewAgentCertificate { machine: machine.name.clone(), uid: machine.uid.clone() }, because);
    }
}

/// When a certificate is to be renewed.
fn renewal_due(expires: Timestamp, life: SignedDuration) -> Timestamp {
    expires.saturating_sub(life / 3).unwrap_or(expires)
}

// === builds ===

/// Brings agents to the build that new machines get.
pub(crate) fn builds(draft: &mut Draft<'_>) {
    let Some(wanted) = draft.observed.wanted_agent.as_deref() else { return };
    if !draft.observed.cluster.bootstrapped || draft.machines().is_none() {
        return;
    }
    let trials = on_trial(draft);
    for (machine, build) in &trials {
        let what = format!("the trial of build {} of its agent to end", short(build));
        draft.wait_on(&machine.name, Reason::UpdatingAgents, what, machine.created);
    }
    let behind = behind(draft, wanted);
    let Some(first) = behind.first() else { return };
    if let Some((machine, refused)) = refusal(draft, wanted) {
        let others = behind.iter().filter(|m| m.name != machine.name).count();
        let kept = match others {
            0 => String::new(),
            1 => "; one other machine keeps its own meanwhile".into(),
            n => format!("; {n} other machines keep theirs meanwhile"),
        };
        let what = format!("another build of the agent than {}, which was tried here and did not stay{kept}", short(wanted));
        draft.wait_after(&machine.name, Reason::AgentUpdateRefused, what, refused.since, &refused.why);
        return;
    }
    let names = names(&behind);
    if !trials.is_empty() || !maintenance::may_disturb(draft, &format!("the agents of {names} are exchanged then")) {
        return;
    }
    let created = draft.observed.cluster.created;
    draft.wait(Reason::UpdatingAgents, format!("the agents of {names} to run build {}", short(wanted)), created);
    if !is_quiet(draft) {
        return;
    }
    let Some(from) = draft.heard(&first.name).and_then(|s| s.build.as_ref()).map(|b| b.sha256.clone()) else { return };
    let because = format!(
        "new machines get build {}, it runs {}, nobody else's agent is on trial or silent, and no other machine is being changed",
        short(wanted),
        short(&from)
    );
    let action = Action::UpdateAgent { machine: first.name.clone(), uid: first.uid.clone(), from, to: wanted.to_owned() };
    draft.decide(action, because);
}

/// Whether a build may be tried on a machine, by what all others' agents say now; `None` for one that does not answer. The executor asks it right before.
pub fn may_try_build<'a>(
    others: impl IntoIterator<Item = (&'a MachineName, Option<&'a AgentState>)>,
    build: &str,
) -> Result<(), (&'a MachineName, &'static str)> {
    for (name, state) in others {
        let Some(state) = state else { return Err((name, "its agent does not answer")) };
        let Some(own) = &state.build else { continue };
        if own.trial.is_some() {
            return Err((name, "a build of its agent is on trial"));
        }
        if has_refused(own, build) {
            return Err((name, "its agent has refused this build"));
        }
    }
    Ok(())
}

pub(crate) fn has_refused(own: &AgentBuild, build: &str) -> bool {
    own.refused.as_ref().is_some_and(|r| r.sha256 == build)
}

/// Claimed machines that are not being taken away.
fn staying<'a>(draft: &Draft<'a>) -> Vec<&'a MachineRecord> {
    draft.records().iter().filter(|m| m.claimed && m.deleting.is_none() && !draft.is_taken(&m.name)).collect()
}

/// What an agent says of its build, or said last.
fn build<'a>(draft: &Draft<'a>, machine: &MachineName) -> Option<&'a AgentBuild> {
    match draft.observed.agents.get(machine)? {
        AgentFacts::Heard(state) | AgentFacts::Silent { last: Some(state), .. } => state.build.as_ref(),
        AgentFacts::Silent { last: None, .. } | AgentFacts::Answering => None,
    }
}

/// Whether an agent is on trial.
pub(crate) fn are_on_trial(draft: &Draft<'_>) -> bool {
    !on_trial(draft).is_empty()
}

/// Machines with a build on trial, those that are leaving among them.
fn on_trial<'a>(draft: &Draft<'a>) -> Vec<(&'a MachineRecord, &'a str)> {
    let trial = |m: &'a MachineRecord| Some((m, build(draft, &m.name)?.trial.as_deref()?));
    draft.records().iter().filter_map(trial).collect()
}

/// Machines whose agent runs another build, in the order in which they are exchanged: workers before control planes.
fn behind<'a>(draft: &Draft<'a>, wanted: &str) -> Vec<&'a MachineRecord> {
    let other = |m: &&MachineRecord| build(draft, &m.name).is_some_and(|b| b.sha256 != wanted);
    let mut behind: Vec<&MachineRecord> = staying(draft).into_iter().filter(other).collect();
    behind.sort_by_key(|m| (m.is_control_plane(), &m.pool, m.ordinal));
    behind
}

/// A machine that has tried this build in vain.
fn refusal<'a>(draft: &Draft<'a>, wanted: &str) -> Option<(&'a MachineRecord, &'a RefusedBuild)> {
    let refused = |m: &'a MachineRecord| Some((m, build(draft, &m.name)?.refused.as_ref().filter(|r| r.sha256 == wanted)?));
    staying(draft).into_iter().find_map(refused)
}

/// Whether nothing else goes on that an agent's absence could be mistaken for, or that it could hold up; says what is waited for.
fn is_quiet(draft: &mut Draft<'_>) -> bool {
    if let Some(upgrade) = draft.observed.cluster.upgrade.as_ref().filter(|u| u.stopped.is_none()) {
        draft.wait(
            Reason::WaitingForOthers,
            format!("the upgrade to {} to be over before an agent is exchanged", upgrade.to),
            upgrade.since,
        );
        return false;
    }
    let busy = staying(draft).into_iter().find_map(|m| Some((m, busy(draft, m)?)));
    if let Some((machine, what)) = busy {
        draft.wait_on(&machine.name, Reason::WaitingForOthers, format!("{what} before an agent is exchanged"), machine.created);
        return false;
    }
    let step = staying(draft).into_iter().find_map(|m| Some((m, rollout::in_step_until(draft, m)?)));
    if let Some((machine, until)) = step {
        draft.look_at(until);
        let since = machine.changed.as_ref().map_or(machine.created, |c| c.at);
        let what = "its time to follow its new versions to be over before an agent is exchanged";
        draft.wait_on(&machine.name, Reason::WaitingForOthers, what, since);
        return false;
    }
    // What this very plan begins comes first.
    !draft.planned().any(Action::chooses)
}

/// What a machine has to have done before an agent is exchanged. One that is in trouble holds nobody up: another agent may be what it lacks.
fn busy(draft: &Draft<'_>, machine: &MachineRecord) -> Option<&'static str> {
    let Some(state) = draft.heard(&machine.name) else { return Some("its agent to be heard") };
    if state.build.as_ref().is_some_and(|b| b.sha256.is_empty()) {
        return Some("its agent to say which build it is");
    }
    if !rollout::is_settled(draft, machine) && state.trouble.is_none() {
        return Some("its configuration to become real");
    }
    let emptied = draft.node(&machine.name).is_some_and(|n| n.cordoned.is_some());
    emptied.then_some("its Node to take pods again")
}

/// Some names, and how many there are.
fn names(machines: &[&MachineRecord]) -> String {
    let mut text = machines.iter().take(NAMED).map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    if machines.len() > NAMED {
        text.push_str(&format!(" and {} more", machines.len() - NAMED));
    }
    text
}
