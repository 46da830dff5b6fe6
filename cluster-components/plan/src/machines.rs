//! One machine's way from a record to a Node that is Ready: each pass does whatever can be done now, and says what it waits for.
//!
//! ```text
//! record ─► token and user data frozen ─► instance ─► recorded ─► agent answers ─► claimed ─► configured ─► probes healthy ─► Node Ready
//!                                             └─► certificates ─► rendered ──────────────────────┘
//! ```

use crate::control_plane;
use crate::draft::{BOOT_TIMEOUT, Draft};
use crate::turn::Turn;
use crate::{
    Action, AgentFacts, AgentState, Certificates, InstanceFacts, InstanceRef, InstanceState, MachineRecord, Reason, SecretFacts, dead,
    departure, maintenance, reconfigure, rollout,
};
use slipway_model::PlanDigest;

/// Brings every machine forward that is not being taken away, and those control planes that leave and have a vote still.
pub(crate) fn forward(draft: &mut Draft<'_>) {
    if draft.machines().is_none() {
        return;
    }
    let votes = |m: &&MachineRecord| {
        draft.observed.cluster.bootstrapped && m.claimed && !departure::is_released(draft, m) && !dead::is_dead(draft, m)
    };
    let leaving = draft.leaving_control_planes().filter(votes);
    let machines: Vec<&MachineRecord> =
        draft.control_planes().chain(leaving).chain(draft.workers()).filter(|m| !draft.is_taken(&m.name)).collect();
    let turn = Turn::of(draft);
    for machine in machines {
        if let Some(instance) = exist(draft, machine) {
            speak(draft, machine, instance, &turn);
        }
    }
}

/// From the record to a recorded instance that runs.
fn exist<'a>(draft: &mut Draft<'a>, machine: &MachineRecord) -> Option<&'a InstanceFacts> {
    let (cloud, secrets) = (draft.cloud()?, draft.secrets()?);
    let Some(instance) = cloud.instance(machine) else {
        if machine.instance.is_some() {
            return None; // gone: remediation's and the founding's business
        }
        if !secrets.of(&machine.name).bootstrap {
            draft.start(Action::IssueBootstrap { machine: machine.name.clone(), uid: machine.uid.clone() });
        } else if cloud.network {
            draft.start(Action::CreateInstance { machine: machine.name.clone(), uid: machine.uid.clone() });
        }
        draft.wait_on(&machine.name, Reason::MachineStarting, "the cloud to make the machine", machine.created);
        return None;
    };
    if instance.state == InstanceState::Deleting {
        return None;
    }
    let zoneless = |at: &InstanceRef| at.zone.is_none() && instance.zone.is_some() && at.id == instance.id;
    if machine.instance.as_ref().is_none_or(zoneless) {
        let at = InstanceRef { id: instance.id.clone(), address: instance.address, zone: instance.zone.clone() };
        draft.start(Action::RecordInstance { machine: machine.name.clone(), uid: machine.uid.clone(), instance: at });
    }
    // A claimed worker that was powered off is remediation's.
    if instance.state == InstanceState::Stopped && (machine.is_control_plane() || !machine.claimed) {
        draft.start(Action::StartInstance { machine: machine.name.clone(), instance: instance.id.clone() });
        draft.wait_on(&machine.name, Reason::MachinePoweredOff, "the machine to start again", machine.created);
    }
    certify(draft, machine, secrets);
    Some(instance)
}

/// Its leaf certificates, as soon as the names and addresses in them are known, and anew long before they end.
fn certify(draft: &mut Draft<'_>, machine: &MachineRecord, secrets: &SecretFacts) {
    let named = !machine.is_control_plane() || draft.observed.cluster.endpoint.is_some();
    if !secrets.pki || !named {
        return;
    }
    let now = match secrets.of(&machine.name).certificates {
        Certificates::Missing | Certificates::Overdue => true,
        Certificates::Due => maintenance::may_change(draft, machine, "its certificates are renewed then"),
        Certificates::Good => false,
    };
    if now {
        draft.start(Action::IssueCertificates { machine: machine.name.clone(), uid: machine.uid.clone() });
    }
}

/// From an instance to an agent that is ours.
fn speak(draft: &mut Draft<'_>, machine: &MachineRecord, instance: &InstanceFacts, turn: &Turn<'_>) {
    let Some(secrets) = draft.secrets() else { return };
    if machine.claimed && secrets.of(&machine.name).bootstrap {
        draft.start(Action::DropBootstrap { machine: machine.name.clone() });
    }
    let trouble = instance.trouble.as_deref().unwrap_or_default();
    match draft.observed.agents.get(&machine.name) {
        None => draft.wait_after(&machine.name, Reason::MachineStarting, "the machine to boot", machine.created, trouble),
        Some(AgentFacts::Silent { since, error, .. }) if !machine.claimed => {
            let deadline = since.saturating_add(BOOT_TIMEOUT).unwrap_or(*since);
            if draft.now < deadline {
                draft.look_at(deadline);
                let heard = if trouble.is_empty() { error } else { trouble };
                draft.wait_after(&machine.name, Reason::MachineStarting, "the machine to boot and its agent to answer", *since, heard);
            } else {
                draft.wait_after(&machine.name, Reason::MachineNeverAnswered, "the agent's first answer", *since, error);
            }
        }
        Some(AgentFacts::Silent { since, error, .. }) => {
            draft.wait_after(&machine.name, Reason::AgentSilent, "the agent to answer again", *since, error);
        }
        Some(AgentFacts::Answering) if !machine.claimed && secrets.pki => {
            // The record of the instance comes first: a claimed machine is one that certainly existed.
            if machine.instance.is_some() {
                draft.start(Action::Claim { machine: machine.name.clone(), uid: machine.uid.clone(), address: instance.address });
            }
            draft.wait_on(&machine.name, Reason::MachineStarting, "its agent to be claimed", machine.created);
        }
        Some(AgentFacts::Answering) => draft.wait_on(&machine.name, Reason::MachineStarting, "its agent to be spoken to", machine.created),
        Some(AgentFacts::Heard(state)) if machine.claimed => configure(draft, machine, state, turn),
        // Claimed by protocol, and only our record of it is missing or not seen yet.
        Some(AgentFacts::Heard(_)) => draft.wait_on(&machine.name, Reason::MachineStarting, "its claim to be recorded", machine.created),
    }
}

