//! Effects on machines, through their agents.

use super::{EffectError, Scene, agents, checks, records, secrets};
use crate::context::Context;
use sha2::{Digest, Sha256};
use slipway_agent_api::{AGENT_PORT, AgentError};
use slipway_model::{MachineName, PlanDigest};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Claim, first call over mTLS, record. Where the agent's token is burnt already, an earlier try came that far and only the record is missing.
pub async fn claim(context: &Context, scene: &Scene, machine: &MachineName, uid: &str, address: Ipv4Addr) -> Result<(), EffectError> {
    let keys = scene.keys()?;
    let peer = SocketAddr::from((address, AGENT_PORT));
    // The agent's key, as its certificate request shows it: pinned in the record.
    let request = Mutex::new(None);
    let claimed = match secrets::read_token(context, scene, machine).await {
        Ok(token) => {
            let sign = |csr: &str| {
                *request.lock().unwrap_or_else(PoisonError::into_inner) = Some(csr.to_owned());
                agents::certificate(context, scene, uid, address, csr).map_err(|e| e.to_string())
            };
            context.agents.claim(peer, &token, uid, &sign).await.map_err(EffectError::from)
        }
        Err(error) => Err(error),
    };
    let agent = match context.agents.connect(peer, uid, &keys.operator).await {
        Ok(agent) => agent,
        // Why it could not be claimed says more than that it is not claimed.
        Err(error) => return Err(claimed.err().unwrap_or(EffectError::Agent(error))),
    };
    let info = agent.get_info().await.map_err(|error| stepping_down(context, error))?;
    if info.machine_uid != uid {
        return Err(EffectError::Precondition(format!("the agent at {address} is machine {}'s, not {uid}'s", info.machine_uid)));
    }
    let request = request.into_inner().unwrap_or_else(PoisonError::into_inner);
    let request = match request {
        Some(request) => request,
        None => agent.renewal_request(context.epoch).await.map_err(|error| stepping_down(context, error))?,
    };
    records::record_claimed(context, scene, machine, uid, &key_of(&request)?).await
}

/// sha256 of the public key in a certificate request.
pub fn key_of(request: &str) -> Result<String, EffectError> {
    let wrong = |_| EffectError::Own("the agent's certificate request is not understood".to_owned());
    let (_, pem) = x509_parser::pem::parse_x509_pem(request.as_bytes()).map_err(|_| wrong(()))?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| wrong(()))?;
    Ok(hex::encode(Sha256::digest(parsed.certification_request_info.subject_pki.raw)))
}

/// Renders afresh, checks that this is what the planner saw, hands it over.
pub async fn apply_plan(
    context: &Context,
    scene: &Scene,
    machine: &MachineName,
    uid: &str,
    expected: Option<&PlanDigest>,
    wanted: &PlanDigest,
) -> Result<(), EffectError> {
    if expected.is_none() && scene.machine(machine, uid)?.pool.is_control_plane() {
        checks::first_plan_may_come(context, scene, machine, uid).await?;
    }
    checks::may_follow(context, scene, machine, expected.is_some()).await?;
    let name = secrets::machine_pki_name(machine);
    let data = secrets::read(context, scene, &name).await?;
    let data = data.ok_or_else(|| EffectError::Precondition(format!("there is no Secret {name}")))?;
    let plan = scene.render(context, machine, &data)?;
    if plan.digest() != *wanted {
        return Err(EffectError::Precondition(format!("the plan of {machine} is another one by now")));
    }
    let agent = agents::reach(context, scene, machine, uid).await?;
    agent.apply_plan(expected, context.epoch, &plan).await.map_err(|error| stepping_down(context, error))?;
    Ok(())
}

/// An agent that has heard a later leader is believed: this operator ends at once.
pub fn stepping_down(context: &Context, error: AgentError) -> EffectError {
    if let AgentError::StaleEpoch { heard, .. } = &error {
        tracing::error!(heard, own = context.epoch, "another operator leads: stepping down");
        context.step_down.cancel();
    }
    error.into()
}
