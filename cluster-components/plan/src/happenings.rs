//! What the world does by itself: machines boot, agents configure, Nodes join, pods end, and what follows at once from all that.

use crate::simulate::{agent_boots, api_answers, end_of_trial, etcd_follows, pod_on, record, render, running, works};
use crate::{AgentFacts, AgentState, Fact, InstanceState, NodeFacts, Observed};
use jiff::Timestamp;
use slipway_model::MachineName;

/// A step of the world's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// The load balancer forwards.
    BalancerReady,
    /// An instance boots and its agent answers.
    Boots(MachineName),
    /// An instance that was being deleted is gone. By its id.
    Removed(String),
    /// An agent that was silent on a machine that works is heard again.
    SpeaksAgain(MachineName),
    /// An agent has made its plan real.
    Configured(MachineName),
    /// A learner has caught up with etcd's leader.
    CatchesUp(MachineName),
    /// A kubelet registers its Node, which becomes Ready.
    Joins(MachineName),
    /// A Node is Ready again.
    Recovers(MachineName),
    /// The API notices that a kubelet is silent.
    NotReady(MachineName),
    /// A build of an agent that was on trial has been reached: it stays.
    AgentStays(MachineName),
    /// A pod that was evicted ends. By its uid.
    PodEnds(String),
    /// A volume whose pod is gone is detached from a Node. By the Node's name and its own.
    Detaches(String, String),
}

/// What may happen next, in a fixed order.
#[must_use]
pub fn happenings(world: &Observed) -> Vec<Happening> {
    let mut next = vec![];
    let Fact::Known(cloud) = &world.cloud else { return next };
    let balancer = cloud.load_balancer.as_ref();
    if balancer.is_some_and(|b| !b.ready) {
        next.push(Happening::BalancerReady);
    }
    let api = api_answers(world);
    for instance in &cloud.instances {
        match instance.state {
            InstanceState::Pending => next.push(Happening::Boots(instance.machine.clone())),
            InstanceState::Deleting => next.push(Happening::Removed(instance.id.clone())),
            InstanceState::Running | InstanceState::Stopped => {}
        }
    }
    let nodes = world.nodes.known().map_or(&[][..], Vec::as_slice);
    for (name, agent) in &world.agents {
        if matches!(agent, AgentFacts::Silent { .. }) && works(world, name) {
            next.push(Happening::SpeaksAgain(name.clone()));
        }
        let Some(state) = agent.heard() else { continue };
        if state.applied != state.accepted && state.trouble.is_none() {
            next.push(Happening::Configured(name.clone()));
        }
        if state.build.as_ref().is_some_and(|b| b.trial.is_some()) {
            next.push(Happening::AgentStays(name.clone()));
        }
        let control_plane = record(world, name).is_some_and(crate::MachineRecord::is_control_plane);
        let reaches = api && (control_plane || balancer.is_some_and(|b| b.ready));
        let joined = nodes.iter().any(|n| n.machine.as_ref() == Some(name));
        if reaches && state.applied.is_some() && !joined && record(world, name).is_some() {
            next.push(Happening::Joins(name.clone()));
        }
    }
    let lagging = world.etcd.known().into_iter().flat_map(|e| &e.members).filter(|m| m.status.known().is_some_and(|s| !s.in_sync));
    next.extend(lagging.filter(|_| api).filter_map(|m| m.name.parse().ok()).map(Happening::CatchesUp));
    for node in nodes {
        let Some(name) = &node.machine else { continue };
        let runs = works(world, name);
        match (api, node.ready, runs) {
            (true, true, false) => next.push(Happening::NotReady(name.clone())),
            (true, false, true) => next.push(Happening::Recovers(name.clone())),
            _ => {}
        }
        let ending = node.pods.known().into_iter().flatten().filter(|p| p.terminating && runs);
        next.extend(ending.map(|p| Happening::PodEnds(p.pod.uid.clone())));
        // The kubelet unmounts it first, after the last pod has ended.
        let free = node.volumes.known().into_iter().flatten().filter(|_| api && runs && node.pods.known().is_some_and(Vec::is_empty));
        next.extend(free.map(|volume| Happening::Detaches(node.name.clone(), volume.clone())));
    }
    next
}

