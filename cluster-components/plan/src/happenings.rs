//! What the world does by itself: machines boot, agents configure, Nodes join, pods end, and what follows at once from all that.

use crate::simulate::{api_answers, record};
use crate::{AgentFacts, AgentState, Fact, InstanceState, NodeFacts, Observed, PROBE_API_SERVER, PROBE_ETCD, PodFacts, PodKey, ProbeFacts};
use jiff::Timestamp;
use slipway_model::{MachineName, PlanDigest};

/// A step of the world's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// The load balancer forwards.
    BalancerReady,
    /// An instance boots and its agent answers.
    Boots(MachineName),
    /// An instance that was being deleted is gone. By its id.
    Removed(String),
    /// An agent has made its plan real.
    Configured(MachineName),
    /// A kubelet registers its Node, which becomes Ready.
    Joins(MachineName),
    /// A Node is Ready again.
    Recovers(MachineName),
    /// The API notices that a kubelet is silent.
    NotReady(MachineName),
    /// A pod that was evicted ends. By its uid.
    PodEnds(String),
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
    let runs = |name: &MachineName| cloud.instances.iter().any(|i| i.machine == *name && i.state == InstanceState::Running);
    for instance in &cloud.instances {
        match instance.state {
            InstanceState::Pending => next.push(Happening::Boots(instance.machine.clone())),
            InstanceState::Deleting => next.push(Happening::Removed(instance.id.clone())),
            InstanceState::Running | InstanceState::Stopped => {}
        }
    }
    let nodes = world.nodes.known().map_or(&[][..], Vec::as_slice);
    for (name, agent) in &world.agents {
        let Some(state) = agent.heard() else { continue };
        if state.applied != state.accepted {
            next.push(Happening::Configured(name.clone()));
        }
        let control_plane = record(world, name).is_some_and(crate::MachineRecord::is_control_plane);
        let reaches = api && (control_plane || balancer.is_some_and(|b| b.ready));
        let joined = nodes.iter().any(|n| n.machine.as_ref() == Some(name));
        if reaches && state.applied.is_some() && !joined && record(world, name).is_some() {
            next.push(Happening::Joins(name.clone()));
        }
    }
    for node in nodes {
        let Some(name) = &node.machine else { continue };
        match (api, node.ready, runs(name)) {
            (true, true, false) => next.push(Happening::NotReady(name.clone())),
            (true, false, true) => next.push(Happening::Recovers(name.clone())),
            _ => {}
        }
        let ending = node.pods.known().into_iter().flatten().filter(|p| p.terminating && runs(name));
        next.extend(ending.map(|p| Happening::PodEnds(p.pod.uid.clone())));
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
        Happening::Removed(id) => {
            if let Some(cloud) = world.cloud.known_mut() {
                cloud.instances.retain(|i| i.id != *id);
            }
        }
        Happening::Configured(name) => {
            if let Some(AgentFacts::Heard(state)) = world.agents.get_mut(name) {
                state.applied.clone_from(&state.accepted);
            }
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
        Happening::PodEnds(uid) => {
            for pods in world.nodes.known_mut().into_iter().flatten().filter_map(|n| n.pods.known_mut()) {
                pods.retain(|p| p.pod.uid != *uid);
            }
        }
    }
    follow(world, now);
}

fn boot(world: &mut Observed, name: &MachineName) {
    let Some(cloud) = world.cloud.known_mut() else { return };
    let Some(instance) = cloud.instances.iter_mut().find(|i| i.machine == *name && i.state == InstanceState::Pending) else { return };
    instance.state = InstanceState::Running;
    let claimed = record(world, name).is_some_and(|m| m.claimed);
    let last = match world.agents.remove(name) {
        Some(AgentFacts::Heard(state) | AgentFacts::Silent { last: Some(state), .. }) => state,
        Some(AgentFacts::Silent { last: None, .. } | AgentFacts::Answering) | None => AgentState::default(),
    };
    // Units start with the machine, whose disk is what it was.
    world.agents.insert(name.clone(), if claimed { AgentFacts::Heard(last) } else { AgentFacts::Answering });
}

fn join(world: &mut Observed, name: &MachineName, now: Timestamp) {
    let worker = record(world, name).is_some_and(|m| !m.is_control_plane());
    let pod = PodKey { namespace: "default".into(), name: format!("app-on-{name}"), uid: format!("uid-of-pod-on-{name}") };
    let pods = if worker { vec![PodFacts { pod, terminating: false }] } else { vec![] };
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
        kubelet: None,
        conditions: vec![],
        labels_ok: false,
        pods: Fact::Known(pods),
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

/// What follows at once: what would be rendered, which agents can be asked at all, and whether etcd has its quorum and API servers answer.
pub fn follow(world: &mut Observed, now: Timestamp) {
    render(world);
    let Fact::Known(machines) = &world.machines else { return };
    let Fact::Known(cloud) = &world.cloud else { return };
    world.agents.retain(|name, _| machines.iter().any(|m| m.name == *name) || cloud.instances.iter().any(|i| i.machine == *name));
    let running = |name: &MachineName| cloud.instances.iter().any(|i| i.machine == *name && i.state == InstanceState::Running);
    let silent: Vec<MachineName> = world.agents.keys().filter(|n| !running(n)).cloned().collect();
    silent.iter().for_each(|name| silence(world, name, now));

    let founders = world.cluster.founders.clone();
    let serves = |state: &AgentState| state.accepted.is_some() && state.applied == state.accepted;
    let serving = founders.iter().filter(|f| world.agents.get(f).and_then(AgentFacts::heard).is_some_and(serves)).count();
    let quorum = serving > founders.len() / 2;
    for (name, agent) in &mut world.agents {
        let AgentFacts::Heard(state) = agent else { continue };
        if !founders.contains(name) || state.accepted.is_none() {
            continue;
        }
        let healthy = quorum && serves(state);
        for probe in [PROBE_ETCD, PROBE_API_SERVER] {
            if state.probes.get(probe).is_none_or(|p| p.healthy != healthy) {
                let message = if healthy { String::new() } else { "connection refused".to_owned() };
                state.probes.insert(probe.into(), ProbeFacts { healthy, message, since: now });
            }
        }
    }
}

/// Stands for rendering: a machine has a digest as soon as all that it is made of is known.
fn render(world: &mut Observed) {
    let (Fact::Known(machines), Fact::Known(secrets)) = (&world.machines, &world.secrets) else { return };
    world.wanted.retain(|name, _| machines.iter().any(|m| m.name == *name));
    let addressed = |name: &MachineName| machines.iter().any(|m| m.name == *name && m.instance.is_some());
    let founded = !world.cluster.founders.is_empty() && world.cluster.founders.iter().all(addressed);
    for machine in machines {
        let made_of = secrets.pki && secrets.of(&machine.name).certificates && world.cluster.endpoint.is_some();
        let is_founder = world.cluster.founders.contains(&machine.name);
        if made_of && (!machine.is_control_plane() || (founded && is_founder)) {
            world.wanted.entry(machine.name.clone()).or_insert_with(|| PlanDigest(format!("configuration of {}", machine.name)));
        }
    }
}
