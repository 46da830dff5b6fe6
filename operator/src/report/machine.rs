//! A Machine's status.

use super::decisions::OF_MACHINE;
use super::{Reported, Write, changed, cluster};
use crate::agents::Hearing;
use crate::compose::World;
use crate::observe::agents::{failing, time};
use crate::workload::Picture;
use jiff::Timestamp;
use kube::ResourceExt;
use slipway_agent_api::v1;
use slipway_crds::{
    AgentStatus, Finding, Machine, MachinePhase, MachineStatus, ProbeStatus, RefusedBuild, Stage, UnitStatus, set_conditions,
};
use slipway_model::MachineName;
use slipway_plan::{InstanceFacts, InstanceState, NodeFacts, Plan};

pub fn status(machine: &Machine, world: &World, plan: &Plan, reported: &Reported, now: Timestamp) -> Option<Write> {
    let (name, uid) = (machine.name_any(), machine.uid().unwrap_or_default());
    let before = machine.status.clone().unwrap_or_default();
    let instance = world.observed.cloud.known().and_then(|c| c.of(&uid));
    let node = node(world, &name);
    let hearing = world.seen.hearings.get(&uid);
    let reached = reported.stages.get(&name).cloned().unwrap_or_default();
    let waits: Vec<_> = plan.waits.iter().filter(|w| w.machine.as_ref().is_some_and(|m| m.as_str() == name)).map(cluster::wait).collect();
    // What cannot be seen is told as it was last: an operator that has just begun, or a cluster whose API is away, says nothing of Nodes.
    let blind = world.observed.nodes.known().is_none();
    let joined = before.phase.filter(|p| blind && matches!(p, MachinePhase::Ready | MachinePhase::Failing));
    let phase = match phase(machine, instance, node, hearing, &reached) {
        MachinePhase::Failing => joined.unwrap_or(MachinePhase::Failing),
        other => other,
    };
    let message = waits.first().map_or_else(String::new, |w| format!("waiting for {}", w.what));
    let finding = Finding {
        kind: "Ready",
        status: if phase == MachinePhase::Ready { "True" } else { "False" },
        reason: if phase == MachinePhase::Ready { "AllReady" } else { waits.first().map_or("Creating", |w| w.reason.as_str()) },
        message: &message,
    };
    // Not asked yet: so is what an agent says of a machine that is there.
    let unheard = MachineStatus { agent: None, units: vec![], probes: vec![], ..before.clone() };
    let unheard = if instance.is_some() { &before } else { &unheard };
    let (units, probes) = hearing.map_or_else(|| (unheard.units.clone(), unheard.probes.clone()), said);
    let after = MachineStatus {
        decisions: reported.decisions.after(&before.decisions, Some(&name), OF_MACHINE),
        observed_generation: machine.metadata.generation,
        phase: Some(phase),
        node_name: if blind { before.node_name.clone() } else { node.map(|n| n.name.clone()) },
        kubernetes_version: if blind { before.kubernetes_version.clone() } else { node.and_then(|n| kubelet_version(world, &n.name)) },
        instance_state: instance.map(|i| format!("{:?}", i.state)),
        // Never an empty object: applied over one whose fields all go, the API server makes a null of it and refuses it.
        agent: hearing.map_or_else(|| unheard.agent.clone(), |h| Some(agent(h))).filter(|a| *a != AgentStatus::default()),
        units,
        probes,
        stages: reached,
        conditions: set_conditions(&before.conditions, [finding], machine.metadata.generation, now),
        waits,
    };
    // What an agent is doing just now is told together with something else: alone it is not worth a write.
    let mut calm = after.clone();
    if let (Some(old), Some(new)) = (&before.agent, &mut calm.agent) {
        new.applying.clone_from(&old.applying);
    }
    if calm == before {
        return None;
    }
    changed("Machine", machine, &before, &after, before.phase != after.phase && phase == MachinePhase::Ready)
}

/// The Node of a machine.
pub fn node<'a>(world: &'a World, machine: &str) -> Option<&'a NodeFacts> {
    let nodes = world.observed.nodes.known()?;
    nodes.iter().find(|n| n.machine.as_ref().is_some_and(|m| m.as_str() == machine))
}

