//! The management machine: made, claimed and told what to be, each step only where it is missing.

use crate::outcome::timed_out;
use crate::plane::agent::{self, Exchange};
use crate::plane::identity::PlaneIdentity;
use crate::plane::{CLUSTER_UID, MACHINE, key};
use anyhow::{Context, Result, anyhow, bail};
use futures::StreamExt;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use slipway_agent_api::v1::MachineState;
use slipway_agent_api::{AGENT_PORT, AgentClient, AgentError, ErrorClass};
use slipway_cloud_api::{Cloud, Instance, InstanceRequest, InstanceState};
use slipway_components::user_data::UserData;
use slipway_local::LocalClient;
use slipway_model::{ArtifactRef, MachineName, MachinePlan, PlanDigest};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Only one `up` speaks to this agent at a time (the state directory is locked), so one term is enough.
pub(super) const EPOCH: u64 = 1;
/// How long a step may take before it is given up and said.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says what is being waited for.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The instance, running; made or started where it was not. Returns whether it had to be.
pub async fn ensure_instance(cloud: &LocalClient, identity: &PlaneIdentity, agent: &ArtifactRef, say: Say<'_>) -> Result<(Instance, bool)> {
    let cluster = key()?;
    let name: MachineName = MACHINE.parse().context("the management machine's name")?;
    let find = async || -> Result<Option<Instance>> {
        Ok(cloud.inventory(&cluster).await?.instances.into_iter().find(|i| i.machine_uid == identity.machine_uid))
    };
    let mut changed = false;
    if find().await?.is_none() {
        say("making its machine");
        cloud.ensure_network(&cluster).await.context("the management plane's network")?;
        let user_data = identity.frozen("user-data", || {
            let token = identity.token.expose_secret();
            let script = UserData { machine_uid: &identity.machine_uid, name: &name, cluster_uid: CLUSTER_UID, token, agent };
            Ok(script.render().into_bytes())
        })?;
        let user_data = String::from_utf8(user_data).context("the frozen user data")?;
        let request = InstanceRequest { cluster: cluster.clone(), name, machine_uid: identity.machine_uid.clone(), zone: None, user_data };
        cloud.create_instance(&request).await.context("the management machine")?;
        changed = true;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let instance =
            find().await?.ok_or_else(|| anyhow!("the management machine is gone: somebody deleted it; run the same command again"))?;
        match instance.state {
            InstanceState::Running => return Ok((instance, changed)),
            InstanceState::Stopped => {
                say("starting its machine");
                cloud.start_instance(&cluster, &instance.id).await.context("starting the management machine")?;
                changed = true;
            }
            InstanceState::Pending | InstanceState::Deleting => {}
        }
        if Instant::now() > deadline {
            let trouble = instance.trouble.unwrap_or_else(|| format!("it is {:?}", instance.state));
            return Err(timed_out(format!("the management machine does not run after {} s: {trouble}", PATIENCE.as_secs())));
        }
        cloud.changed(&cluster, Duration::from_millis(500)).await?;
    }
}

/// Has a claimed agent be this build.
pub async fn ensure_build(
    identity: &PlaneIdentity,
    address: Ipv4Addr,
    agent: AgentClient,
    build: &ArtifactRef,
    say: Say<'_>,
) -> Result<Exchange> {
    let operator = identity.agent_identity(Timestamp::now())?;
    let peer = SocketAddr::from((address, AGENT_PORT));
    Ok(agent::ensure_build(agent, async || connect(peer, &identity.machine_uid, &operator).await, build, say).await)
}

