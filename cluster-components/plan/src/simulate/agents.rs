//! Agents' own builds and certificates.

use super::{Refused, check, record_mut};
use crate::agents::has_refused;
use crate::happenings::silence;
use crate::{Action, AgentFacts, MachineRecord, Observed, may_try_build};
use jiff::Timestamp;
use slipway_model::MachineName;

pub(super) fn agent(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    match action {
        Action::UpdateAgent { machine, uid, from, to } => {
            record_mut(world, machine, uid)?;
            check(world.cluster.deleting.is_none(), "the Cluster is being deleted")?;
            others_allow(world, machine, to)?;
            try_build(world, machine, from, to, now)
        }
        Action::RenewAgentCertificate { machine, uid } => {
            record_mut(world, machine, uid)?;
            let expires = now.saturating_add(world.agent_certificate_life).unwrap_or(Timestamp::MAX);
            let Some(AgentFacts::Heard(state)) = world.agents.get_mut(machine) else { return Err(Refused("the agent does not answer")) };
            state.certificate_expires = Some(expires);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What the executor asks of all other machines that stay.
fn others_allow(world: &Observed, machine: &MachineName, to: &str) -> Result<(), Refused> {
    let stays = |m: &&MachineRecord| m.claimed && m.deleting.is_none() && m.name != *machine;
    let others = world.machines.known().into_iter().flatten().filter(stays);
    let said = others.map(|m| (&m.name, world.agents.get(&m.name).and_then(AgentFacts::heard)));
    may_try_build(said, to).map_err(|(_, why)| Refused(why))
}

/// The agent's side: compare and swap. It is not heard while it is exchanged.
pub(super) fn try_build(world: &mut Observed, machine: &MachineName, from: &str, to: &str, now: Timestamp) -> Result<(), Refused> {
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(machine) else { return Err(Refused("the agent does not answer")) };
    let own = state.build.as_mut().ok_or(Refused("the agent cannot be exchanged"))?;
    if own.trial.as_deref() == Some(to) {
        return Ok(());
    }
    check(own.trial.is_none(), "another build is on trial")?;
    check(own.sha256 == from, "it runs another build by now")?;
    check(!has_refused(own, to), "it has refused this build")?;
    own.trial = Some(to.to_owned());
    silence(world, machine, now);
    Ok(())
}

/// How a trial ends: the build stays, or the one before it is back.
pub(crate) fn end_of_trial(world: &mut Observed, machine: &MachineName, why_not: Option<(&str, Timestamp)>) {
    let (Some(AgentFacts::Heard(state)) | Some(AgentFacts::Silent { last: Some(state), .. })) = world.agents.get_mut(machine) else {
        return;
    };
    let Some(own) = &mut state.build else { return };
    let Some(tried) = own.trial.take() else { return };
    match why_not {
        None => (own.sha256, own.refused) = (tried, None),
        Some((why, since)) => own.refused = Some(crate::RefusedBuild { sha256: tried, why: why.to_owned(), since }),
    }
}

/// A machine that boots begins with the build that was there before: a trial does not outlive it.
pub(crate) fn boots(world: &mut Observed, machine: &MachineName) {
    let Some(AgentFacts::Silent { last: Some(state), .. }) = world.agents.get_mut(machine) else { return };
    if let Some(own) = &mut state.build {
        own.trial = None;
    }
}

/// What a machine's agent is made with.
pub(super) fn first_build(world: &Observed) -> Option<crate::AgentBuild> {
    world.wanted_agent.clone().map(|sha256| crate::AgentBuild { sha256, ..crate::AgentBuild::default() })
}