/// Whether a machine's Node is Ready.
pub fn node_ready(world: &World, machine: &MachineName) -> bool {
    node(world, machine.as_str()).is_some_and(|n| n.ready)
}

fn kubelet_version(world: &World, node: &str) -> Option<String> {
    match &world.seen.picture {
        Some(Picture::Known { view, .. }) => view.nodes.get(node).map(|n| n.kubelet_version.clone()).filter(|v| !v.is_empty()),
        Some(Picture::Unknown { .. }) | None => None,
    }
}

fn phase(
    machine: &Machine,
    instance: Option<&InstanceFacts>,
    node: Option<&NodeFacts>,
    hearing: Option<&Hearing>,
    reached: &[Stage],
) -> MachinePhase {
    if machine.metadata.deletion_timestamp.is_some() {
        let drained = node.is_none_or(|n| n.pods.known().is_none_or(Vec::is_empty) && n.volumes.known().is_none_or(Vec::is_empty));
        return if drained { MachinePhase::Deleting } else { MachinePhase::Draining };
    }
    let was_ready = reached.iter().any(|s| s.name == "ready");
    let runs = instance.is_some_and(|i| i.state == InstanceState::Running);
    match (runs, node.map(|n| n.ready)) {
        (true, Some(true)) => MachinePhase::Ready,
        _ if was_ready => MachinePhase::Failing,
        (false, _) if instance.is_none() && machine.spec.instance.is_none() => MachinePhase::Pending,
        (false, _) => MachinePhase::Booting,
        (true, _) if machine.spec.agent_key.is_none() => MachinePhase::Booting,
        (true, _) => match hearing {
            Some(Hearing::Speaking { state, .. }) if !state.applied_digest.is_empty() && state.applied_digest == state.accepted_digest => {
                MachinePhase::Joining
            }
            Some(_) | None => MachinePhase::Configuring,
        },
    }
}

fn agent(hearing: &Hearing) -> AgentStatus {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (state, silent_since) = match hearing {
        Hearing::Speaking { state, .. } => (Some(state), None),
        Hearing::Silent { since, last, .. } => (last.as_ref(), Some(*since)),
        Hearing::Greeted { .. } => (None, None),
    };
    state.map_or_else(
        || AgentStatus { silent_since, ..AgentStatus::default() },
        |s| AgentStatus {
            version: text(&s.agent_version),
            build: s.agent.as_ref().and_then(|a| text(&a.sha256)),
            trial: s.agent.as_ref().and_then(|a| text(&a.trial)),
            refused: s.agent.as_ref().filter(|a| !a.refused.is_empty()).map(refused),
            certificate_expires: (s.certificate_expires_ms > 0).then(|| time(s.certificate_expires_ms)),
            accepted_digest: text(&s.accepted_digest),
            applied_digest: text(&s.applied_digest),
            applying: text(&s.applying),
            trouble: text(&s.trouble),
            silent_since,
        },
    )
}

fn refused(agent: &v1::AgentBuild) -> RefusedBuild {
    RefusedBuild { build: agent.refused.clone(), why: agent.refused_why.clone(), since: Some(time(agent.refused_since_ms)) }
}

fn said(hearing: &Hearing) -> (Vec<UnitStatus>, Vec<ProbeStatus>) {
    let Hearing::Speaking { state, .. } = hearing else { return (vec![], vec![]) };
    let since = |ms: i64| (ms > 0).then(|| time(ms));
    let units = state.units.iter().map(|u| UnitStatus {
        name: u.name.clone(),
        state: u.active_state.clone(),
        restarts: u.restarts,
        message: failing(u).map(|t| t.message).unwrap_or_default(),
        since: since(u.since_ms),
    });
    let probes = state.probes.iter().map(|p| ProbeStatus {
        name: p.name.clone(),
        healthy: p.healthy,
        message: p.message.clone(),
        since: since(p.since_ms),
    });
    (units.collect(), probes.collect())
}
