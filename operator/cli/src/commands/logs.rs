//! `slipway logs`: the journal of one unit of one machine, straight from its agent.
//!
//! The certificate towards the agent is made here, from the cluster's own authority in its PKI Secret: whoever may read that Secret may do all that an
//! operator may. Nothing is added to anybody's rights.

use crate::args::{Global, Logs};
use crate::connect::{Management, asked};
use crate::outcome::{Outcome, refused};
use crate::output::say;
use crate::place::Place;
use crate::plane::identity::agent_identity;
use crate::plane::{self, Way};
use anyhow::{Context, Result, bail};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use slipway_agent_api::AgentError;
use slipway_crds::Machine;
use slipway_pki::ClusterPki;
use std::time::Duration;

/// Runs the command.
pub async fn run(global: &Global, args: &Logs) -> Result<Outcome> {
    let way = if args.machine == plane::MACHINE {
        Way::to_management(&Place::new(global.state.as_deref())?).await?
    } else {
        to_machine(global, &args.machine).await?
    };
    let agent = way.open().await.with_context(|| format!("the agent of {}", args.machine))?;
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