/// A claimed agent: the connection over mTLS, claiming first where nobody has.
pub async fn ensure_claimed(identity: &PlaneIdentity, address: Ipv4Addr, say: Say<'_>) -> Result<AgentClient> {
    let now = Timestamp::now();
    let operator = identity.agent_identity(now)?;
    let peer = SocketAddr::from((address, AGENT_PORT));
    let uid = identity.machine_uid.as_str();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match connect(peer, uid, &operator).await {
            Ok(client) => return Ok(client),
            Err(AgentError::NotClaimed { .. }) => {
                say("claiming its agent");
                match claim(identity, peer, address, now).await {
                    // The first call over mTLS burns the token; a reply lost on the way is found out by trying just that.
                    Ok(()) | Err(AgentError::AlreadyClaimed { .. }) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if error.class() == ErrorClass::Terminal {
            return Err(anyhow!(error).context("the management machine's agent"));
        }
        if Instant::now() > deadline {
            return Err(timed_out(format!(
                "the management machine's agent is not there after {} s: {error}; its console is in the daemon's state directory",
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn connect(peer: SocketAddr, uid: &str, operator: &slipway_agent_api::OperatorIdentity) -> Result<AgentClient, AgentError> {
    let client = AgentClient::connect(peer, uid, operator).await?;
    client.get_info().await?;
    Ok(client)
}

async fn claim(identity: &PlaneIdentity, peer: SocketAddr, address: Ipv4Addr, now: Timestamp) -> Result<(), AgentError> {
    let agent = AgentClient::connect_unclaimed(peer).await?;
    let csr = agent.claim(&identity.token, &identity.machine_uid).await?;
    let signed = identity.pki.sign_agent(&csr, &identity.machine_uid, &[address.to_string()], now, slipway_pki::AGENT_LIFE);
    let certificate = signed.map_err(|e| AgentError::Own(e.to_string()))?;
    agent.install(&identity.token, &identity.machine_uid, &certificate, identity.pki.agent.certificate()).await
}

/// Tells the agent what to be, unless it knows. Returns whether it had to be told.
pub async fn ensure_plan(agent: &AgentClient, plan: &MachinePlan) -> Result<bool> {
    let info = agent.get_info().await.context("the management machine's agent")?;
    let wanted = plan.digest();
    if info.applied_digest == wanted.0 {
        return Ok(false);
    }
    let expected = (!info.applied_digest.is_empty()).then(|| PlanDigest(info.applied_digest.clone()));
    agent.apply_plan(expected.as_ref(), EPOCH, plan).await.context("giving the management machine its plan")?;
    Ok(true)
}

/// Waits until everything in the plan is real and every probe content.
pub async fn wait_healthy(agent: &AgentClient, plan: &MachinePlan, say: Say<'_>) -> Result<()> {
    let wanted = plan.digest().0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut last = String::from("no word from its agent");
    let mut states = agent.watch().await.context("watching the management machine")?;
    loop {
        match tokio::time::timeout_at(deadline, states.next()).await {
            Ok(Some(Ok(state))) => match missing(&state, &wanted, plan) {
                None => return Ok(()),
                Some(what) => {
                    say(&what);
                    last = what;
                }
            },
            Ok(Some(Err(e))) => return Err(anyhow!(e).context("watching the management machine")),
            Ok(None) => bail!("the management machine's agent ended the watch: {last}"),
            Err(_) => {
                return Err(timed_out(format!(
                    "the management plane is not up after {} s: {last}; `slipway logs {MACHINE} UNIT` says more",
                    PATIENCE.as_secs()
                )));
            }
        }
    }
}

/// What a machine lacks, in a line.
fn missing(state: &MachineState, wanted: &str, plan: &MachinePlan) -> Option<String> {
    if !state.trouble.is_empty() {
        return Some(state.trouble.clone());
    }
    if state.applied_digest != wanted {
        return Some(if state.applying.is_empty() { "waiting for its agent to begin".to_owned() } else { state.applying.clone() });
    }
    let healthy = |name: &str| state.probes.iter().find(|p| p.name == name);
    let waiting: Vec<String> = plan
        .probes
        .iter()
        .filter(|p| !healthy(&p.name).is_some_and(|s| s.healthy))
        .map(|p| match healthy(&p.name) {
            Some(s) if !s.message.is_empty() => format!("{} ({})", p.name, s.message),
            _ => p.name.clone(),
        })
        .collect();
    (!waiting.is_empty()).then(|| format!("waiting for {}", waiting.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_agent_api::v1::ProbeStatus;
    use slipway_model::{Probe, ProbeKind};

    #[test]
    fn what_is_missing_is_said() {
        let plan = MachinePlan {
            probes: vec![Probe { name: "etcd".into(), unit: "etcd.service".into(), kind: ProbeKind::Active }],
            ..MachinePlan::default()
        };
        let mut state = MachineState { applied_digest: "old".into(), applying: "starting etcd".into(), ..MachineState::default() };
        assert_eq!(missing(&state, "new", &plan).as_deref(), Some("starting etcd"));
        state.applied_digest = "new".into();
        assert_eq!(missing(&state, "new", &plan).as_deref(), Some("waiting for etcd"));
        state.probes = vec![ProbeStatus { name: "etcd".into(), healthy: false, message: "refused".into(), ..ProbeStatus::default() }];
        assert_eq!(missing(&state, "new", &plan).as_deref(), Some("waiting for etcd (refused)"));
        state.probes.iter_mut().for_each(|p| p.healthy = true);
        assert_eq!(missing(&state, "new", &plan), None);
        state.trouble = "disk full".into();
        assert_eq!(missing(&state, "new", &plan).as_deref(), Some("disk full"));
    }
}