/// From a claimed agent to a machine that does what is wanted.
fn configure(draft: &mut Draft<'_>, machine: &MachineRecord, state: &AgentState, turn: &Turn<'_>) {
    let Some(wanted) = draft.observed.wanted.get(&machine.name) else {
        let joins =
            draft.observed.cluster.bootstrapped && machine.join.is_none() && !draft.observed.cluster.founders.contains(&machine.name);
        let (reason, what) = match machine.is_control_plane() {
            true if joins => (Reason::MemberJoining, "etcd to take it in"),
            true => (Reason::WaitingForAddresses, "its configuration to be rendered"),
            false => (Reason::Rendering, "its configuration to be rendered"),
        };
        draft.wait_on(&machine.name, reason, what, machine.created);
        return;
    };
    match &state.accepted {
        Some(accepted) if accepted == wanted => settle(draft, machine, state, wanted),
        Some(_) if reconfigure::is_held(draft, machine) => {
            maintenance::may_change(draft, machine, "its configuration changes then");
        }
        accepted => match turn.may_apply(draft, machine, accepted.as_ref()) {
            Ok(()) if rollout::may_follow(draft, machine, accepted.is_some()) => tell(draft, machine, accepted.as_ref(), wanted),
            Ok(()) => {}
            Err((reason, what)) => draft.wait_on(&machine.name, reason, what, machine.created),
        },
    }
}

/// Gives a machine its configuration. That is one whole: certificates that are about to end bring with them what else changed of it.
fn tell(draft: &mut Draft<'_>, machine: &MachineRecord, expected: Option<&PlanDigest>, wanted: &PlanDigest) {
    let action =
        Action::ApplyPlan { machine: machine.name.clone(), uid: machine.uid.clone(), expected: expected.cloned(), wanted: wanted.clone() };
    let closed = maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_err();
    if closed && reconfigure::presses(draft, machine) && reconfigure::awaits(draft, machine) {
        draft.decide(action, "the certificates that it has are about to end, so it gets new ones whatever the hour, and what else changed of its configuration with them");
    } else {
        draft.start(action);
    }
}

/// From an accepted configuration to a Ready Node.
fn settle(draft: &mut Draft<'_>, machine: &MachineRecord, state: &AgentState, wanted: &PlanDigest) {
    let name = &machine.name;
    if let Some(trouble) = &state.trouble {
        // The agent tries by itself: it alone knows when.
        let again = if state.applying.is_empty() { String::new() } else { format!(" ({})", state.applying) };
        let what = format!("its configuration to become real{again}");
        draft.wait_after(name, Reason::ConfigurationTroubled, what, trouble.since, &trouble.message);
    } else if state.applied.as_ref() != Some(wanted) {
        draft.wait_after(name, Reason::ApplyingConfiguration, "its configuration to become real", machine.created, &state.applying);
    }
    for (unit, trouble) in &state.failing_units {
        draft.wait_after(name, Reason::UnitFailing, format!("{unit} to stay up"), trouble.since, &trouble.message);
    }
    for (probe, facts) in state.probes.iter().filter(|(_, p)| !p.healthy) {
        let reason =
            if control_plane::is_founding(draft) && machine.is_control_plane() { Reason::WaitingForQuorum } else { Reason::ProbeFailing };
        draft.wait_after(name, reason, format!("{probe} to be healthy"), facts.since, &facts.message);
    }
    join(draft, machine);
}

/// Its Node.
fn join(draft: &mut Draft<'_>, machine: &MachineRecord) {
    if !draft.observed.cluster.bootstrapped {
        return;
    }
    let Some(nodes) = draft.nodes() else { return };
    let Some(node) = nodes.iter().find(|n| n.machine.as_ref() == Some(&machine.name)) else {
        draft.wait_on(&machine.name, Reason::NodeNotRegistered, "its Node to be registered", machine.created);
        return;
    };
    // What this very plan tells may make other marks right.
    let tells = draft.planned().any(Action::marks);
    if !node.labels_ok && !tells {
        draft.start(Action::LabelNode { machine: machine.name.clone(), node: node.name.clone(), uid: node.uid.clone() });
    }
    if !node.ready {
        draft.wait_after(&machine.name, Reason::NodeNotReady, "its Node to be Ready", node.since, &node.message);
    }
}
