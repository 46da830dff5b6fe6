//! When each machine reached each stage of its making, for timelines. A stage is noted once, when it is first seen.

use crate::agents::Hearing;
use crate::compose::World;
use jiff::Timestamp;
use kube::ResourceExt;
use slipway_agent_api::v1;
use slipway_crds::{Machine, Stage};
use slipway_plan::{InstanceState, PROBE_API_SERVER, PROBE_ETCD};
use std::collections::BTreeMap;

/// Notes what has been reached by now.
pub fn note(stages: &mut BTreeMap<String, Vec<Stage>>, world: &World, now: Timestamp) {
    stages.retain(|name, _| world.seen.machines.iter().any(|m| m.name_any() == *name));
    for machine in &world.seen.machines {
        let reached =
            stages.entry(machine.name_any()).or_insert_with(|| machine.status.as_ref().map(|s| s.stages.clone()).unwrap_or_default());
        for name in seen(machine, world) {
            if !reached.iter().any(|s| s.name == name) {
                // To the microsecond: more says nothing.
                let at = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
                reached.push(Stage { name: name.to_owned(), at });
            }
        }
    }
}

/// Stages that a machine has reached, by what is seen of it now.
fn seen(machine: &Machine, world: &World) -> Vec<&'static str> {
    let uid = machine.uid().unwrap_or_default();
    let instance = world.observed.cloud.known().and_then(|c| c.of(&uid));
    let hearing = world.seen.hearings.get(&uid);
    let heard: Option<&v1::MachineState> = match hearing {
        Some(Hearing::Speaking { state, .. }) => Some(state),
        Some(Hearing::Greeted { .. } | Hearing::Silent { .. }) | None => None,
    };
    let healthy = |probe: &str| heard.is_some_and(|s| s.probes.iter().any(|p| p.name == probe && p.healthy));
    let node = super::machine::node(world, &machine.name_any());
    let claimed = machine.spec.agent_key.is_some();
    let stages = [
        ("recorded", true),
        ("created", instance.is_some()),
        ("running", instance.is_some_and(|i| i.state == InstanceState::Running)),
        ("answering", claimed || heard.is_some() || matches!(hearing, Some(Hearing::Greeted { .. }))),
        ("claimed", claimed),
        ("configuring", heard.is_some_and(|s| !s.accepted_digest.is_empty())),
        ("configured", heard.is_some_and(|s| !s.applied_digest.is_empty() && s.applied_digest == s.accepted_digest)),
        ("etcd", healthy(PROBE_ETCD)),
        ("apiserver", healthy(PROBE_API_SERVER)),
        ("registered", node.is_some()),
        ("ready", node.is_some_and(|n| n.ready)),
    ];
    stages.into_iter().filter(|(_, reached)| *reached).map(|(name, _)| name).collect()
}
