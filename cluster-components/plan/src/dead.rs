//! Who is dead: told by two witnesses, never by silence alone.
//!
//! | machine | witnesses | verdict |
//! |---|---|---|
//! | any | its instance was recorded and the cloud does not have it any more | dead at once |
//! | any | its agent was never heard for [`BOOT_TIMEOUT`] | dead |
//! | worker | agent silent for the pool's `agentSilentSeconds`, and the cloud says powered off or its Node is NotReady | dead |
//! | any | agent silent for [`BOOT_TIMEOUT`] and the API, which answers, knows of no Node of it | dead |
//! | control plane | agent silent for [`DEAD_AFTER`], its etcd member does not answer, and its Node is NotReady | dead |
//! | control plane | the same, and it is powered off and did not come back when it was started, for [`POWER_ON`] | dead |
//! | control plane | its agent knows no plan although its etcd member once started | its disk is lost: dead at once |
//! | any | agent silent, and nobody else to ask | alive |

use crate::draft::{BOOT_TIMEOUT, DEAD_AFTER, Draft, PROBE_ETCD};
use crate::quorum::member_of;
use crate::{AgentFacts, InstanceState, MachineRecord, Removal};
use jiff::{SignedDuration, Timestamp};

/// How long a powered-off control plane may take to come back when it is started.
pub const POWER_ON: SignedDuration = SignedDuration::from_secs(60);

/// A verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// Since when.
    pub since: Timestamp,
    /// What the witnesses say.
    pub because: &'static str,
    /// How its record is taken away: [`Removal::Dead`] is checked against its agent once more, [`Removal::Outdated`] is for those that still speak.
    pub why: Removal,
}

/// Since when an agent is silent.
pub(crate) fn silent_since(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Timestamp> {
    match draft.observed.agents.get(&machine.name) {
        Some(AgentFacts::Silent { since, .. }) => Some(*since),
        Some(AgentFacts::Answering | AgentFacts::Heard(_)) | None => None,
    }
}

/// Whether a machine is dead. Asks for another look when only time is missing.
pub(crate) fn death(draft: &mut Draft<'_>, machine: &MachineRecord) -> Option<Death> {
    let found = verdict(draft, machine)?;
    match found {
        Verdict::Dead(death) => Some(death),
        Verdict::Due { at, death } if draft.now >= at => Some(death),
        Verdict::Due { at, .. } => {
            draft.look_at(at);
            None
        }
    }
}

/// The same for those who only read.
pub(crate) fn is_dead(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    match verdict(draft, machine) {
        Some(Verdict::Dead(_)) => true,
        Some(Verdict::Due { at, .. }) => draft.now >= at,
        None => false,
    }
}

enum Verdict {
    Dead(Death),
    /// Dead from then on, if nothing else is heard.
    Due {
        at: Timestamp,
        death: Death,
    },
}

fn due(since: Timestamp, grace: SignedDuration, because: &'static str) -> Verdict {
    let at = since.saturating_add(grace).unwrap_or(since);
    Verdict::Due { at, death: Death { since, because, why: Removal::Dead } }
}

fn verdict(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Verdict> {
    if draft.is_gone(machine) {
        let since = silent_since(draft, machine).unwrap_or(machine.created);
        return Some(Verdict::Dead(Death { since, because: "the cloud does not have its instance any more", why: Removal::Dead }));
    }
    if machine.is_control_plane() && draft.observed.cluster.bootstrapped && machine.claimed {
        return control_plane(draft, machine);
    }
    let since = silent_since(draft, machine)?;
    if !machine.claimed {
        // An unclaimed one is silent in the eyes of its cloud only while the inventory shows it.
        draft.instance(machine)?;
        return Some(due(since, BOOT_TIMEOUT, "its agent never answered since it was made"));
    }
    let off = draft.instance(machine).is_some_and(|i| i.state == InstanceState::Stopped);
    let not_ready = draft.node(&machine.name).is_some_and(|n| !n.ready);
    let grace = draft.spec.pools.iter().find(|p| p.name == machine.pool).map(|p| i64::from(p.health.agent_silent_seconds));
    let grace = grace.map_or(DEAD_AFTER, SignedDuration::from_secs);
    // There is no Node that could be a witness, and none comes.
    let no_node = draft.observed.nodes.known().is_some() && draft.node(&machine.name).is_none();
    match (off, not_ready) {
        (true, _) => Some(due(since, grace, "its agent is silent and the cloud says that it is powered off")),
        (false, true) => Some(due(since, grace, "its agent is silent and its Node is NotReady")),
        (false, false) if no_node => Some(due(since, BOOT_TIMEOUT.max(grace), "its agent fell silent before it joined")),
        (false, false) => None,
    }
}

/// A claimed machine of a control plane that was founded.
fn control_plane(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Verdict> {
    let etcd = draft.observed.etcd.known();
    let member = etcd.and_then(|etcd| member_of(etcd, machine));
    if let Some(state) = draft.heard(&machine.name) {
        let founder = draft.observed.cluster.founders.contains(&machine.name);
        let started = founder || member.is_some_and(|m| !m.name.is_empty());
        if state.accepted.is_none() && started {
            let because = "its disk is not the one it had: it does not know the configuration that it once accepted";
            return Some(Verdict::Dead(Death { since: machine.created, because, why: Removal::Dead }));
        }
        // Somebody removed its member: that one never comes back, and its data is of no use.
        let probe = state.probes.get(PROBE_ETCD).filter(|p| !p.healthy)?;
        let settled = state.accepted.is_some() && state.applied == state.accepted;
        if settled && etcd.is_some() && member.is_none() {
            let Verdict::Due { at, death } = due(probe.since, DEAD_AFTER, "its member was removed from etcd") else { return None };
            return Some(Verdict::Due { at, death: Death { why: Removal::Outdated, ..death } });
        }
        return None;
    }
    let since = silent_since(draft, machine)?;
    // Silence alone proves nothing, and a member that answers proves life.
    if etcd.is_none() || member.is_some_and(|m| m.status.known().is_some()) {
        return None;
    }
    match draft.instance(machine)?.state {
        InstanceState::Stopped | InstanceState::Pending => {
            Some(due(since, POWER_ON, "it is powered off and did not come back when it was started"))
        }
        InstanceState::Running | InstanceState::Deleting => {
            // Its etcd may have begun, and nothing more: there is no Node that could be a witness, and none comes.
            let no_node = draft.observed.nodes.known().is_some() && draft.node(&machine.name).is_none();
            if draft.node(&machine.name).is_some_and(|n| !n.ready) {
                Some(due(since, DEAD_AFTER, "its agent and its etcd member are silent and its Node is NotReady"))
            } else if no_node {
                Some(due(since, BOOT_TIMEOUT, "its agent fell silent before it joined"))
            } else {
                None
            }
        }
    }
}
