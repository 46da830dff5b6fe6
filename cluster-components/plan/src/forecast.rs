//! What would be done, step by step to the end: `plan` folded over the model of what each action does.

use crate::happenings::{happen, happenings};
use crate::simulate::{seen, simulate};
use crate::{Action, AgentFacts, EtcdFacts, Fact, Observed, PROBE_API_SERVER, PROBE_ETCD, PreflightFacts, Wait, plan};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_model::ClusterSpec;
use std::fmt;
use std::time::Duration;

/// More passes than any cluster of sane size needs.
pub(crate) const PASSES: usize = 400;
/// The longest pause a forecast looks beyond.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One pass: what starts together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Independent of each other.
    pub actions: Vec<Action>,
    /// What is waited for meanwhile.
    pub waits: Vec<Wait>,
    /// etcd before the step, once it has members.
    pub etcd: Option<Quorum>,
}

/// How far etcd is from losing its quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// Voters that answer.
    pub answering: usize,
    /// All voters.
    pub voters: usize,
}

impl Quorum {
    fn of(world: &Observed) -> Option<Self> {
        let etcd = world.etcd.known()?;
        let voters = etcd.voters().count();
        (voters > 0).then(|| Self { answering: etcd.voters().filter(|m| m.status.known().is_some()).count(), voters })
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = self.voters / 2 + 1;
        write!(f, "etcd {}/{}, quorum {needed}", self.answering, self.voters)
    }
}

/// How a forecast ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Everything is as the spec says.
    Done,
    /// It goes no further until somebody does something, or something can be seen again.
    Waits(Vec<Wait>),
    /// No end in sight.
    Unbounded,
}

/// All steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// In order. Empty: nothing to do.
    pub steps: Vec<Step>,
    /// How it ends.
    pub end: End,
}

/// Foresees what the operator would do from here, if nothing fails.
#[must_use]
pub fn forecast(spec: &ClusterSpec, observed: &Observed, now: Timestamp) -> Forecast {
    let mut steps = vec![];
    let end = foresee(spec, observed, now, &mut steps, &mut || true);
    Forecast { steps, end: end.unwrap_or(End::Unbounded) }
}

/// The same for those who have other things to do: `None` as soon as `go_on`, asked before each pass, says no.
#[must_use]
pub fn forecast_while(spec: &ClusterSpec, observed: &Observed, now: Timestamp, mut go_on: impl FnMut() -> bool) -> Option<Forecast> {
    let mut steps = vec![];
    let end = foresee(spec, observed, now, &mut steps, &mut go_on)?;
    Some(Forecast { steps, end })
}

fn foresee(
    spec: &ClusterSpec,
    observed: &Observed,
    mut now: Timestamp,
    steps: &mut Vec<Step>,
    go_on: &mut dyn FnMut() -> bool,
) -> Option<End> {
    let mut world = as_world(spec, observed);
    for _ in 0..PASSES {
        if !go_on() {
            return None;
        }
        if world.is_over() {
            return Some(End::Done);
        }
        let next = plan(spec, &seen(&world), now);
        let etcd = Quorum::of(&world);
        let mut moved = false;
        for action in &next.actions {
            let before = world.clone();
            moved |= simulate(spec, &mut world, action, now).is_ok() && world != before;
        }
        if !next.actions.is_empty() {
            steps.push(Step { actions: next.actions, waits: next.waits.clone(), etcd });
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now);
            moved = true;
        }
        if moved {
            continue;
        }
        // Only time can go on from here.
        match next.requeue.filter(|pause| !pause.is_zero() && *pause <= PATIENCE) {
            Some(pause) if !next.waits.is_empty() && world.cloud.known().is_some() => {
                now = now.saturating_add(SignedDuration::try_from(pause).unwrap_or(SignedDuration::ZERO)).unwrap_or(now);
            }
            _ => return Some(if next.waits.is_empty() { End::Done } else { End::Waits(next.waits) }),
        }
    }
    Some(End::Unbounded)
}

/// What was observed, as a world to play in: past failures are assumed to pass, an API that was never up has no Nodes, pods that were not asked for
/// are gone when their machine is taken away, and what speaks against an upgrade that nobody looked at yet is nothing.
fn as_world(spec: &ClusterSpec, observed: &Observed) -> Observed {
    let mut world = observed.clone();
    world.failures.clear();
    if !world.cluster.bootstrapped {
        for_unknown(&mut world.nodes, vec![]);
        for_unknown(&mut world.addons, None);
        for_unknown(&mut world.etcd, EtcdFacts::default());
    }
    for node in world.nodes.known_mut().into_iter().flatten() {
        for_unknown(&mut node.pods, vec![]);
        for_unknown(&mut node.volumes, vec![]);
    }
    // Probes of which the model knows nothing would stay as they are for ever: they are assumed to get well.
    for agent in world.agents.values_mut() {
        let AgentFacts::Heard(state) = agent else { continue };
        let others = state.probes.iter_mut().filter(|(name, _)| ![PROBE_ETCD, PROBE_API_SERVER].contains(&name.as_str()));
        for (_, probe) in others.filter(|(_, probe)| !probe.healthy) {
            probe.healthy = true;
            probe.message.clear();
        }
    }
    let to = Some(spec.control_plane.versions);
    if world.preflight.known().is_none_or(|facts| facts.to != to) {
        world.preflight = Fact::Known(PreflightFacts { to, ..PreflightFacts::default() });
    }
    world
}

fn for_unknown<T>(fact: &mut Fact<T>, value: T) {
    if let Fact::Unknown { .. } = fact {
        *fact = Fact::Known(value);
    }
}
