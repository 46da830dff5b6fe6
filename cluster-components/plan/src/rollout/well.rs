//! Whether a machine is well, and has been for long enough that the next one may be touched.

use crate::draft::{Draft, PROBE_API_SERVER, PROBE_ETCD};
use crate::{AgentFacts, MachineRecord, Reason, reconfigure};
use jiff::{SignedDuration, Timestamp};

/// What a machine lacks to be well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ill {
    pub reason: Reason,
    /// What is waited for.
    pub what: String,
    /// Since when, as far as that is known: the time of the last change of versions otherwise.
    pub since: Timestamp,
}

impl Ill {
    fn new(reason: Reason, what: impl Into<String>, since: Timestamp) -> Option<Self> {
        Some(Self { reason, what: what.into(), since })
    }
}

/// Whether a machine runs exactly what its record says.
pub(crate) fn is_settled(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let wanted = draft.observed.wanted.get(&machine.name);
    wanted.is_some() && draft.heard(&machine.name).is_some_and(|s| s.accepted.as_ref() == wanted && s.applied.as_ref() == wanted)
}

/// What it lacks to be well, if it lacks anything.
pub(crate) fn ill(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Ill> {
    let told = machine.changed.as_ref().map_or(machine.created, |c| c.at);
    let state = match draft.observed.agents.get(&machine.name) {
        Some(AgentFacts::Heard(state)) => state,
        Some(AgentFacts::Silent { since, error, .. }) => {
            return Ill::new(Reason::AgentSilent, format!("the agent to answer again ({error})"), *since);
        }
        Some(AgentFacts::Answering) | None => return Ill::new(Reason::MachineStarting, "its agent to be spoken to", told),
    };
    if !is_settled(draft, machine) {
        return match &state.trouble {
            Some(t) => Ill::new(Reason::ConfigurationTroubled, format!("its configuration to become real ({})", t.message), t.since),
            // It does all that it was told: what it is not told yet is no step's failure.
            None if reconfigure::awaits(draft, machine) => {
                Ill::new(Reason::ApplyingConfiguration, "another configuration, when its turn comes and it may be disturbed", draft.now)
            }
            None => Ill::new(Reason::ApplyingConfiguration, "its configuration to become real", told),
        };
    }
    if let Some((unit, trouble)) = state.failing_units.iter().next() {
        return Ill::new(Reason::UnitFailing, format!("{unit} to stay up ({})", trouble.message), trouble.since);
    }
    if let Some((probe, facts)) = state.probes.iter().find(|(_, p)| !p.healthy) {
        return Ill::new(Reason::ProbeFailing, format!("{probe} to be healthy ({})", facts.message), facts.since);
    }
    let needed: &[&str] = if machine.is_control_plane() && !machine.retiring { &[PROBE_ETCD, PROBE_API_SERVER] } else { &[] };
    if let Some(probe) = needed.iter().find(|p| !state.healthy(p)) {
        return Ill::new(Reason::ProbeFailing, format!("{probe} to be healthy"), told);
    }
    node_ill(draft, machine, told)
}

/// What its Node lacks.
fn node_ill(draft: &Draft<'_>, machine: &MachineRecord, told: Timestamp) -> Option<Ill> {
    if let crate::Fact::Unknown { why, since } = &draft.observed.nodes {
        return Ill::new(Reason::WaitingForApi, format!("the cluster's API to answer ({why})"), *since);
    }
    let Some(node) = draft.node(&machine.name) else {
        return Ill::new(Reason::NodeNotRegistered, "its Node to be registered", told);
    };
    if !node.ready {
        return Ill::new(Reason::NodeNotReady, format!("its Node to be Ready ({})", node.message), node.since);
    }
    let wanted = machine.versions.node.kubelet;
    if node.kubelet != Some(wanted) {
        let says = node.kubelet.map_or_else(|| "no version".into(), |v| v.to_string());
        return Ill::new(Reason::Upgrading, format!("its Node to say that its kubelet is {wanted} (it says {says})"), told);
    }
    None
}

/// Until when a machine that is well has to stay so before another one is touched. `None`: it has.
pub(crate) fn soaks_until(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Timestamp> {
    let probes = draft.heard(&machine.name).into_iter().flat_map(|s| s.probes.values().map(|p| p.since));
    let good_since = probes.chain(machine.changed.as_ref().map(|c| c.at)).max()?;
    let soak = SignedDuration::try_from(draft.spec.pace.soak()).unwrap_or(SignedDuration::MAX);
    Some(good_since.saturating_add(soak).unwrap_or(good_since)).filter(|until| *until > draft.now)
}
