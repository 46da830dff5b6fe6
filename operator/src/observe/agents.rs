//! The agents' part: which machines' agents are listened to, and their last words as the planner sees them.

use crate::agents::Hearing;
use jiff::Timestamp;
use slipway_agent_api::v1;
use slipway_model::PlanDigest;
use slipway_plan::{AgentBuild, AgentFacts, AgentState, ProbeFacts, RefusedBuild, Trouble};
use std::collections::BTreeMap;

/// An agent's last word.
#[must_use]
pub fn facts(hearing: Hearing) -> AgentFacts {
    match hearing {
        Hearing::Greeted { .. } => AgentFacts::Answering,
        Hearing::Silent { since, why, last } => AgentFacts::Silent { since, error: why, last: last.map(|s| state(&s)) },
        Hearing::Speaking { state: s, .. } => AgentFacts::Heard(state(&s)),
    }
}

/// What an agent says of its machine.
pub fn state(said: &v1::MachineState) -> AgentState {
    AgentState {
        accepted: digest(&said.accepted_digest),
        applied: digest(&said.applied_digest),
        applying: said.applying.clone(),
        trouble: (!said.trouble.is_empty()).then(|| Trouble { message: said.trouble.clone(), since: time(said.trouble_since_ms) }),
        failing_units: said.units.iter().filter_map(|u| Some((u.name.clone(), failing(u)?))).collect(),
        probes: probes(&said.probes),
        disk_free: (said.disk_total_bytes > 0).then_some(said.disk_free_bytes),
        certificate_expires: (said.certificate_expires_ms > 0).then(|| time(said.certificate_expires_ms)),
        build: said.agent.as_ref().map(build),
    }
}

fn build(said: &v1::AgentBuild) -> AgentBuild {
    let refused = || RefusedBuild { sha256: said.refused.clone(), why: said.refused_why.clone(), since: time(said.refused_since_ms) };
    AgentBuild {
        sha256: said.sha256.clone(),
        trial: (!said.trial.is_empty()).then(|| said.trial.clone()),
        refused: (!said.refused.is_empty()).then(refused),
    }
}

fn digest(text: &str) -> Option<PlanDigest> {
    (!text.is_empty()).then(|| PlanDigest(text.to_owned()))
}

/// A unit that has failed, or that systemd starts again and again. One that only waits for its turn is no trouble.
pub fn failing(unit: &v1::UnitStatus) -> Option<Trouble> {
    let restarting = unit.active_state == "activating" && unit.sub_state.starts_with("auto-restart");
    let message = match unit.active_state.as_str() {
        "failed" => format!("failed ({})", unit.result),
        "activating" if restarting => format!("starts again and again ({}, {} restarts)", unit.result, unit.restarts),
        _ => return None,
    };
    Some(Trouble { message, since: time(unit.since_ms) })
}

fn probes(said: &[v1::ProbeStatus]) -> BTreeMap<String, ProbeFacts> {
    said.iter().map(|p| (p.name.clone(), ProbeFacts { healthy: p.healthy, message: p.message.clone(), since: time(p.since_ms) })).collect()
}

/// Milliseconds since 1970.
pub fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn unit(active: &str, sub: &str) -> v1::UnitStatus {
        v1::UnitStatus {
            name: "etcd.service".into(),
            active_state: active.into(),
            sub_state: sub.into(),
            result: "exit-code".into(),
            restarts: 3,
            ..v1::UnitStatus::default()
        }
    }

    #[test]
    fn a_unit_that_waits_for_its_turn_is_no_trouble_but_one_that_starts_again_and_again_is() {
        assert_eq!(failing(&unit("activating", "start-pre")), None);
        assert_eq!(failing(&unit("active", "running")), None);
        assert!(failing(&unit("failed", "failed")).unwrap().message.contains("exit-code"));
        assert!(failing(&unit("activating", "auto-restart")).unwrap().message.contains("3 restarts"));
    }

    #[test]
    fn a_build_is_told_with_its_trial_and_what_was_refused_and_old_agents_tell_none() {
        assert_eq!(state(&v1::MachineState::default()).build, None);
        let told = v1::AgentBuild { sha256: "a".into(), ..v1::AgentBuild::default() };
        let said = |agent| state(&v1::MachineState { agent: Some(agent), ..v1::MachineState::default() }).build.unwrap();
        assert_eq!(said(told.clone()), AgentBuild { sha256: "a".into(), trial: None, refused: None });
        let tried =
            v1::AgentBuild { trial: "b".into(), refused: "c".into(), refused_why: "it ended".into(), refused_since_ms: 1000, ..told };
        let refused = RefusedBuild { sha256: "c".into(), why: "it ended".into(), since: Timestamp::from_second(1).unwrap() };
        assert_eq!(said(tried), AgentBuild { sha256: "a".into(), trial: Some("b".into()), refused: Some(refused) });
    }

    #[test]
    fn no_digest_is_none() {
        let heard = state(&v1::MachineState { accepted_digest: "ab".into(), ..v1::MachineState::default() });
        assert_eq!((heard.accepted, heard.applied), (Some(PlanDigest("ab".into())), None));
    }
}
