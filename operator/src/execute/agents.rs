//! Effects on agents themselves: their builds and their certificates.

use super::machines::{key_of, stepping_down};
use super::{EffectError, Scene, checks};
use crate::agents::Agent;
use crate::artifacts::AGENT;
use crate::clock;
use crate::context::Context;
use crate::observe::agents::state;
use futures::StreamExt;
use futures::future::join_all;
use slipway_agent_api::{AGENT_PORT, AgentError};
use slipway_model::MachineName;
use slipway_plan::{AgentState, MachineRecord, may_try_build};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// How long one of all others is asked how it is.
const LOOK: Duration = Duration::from_secs(5);

/// A machine's agent: over the connection that is open, or a new one.
pub async fn reach(context: &Context, scene: &Scene, machine: &MachineName, uid: &str) -> Result<Arc<dyn Agent>, EffectError> {
    if let Some(agent) = scene.connections.get(uid) {
        return Ok(agent.clone());
    }
    let peer = SocketAddr::from((scene.address(machine, uid)?, AGENT_PORT));
    Ok(context.agents.connect(peer, uid, &scene.keys()?.operator).await?)
}

/// A certificate for an agent's key, and the authority that signed it.
pub fn certificate(context: &Context, scene: &Scene, uid: &str, address: Ipv4Addr, request: &str) -> Result<(String, String), EffectError> {
    let pki = &scene.keys()?.pki;
    let signed = pki.sign_agent(request, uid, &[address.to_string()], clock::now(), context.agent_certificate_life);
    Ok((signed.map_err(EffectError::own)?, pki.agent.certificate().to_owned()))
}

/// A new certificate for the key that was pinned when the agent was claimed.
pub async fn renew_certificate(context: &Context, scene: &Scene, machine: &MachineName, uid: &str) -> Result<(), EffectError> {
    let address = scene.address(machine, uid)?;
    let agent = reach(context, scene, machine, uid).await?;
    let request = agent.renewal_request(context.epoch).await.map_err(|error| stepping_down(context, error))?;
    checks::key_is_pinned(context, scene, machine, uid, &key_of(&request)?).await?;
    let (certificate, authority) = certificate(context, scene, uid, address, &request)?;
    agent.install_renewed(context.epoch, &certificate, &authority).await.map_err(|error| stepping_down(context, error))
}

/// Another build, after every other agent of the cluster was asked whether one may be tried now.
pub async fn update(context: &Context, scene: &Scene, machine: &MachineName, uid: &str, from: &str, to: &str) -> Result<(), EffectError> {
    let build = context.artifacts.own(AGENT).map_err(EffectError::own)?;
    if build.sha256 != to {
        return Err(EffectError::Precondition(format!("the agent's build to give is {:.12} by now", build.sha256)));
    }
    checks::live_cluster(context, scene).await?;
    let machines = checks::machines(context, scene).await?;
    if !machines.iter().any(|m| m.name == *machine && m.uid == uid && m.deleting.is_none()) {
        return Err(EffectError::Precondition(format!("{machine} is not the machine {uid} any more, or is being deleted")));
    }
    let others = machines.iter().filter(|m| m.claimed && m.deleting.is_none() && m.name != *machine);
    let said = join_all(others.map(|m| async { Ok((m.name.clone(), ask(context, scene, m).await?)) })).await;
    let said: Vec<(MachineName, Option<AgentState>)> = said.into_iter().collect::<Result<_, EffectError>>()?;
    let allowed = may_try_build(said.iter().map(|(name, state)| (name, state.as_ref())), to);
    allowed.map_err(|(other, why)| EffectError::Precondition(format!("{other}: {why}")))?;
    let agent = reach(context, scene, machine, uid).await?;
    match agent.update(context.epoch, from, &build).await {
        Ok(()) => Ok(()),
        // The world is not as the plan assumed: the next one sees how it is.
        Err(error @ (AgentError::OtherBuild { .. } | AgentError::OnTrial { .. } | AgentError::RefusedBuild { .. })) => {
            Err(EffectError::Precondition(error.to_string()))
        }
        Err(error) => Err(stepping_down(context, error)),
    }
}

/// What an agent says now, after it has heard who leads: whatever an earlier operator still sends to it is refused from then on.
async fn ask(context: &Context, scene: &Scene, machine: &MachineRecord) -> Result<Option<AgentState>, EffectError> {
    let look = async {
        let agent = reach(context, scene, &machine.name, &machine.uid).await.ok()?;
        if let Err(error) = agent.renewal_request(context.epoch).await {
            return Some(Err(error));
        }
        agent.watch().await.ok()?.next().await
    };
    match tokio::time::timeout(LOOK, look).await.ok().flatten() {
        Some(Err(error @ AgentError::StaleEpoch { .. })) => Err(stepping_down(context, error)),
        Some(Ok(said)) => Ok(Some(state(&said))),
        Some(Err(_)) | None => Ok(None),
    }
}
