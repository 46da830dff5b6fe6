//! `slipway logs`: the journal of one unit of one machine, straight from its agent.
//!
//! The certificate towards the agent is made here, from the cluster's own authority in its PKI Secret: whoever may read that Secret may do all that an
//! operator may. Nothing is added to anybody's rights.

use crate::args::{Global, Logs};
use crate::connect::{Management, asked};
use crate::outcome::{Outcome, refused};
use crate::output::say;
use crate::place::Place;
use crate::plane::identity::{PlaneIdentity, agent_identity};
use crate::plane::{self, daemon};
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use slipway_agent_api::{AGENT_PORT, AgentClient, AgentError, OperatorIdentity};
use slipway_cloud_api::Cloud;
use slipway_crds::Machine;
use slipway_pki::ClusterPki;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A machine's agent: where it is, who it is, and who asks.
struct Way {
    address: Ipv4Addr,
    uid: String,
    identity: OperatorIdentity,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Logs) -> Result<Outcome> {
    let way = if args.machine == plane::MACHINE { to_management(global).await? } else { to_machine(global, &args.machine).await? };
    let peer = SocketAddr::from((way.address, AGENT_PORT));
    let agent = AgentClient::connect(peer, &way.uid, &way.identity).await.with_context(|| format!("the agent of {}", args.machine))?;
    let unit = if args.unit.contains('.') { args.unit.clone() } else { format!("{}.service", args.unit) };
    let mut lines = agent.logs(&unit, args.lines, args.follow).await.map_err(|error| said_no(error, &unit, &args.machine))?;
    loop {
        tokio::select! {
            line = lines.next() => match line {
                Some(Ok(line)) => say(&line)?,
                Some(Err(e)) => bail!("{unit} on {}: {e}", args.machine),
                None => return Ok(Outcome::Done),
            },
            // Ctrl-C is how a follow ends.
            _ = tokio::signal::ctrl_c() => return Ok(Outcome::Done),
        }
    }
}

/// What an agent refuses changes nothing, and trying again does not help: a unit that is not in its machine's plan, for one.
fn said_no(error: AgentError, unit: &str, machine: &str) -> anyhow::Error {
    let subject = format!("{unit} on {machine}");
    match error {
        AgentError::Refused { why, .. } => refused(format!("{subject}: {why}; `slipway describe CLUSTER` lists the units of its machines")),
        other => anyhow::Error::from(other).context(subject),
    }
}

async fn to_machine(global: &Global, name: &str) -> Result<Way> {
    let management = Management::connect(global).await?;
    let machines: Api<Machine> = Api::namespaced(management.client.clone(), &management.namespace);
    let within = Duration::from_secs(10);
    let machine = asked("reading the Machine", within, machines.get_opt(name)).await?.ok_or_else(|| {
        refused(format!("there is no machine {name} in namespace {}: `slipway get machines -A` lists them", management.namespace))
    })?;
    let uid = machine.metadata.uid.clone().unwrap_or_default();
    let address = crate::observe::address(&machine)
        .and_then(|a| a.parse().ok())
        .ok_or_else(|| refused(format!("{name} has no address yet: `slipway describe {}` says what it waits for", machine.spec.cluster)))?;
    let secrets: Api<Secret> = Api::namespaced(management.client.clone(), &management.namespace);
    let secret = format!("{}-pki", machine.spec.cluster);
    let data = asked("reading the cluster's keys", within, secrets.get_opt(&secret)).await?.and_then(|s| s.data);
    let data = data.ok_or_else(|| {
        refused(format!("there is no Secret {secret} in namespace {}: the agents trust only what is in it", management.namespace))
    })?;
    let pki =
        ClusterPki::from_secret(&data.into_iter().map(|(k, v)| (k, v.0)).collect()).with_context(|| format!("the Secret {secret}"))?;
    Ok(Way { address, uid, identity: agent_identity(&pki, Timestamp::now())? })
}

async fn to_management(global: &Global) -> Result<Way> {
    let place = Place::new(global.state.as_deref())?;
    if !PlaneIdentity::exists(&place) {
        return Err(refused(format!(
            "there is no management plane in {}: `slipway up` starts one, --state names another place",
            place.root().display()
        )));
    }
    let now = Timestamp::now();
    let identity = PlaneIdentity::ensure(&place, now)?;
    let cloud =
        daemon::find(&place).await.ok_or_else(|| refused("the local cloud's daemon does not answer: `slipway up` starts it again"))?;
    let inventory = cloud.inventory(&plane::key()?).await?;
    let instance = inventory.instances.into_iter().find(|i| i.machine_uid == identity.machine_uid);
    let instance = instance.ok_or_else(|| refused("the management machine has not been made yet: `slipway up` makes it"))?;
    Ok(Way { address: instance.address, uid: identity.machine_uid.clone(), identity: identity.agent_identity(now)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_is_not_the_plans_is_refused_and_an_agent_that_fails_is_a_failure() {
        let (peer, why) = ("198.18.0.7:7443".to_owned(), "\"sshd.service\" is neither a unit of this machine's plan".to_owned());
        let no = said_no(AgentError::Refused { peer: peer.clone(), why: why.clone() }, "sshd.service", "demo-cp-0");
        assert_eq!(Outcome::of_error(&no), Outcome::Refused);
        assert!(no.to_string().contains(&why) && no.to_string().contains("demo-cp-0"), "{no}");
        let broken = said_no(AgentError::Failed { peer, why: "journalctl: not found".into() }, "etcd.service", "demo-cp-0");
        assert_eq!(Outcome::of_error(&broken), Outcome::Failed);
    }
}