/// Lets it happen.
pub fn happen(world: &mut Observed, happening: &Happening, now: Timestamp) {
    match happening {
        Happening::BalancerReady => {
            if let Some(balancer) = world.cloud.known_mut().and_then(|c| c.load_balancer.as_mut()) {
                balancer.ready = true;
            }
        }
        Happening::Boots(name) => boot(world, name),
        Happening::SpeaksAgain(name) => speak_again(world, name),
        Happening::Removed(id) => {
            if let Some(cloud) = world.cloud.known_mut() {
                cloud.instances.retain(|i| i.id != *id);
            }
        }
        Happening::Configured(name) => {
            if let Some(AgentFacts::Heard(state)) = world.agents.get_mut(name) {
                state.applied.clone_from(&state.accepted);
            }
            let kubelet = running(world, name).map(|v| v.node.kubelet);
            for node in world.nodes.known_mut().into_iter().flatten().filter(|n| n.machine.as_ref() == Some(name)) {
                node.kubelet = kubelet;
            }
        }
        Happening::CatchesUp(name) => {
            let members = world.etcd.known_mut().into_iter().flat_map(|e| &mut e.members).filter(|m| m.name == name.as_str());
            members.filter_map(|m| m.status.known_mut()).for_each(|s| s.in_sync = true);
        }
        Happening::Joins(name) => join(world, name, now),
        Happening::Recovers(name) | Happening::NotReady(name) => {
            let ready = matches!(happening, Happening::Recovers(_));
            for node in world.nodes.known_mut().into_iter().flatten().filter(|n| n.machine.as_ref() == Some(name)) {
                node.ready = ready;
                node.since = now;
                node.message = if ready { String::new() } else { "kubelet stopped posting node status".into() };
            }
        }
        Happening::AgentStays(name) => end_of_trial(world, name, None),
        Happening::PodEnds(uid) => {
            for pods in world.nodes.known_mut().into_iter().flatten().filter_map(|n| n.pods.known_mut()) {
                pods.retain(|p| p.pod.uid != *uid);
            }
        }
        Happening::Detaches(from, volume) => {
            let nodes = world.nodes.known_mut().into_iter().flatten().filter(|n| n.name == *from);
            nodes.filter_map(|n| n.volumes.known_mut()).for_each(|volumes| volumes.retain(|v| v != volume));
        }
    }
    follow(world, now);
}

fn boot(world: &mut Observed, name: &MachineName) {
    let Some(cloud) = world.cloud.known_mut() else { return };
    let Some(instance) = cloud.instances.iter_mut().find(|i| i.machine == *name && i.state == InstanceState::Pending) else { return };
    instance.state = InstanceState::Running;
    // What a late call made beside the recorded one has an agent that nobody asks.
    if works(world, name) {
        agent_boots(world, name);
        speak_again(world, name);
    }
}

/// Units start with the machine, whose disk is what it was; and so is what its agent knows.
fn speak_again(world: &mut Observed, name: &MachineName) {
    let claimed = record(world, name).is_some_and(|m| m.claimed);
    let last = match world.agents.remove(name) {
        Some(AgentFacts::Heard(state) | AgentFacts::Silent { last: Some(state), .. }) => state,
        Some(AgentFacts::Silent { last: None, .. } | AgentFacts::Answering) | None => AgentState::default(),
    };
    world.agents.insert(name.clone(), if claimed { AgentFacts::Heard(last) } else { AgentFacts::Answering });
}

fn join(world: &mut Observed, name: &MachineName, now: Timestamp) {
    let worker = record(world, name).is_some_and(|m| !m.is_control_plane());
    let pods = if worker { vec![pod_on(name)] } else { vec![] };
    let kubelet = running(world, name).map(|v| v.node.kubelet);
    let Some(nodes) = world.nodes.known_mut() else { return };
    nodes.push(NodeFacts {
        name: name.to_string(),
        uid: format!("uid-of-node-{name}"),
        machine: Some(name.clone()),
        ready: true,
        since: now,
        message: String::new(),
        unschedulable: false,
        cordoned: None,
        kubelet,
        conditions: vec![],
        labels_ok: false,
        pods: Fact::Known(pods),
        volumes: Fact::Known(vec![]),
    });
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
}

/// An agent falls silent.
pub(crate) fn silence(world: &mut Observed, name: &MachineName, now: Timestamp) {
    let last = match world.agents.remove(name) {
        // What it said of itself holds until it says otherwise; what its probes said does not.
        Some(AgentFacts::Heard(state)) => Some(AgentState { probes: Default::default(), ..state }),
        Some(silent @ AgentFacts::Silent { .. }) => {
            world.agents.insert(name.clone(), silent);
            return;
        }
        Some(AgentFacts::Answering) => None,
        None => return,
    };
    world.agents.insert(name.clone(), AgentFacts::Silent { since: now, error: "no answer".into(), last });
}

/// What follows at once: what would be rendered, which agents can be asked at all, and how etcd and the API servers are.
pub fn follow(world: &mut Observed, now: Timestamp) {
    render(world);
    let Fact::Known(machines) = &world.machines else { return };
    let Fact::Known(cloud) = &world.cloud else { return };
    world.agents.retain(|name, _| machines.iter().any(|m| m.name == *name) || cloud.instances.iter().any(|i| i.machine == *name));
    let silent: Vec<MachineName> = world.agents.keys().filter(|n| !works(world, n)).cloned().collect();
    silent.iter().for_each(|name| silence(world, name, now));
    etcd_follows(world, now);
}
