//! What an action does, on a model of the world: an [`Observed`] in which every part is known, called the *world* here.
//!
//! [`seen`] is what an operator would see of a world; [`simulate`] carries out an action, with the checks that the executor makes at the target;
//! what the world does by itself is in `happenings`. [`forecast`](crate::forecast) and the model checker are made of these.

use crate::happenings::silence;
use crate::{
    Action, AgentFacts, AgentState, CloudFacts, ClusterFacts, Endpoint, EtcdFacts, Fact, InstanceFacts, InstanceState, LoadBalancerFacts,
    MachineRecord, MachineSecrets, Observed, PROBE_API_SERVER, PoolRecord, PreflightFacts, Removal, SecretFacts, may_be_deleted,
};
use jiff::Timestamp;
use slipway_model::{ClusterSpec, DeletionPolicy, MachineName, PlanDigest};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Why an action had no effect: a precondition did not hold at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("refused: {0}")]
pub struct Refused(pub &'static str);

impl Observed {
    /// A world in which there is nothing yet but the Cluster object.
    #[must_use]
    pub fn nothing(uid: impl Into<String>, created: Timestamp) -> Self {
        Self {
            cluster: ClusterFacts {
                uid: uid.into(),
                created,
                deleting: None,
                finalizer: false,
                endpoint: None,
                founders: vec![],
                bootstrapped: false,
                ordinals: BTreeMap::new(),
                upgrade: None,
            },
            secrets: Fact::Known(SecretFacts::default()),
            pools: Fact::Known(vec![]),
            machines: Fact::Known(vec![]),
            cloud: Fact::Known(CloudFacts::default()),
            etcd: Fact::Known(EtcdFacts::default()),
            snapshots: Fact::Known(vec![]),
            preflight: Fact::Known(PreflightFacts::default()),
            agents: BTreeMap::new(),
            wanted: BTreeMap::new(),
            nodes: Fact::Known(vec![]),
            addons: Fact::Known(None),
            wanted_addons: "addons".into(),
            failures: BTreeMap::new(),
        }
    }

    /// Whether the Cluster object is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.cluster.deleting.is_some() && !self.cluster.finalizer
    }
}

/// Whether an API server answers.
pub(crate) fn api_answers(world: &Observed) -> bool {
    world.agents.values().filter_map(AgentFacts::heard).any(|a| a.healthy(PROBE_API_SERVER))
}

/// What an operator sees of a world: Nodes and addons only through an API that answers, and pods only where it looks.
#[must_use]
pub fn seen(world: &Observed) -> Observed {
    let mut view = world.clone();
    if !api_answers(world) {
        view.nodes = Fact::unknown("connection refused", world.cluster.created);
        view.addons = Fact::unknown("connection refused", world.cluster.created);
        return view;
    }
    let deleting = |name: &MachineName| record(world, name).is_some_and(|m| m.deleting.is_some());
    for node in view.nodes.known_mut().into_iter().flatten() {
        if !node.machine.as_ref().is_some_and(deleting) {
            node.pods = Fact::unknown("not asked for", world.cluster.created);
        }
    }
    view
}

pub(crate) fn record<'w>(world: &'w Observed, name: &MachineName) -> Option<&'w MachineRecord> {
    world.machines.known()?.iter().find(|m| m.name == *name)
}

fn record_mut<'w>(world: &'w mut Observed, name: &MachineName, uid: &str) -> Result<&'w mut MachineRecord, Refused> {
    let machines = world.machines.known_mut().ok_or(Refused("the Machine objects are not known"))?;
    machines.iter_mut().find(|m| m.name == *name && m.uid == uid).ok_or(Refused("no such Machine with this uid"))
}

fn cloud_mut(world: &mut Observed) -> Result<&mut CloudFacts, Refused> {
    world.cloud.known_mut().ok_or(Refused("the inventory is not known"))
}

fn record_count(world: &Observed) -> Option<usize> {
    Some(world.machines.known()?.len() + world.pools.known()?.len())
}

fn secrets_of<'w>(world: &'w mut Observed, machine: &MachineName) -> Result<&'w mut MachineSecrets, Refused> {
    let secrets = world.secrets.known_mut().ok_or(Refused("the Secrets are not known"))?;
    Ok(secrets.machines.entry(machine.clone()).or_default())
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused(otherwise)) }
}

/// Carries an action out. An error means that the world is as it was.
pub fn simulate(spec: &ClusterSpec, world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    check(!world.is_over(), "the Cluster is gone")?;
    let living = world.cluster.deleting.is_none();
    match action {
        Action::AddFinalizer => {
            check(living, "the Cluster is being deleted")?;
            world.cluster.finalizer = true;
        }
        Action::CreatePki => world.secrets.known_mut().ok_or(Refused("the Secrets are not known"))?.pki = true,
        Action::EnsureNetwork => {
            check(living, "the Cluster is being deleted")?;
            cloud_mut(world)?.network = true;
        }
        Action::EnsureLoadBalancer { port } => {
            check(living, "the Cluster is being deleted")?;
            let cloud = cloud_mut(world)?;
            check(cloud.network, "there is no network")?;
            let endpoint = Endpoint { host: "198.18.0.2".into(), port: *port };
            cloud.load_balancer.get_or_insert(LoadBalancerFacts { endpoint, targets: vec![], ready: false, trouble: None });
        }
        Action::RecordEndpoint { endpoint } => {
            world.cluster.endpoint.get_or_insert_with(|| endpoint.clone());
        }
        Action::SetTargets { instances } => {
            let balancer = cloud_mut(world)?.load_balancer.as_mut().ok_or(Refused("there is no load balancer"))?;
            balancer.targets.clone_from(instances);
        }
        Action::CreatePool { .. } | Action::SetPoolReplicas { .. } | Action::RemovePool { .. } => pool(world, action)?,
        Action::SetOrdinals { pool, from, to } => {
            let book = world.cluster.ordinals.entry(pool.clone()).or_default();
            check(book == from, "somebody else wrote first")?;
            *book = *to;
        }
        Action::RecordFounders { from, founders } => {
            check(world.cluster.founders == *from && !world.cluster.bootstrapped, "somebody else wrote first")?;
            check(founders.iter().all(|f| record(world, f).is_some_and(|m| m.deleting.is_none())), "a founder is not there")?;
            check(from.iter().all(|f| record(world, f).is_none()), "a former founder is still there")?;
            world.cluster.founders.clone_from(founders);
        }
        Action::RecordBootstrapped { founders } => {
            check(world.cluster.founders == *founders, "other founders")?;
            check(founders.iter().all(|f| record(world, f).is_some_and(|m| m.deleting.is_none())), "a founder is not there")?;
            world.cluster.bootstrapped = true;
        }
        Action::WriteKubeconfig => world.secrets.known_mut().ok_or(Refused("the Secrets are not known"))?.kubeconfig = true,
        Action::ApplyAddons { wanted } => {
            check(api_answers(world), "the API does not answer")?;
            world.addons = Fact::Known(Some(wanted.clone()));
        }
        Action::LabelNode { .. } | Action::Cordon { .. } | Action::Uncordon { .. } | Action::Evict { .. } | Action::DeleteNode { .. } => {
            node(world, action)?
        }
        Action::DeleteInstance { .. }
        | Action::DeleteStrayInstance { .. }
        | Action::StartInstance { .. }
        | Action::CreateInstance { .. } => {
            instance(spec, world, action, now)?;
        }
        Action::SetVersions { .. }
        | Action::RecordUpgrade { .. }
        | Action::TakeSnapshot { .. }
        | Action::AddMember { .. }
        | Action::PromoteMember { .. }
        | Action::RemoveMember { .. }
        | Action::MoveLeader { .. }
        | Action::Retire { .. } => check(false, "not modelled yet")?,
        Action::DeleteLoadBalancer => cloud_mut(world)?.load_balancer = None,
        Action::DeleteNetwork => {
            let cloud = cloud_mut(world)?;
            check(cloud.instances.is_empty() && cloud.load_balancer.is_none(), "something is in the network")?;
            cloud.network = false;
        }
        Action::DeleteSecrets => world.secrets = Fact::Known(SecretFacts::default()),
        Action::RemoveFinalizer => {
            let no_records = record_count(world) == Some(0);
            let empty = world.cloud.known().is_some_and(CloudFacts::is_empty) && world.secrets.known().is_some_and(SecretFacts::is_empty);
            check(!living && no_records && (empty || spec.deletion_policy == DeletionPolicy::Orphan), "something is left")?;
            world.cluster.finalizer = false;
        }
        Action::CreateMachine { .. }
        | Action::DeleteMachine { .. }
        | Action::RemoveMachine { .. }
        | Action::RecordInstance { .. }
        | Action::IssueBootstrap { .. }
        | Action::IssueCertificates { .. }
        | Action::Claim { .. }
        | Action::DropBootstrap { .. }
        | Action::ApplyPlan { .. } => machine(world, action, now)?,
    }
    crate::happenings::follow(world, now);
    Ok(())
}

fn pool(world: &mut Observed, action: &Action) -> Result<(), Refused> {
    let pools = world.pools.known_mut().ok_or(Refused("the NodePool objects are not known"))?;
    match action {
        Action::CreatePool { pool, replicas } if pools.iter().all(|p| p.name != *pool) => {
            let uid = format!("uid-of-pool-{pool}");
            pools.push(PoolRecord { name: pool.clone(), uid, replicas: *replicas, deleting: false, drain_timeout_seconds: None });
            pools.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Action::SetPoolReplicas { pool, uid, from, to } => {
            let record = pools
                .iter_mut()
                .find(|p| p.name == *pool && p.uid == *uid && p.replicas == *from)
                .ok_or(Refused("somebody else wrote first"))?;
            record.replicas = *to;
        }
        Action::RemovePool { uid, .. } => pools.retain(|p| p.uid != *uid),
        _ => {}
    }
    Ok(())
}

fn node(world: &mut Observed, action: &Action) -> Result<(), Refused> {
    check(api_answers(world), "the API does not answer")?;
    let nodes = world.nodes.known_mut().ok_or(Refused("the Nodes are not known"))?;
    match action {
        Action::LabelNode { uid, .. } => nodes.iter_mut().filter(|n| n.uid == *uid).for_each(|n| n.labels_ok = true),
        Action::Cordon { uid, .. } => nodes.iter_mut().filter(|n| n.uid == *uid).for_each(|n| n.unschedulable = true),
        Action::DeleteNode { uid, .. } => nodes.retain(|n| n.uid != *uid),
        Action::Evict { pod, .. } => {
            for known in nodes.iter_mut().filter_map(|n| n.pods.known_mut()).flatten().filter(|p| p.pod == *pod) {
                known.terminating = true;
            }
        }
        _ => {}
    }
    Ok(())
}

fn instance(spec: &ClusterSpec, world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    let clear = world.cluster.deleting.is_none();
    match action {
        Action::CreateInstance { machine, uid } => {
            let record = record(world, machine).ok_or(Refused("no such Machine"))?;
            check(clear && record.uid == *uid && record.deleting.is_none() && record.instance.is_none(), "the Machine is not to be made")?;
            create(world, machine, uid)
        }
        Action::StartInstance { instance, .. } => {
            if let Some(i) = cloud_mut(world)?.instances.iter_mut().find(|i| i.id == *instance && i.state == InstanceState::Stopped) {
                i.state = InstanceState::Pending;
            }
            Ok(())
        }
        Action::DeleteInstance { machine, instance } => {
            let leaving = || {
                let record = record(world, machine)?;
                let node = world.nodes.known()?.iter().find(|n| n.machine.as_ref() == Some(machine));
                let timeout = world.pools.known()?.iter().find(|p| p.name == record.pool).and_then(|p| p.drain_timeout_seconds);
                let answers = world.agents.get(machine).is_some_and(|a| a.heard().is_some());
                Some(may_be_deleted(spec, world.cluster.bootstrapped, record, timeout, node, answers, &world.etcd, now))
            };
            check(!clear || leaving() == Some(true), "the Machine is not being taken away, or still in use")?;
            remove(world, machine, instance, now)
        }
        Action::DeleteStrayInstance { machine, machine_uid, instance } => {
            check(record(world, machine).is_none_or(|m| m.uid != *machine_uid), "there is a record")?;
            let founder = world.cluster.bootstrapped && world.cluster.founders.contains(machine);
            check(!founder, "it is a founder")?;
            remove(world, machine, instance, now)
        }
        _ => Ok(()),
    }
}

/// The cloud's side of a create call, which comes through even where nobody wants it any more: it is keyed by the uid and needs the network.
pub(crate) fn create(world: &mut Observed, machine: &MachineName, uid: &str) -> Result<(), Refused> {
    let cloud = cloud_mut(world)?;
    check(cloud.network, "there is no network")?;
    if cloud.of(uid).is_none() {
        let host = (10..=u8::MAX).find(|n| cloud.instances.iter().all(|i| i.address.octets()[3] != *n)).unwrap_or(u8::MAX);
        cloud.instances.push(InstanceFacts {
            id: format!("i-{uid}"),
            machine_uid: uid.to_owned(),
            machine: machine.clone(),
            state: InstanceState::Pending,
            address: Ipv4Addr::new(198, 18, 0, host),
            zone: None,
            trouble: None,
        });
        cloud.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(())
}

/// A create call that nobody waits for any more comes through: only the cloud checks it. For exploration.
#[doc(hidden)]
pub fn cloud_creates(world: &mut Observed, machine: &MachineName, uid: &str) {
    // Without a network the cloud refuses, and nobody hears of it.
    let _ = create(world, machine, uid);
}

fn remove(world: &mut Observed, machine: &MachineName, instance: &str, now: Timestamp) -> Result<(), Refused> {
    if let Some(i) = cloud_mut(world)?.instances.iter_mut().find(|i| i.id == instance) {
        i.state = InstanceState::Deleting;
        silence(world, machine, now);
    }
    Ok(())
}

fn machine(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    let cluster = &world.cluster;
    match action {
        Action::CreateMachine { machine, pool, ordinal, versions, revision } => {
            let book = cluster.ordinals.get(pool).copied().unwrap_or_default();
            check(cluster.deleting.is_none(), "the Cluster is being deleted")?;
            let machines = world.machines.known_mut().ok_or(Refused("the Machine objects are not known"))?;
            if machines.iter().all(|m| m.name != *machine) {
                check((book.settled..book.next).contains(ordinal), "its number is not open")?;
                machines.push(MachineRecord {
                    name: machine.clone(),
                    uid: format!("uid-of-{machine}"),
                    pool: pool.clone(),
                    ordinal: *ordinal,
                    versions: *versions,
                    changed: None,
                    revision: revision.clone(),
                    join: None,
                    retiring: false,
                    kept: false,
                    created: now,
                    deleting: None,
                    instance: None,
                    claimed: false,
                });
                machines.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        Action::DeleteMachine { machine, uid, why } => {
            check(*why != Removal::FoundingFailed || !cluster.bootstrapped, "the founding is over")?;
            let alive = world.agents.get(machine).is_some_and(|a| a.heard().is_some());
            check(*why != Removal::Dead || !alive, "it is alive")?;
            record_mut(world, machine, uid)?.deleting.get_or_insert(now);
        }
        Action::RemoveMachine { machine, uid, keep_secrets } => {
            let (ending, founded) = (cluster.deleting.is_some(), cluster.bootstrapped);
            let kept = |m: &MachineRecord| m.deleting.is_none() || (founded && m.is_control_plane());
            check(ending || !record_mut(world, machine, uid).is_ok_and(|m| kept(m)), "the Machine is not being taken away")?;
            check(*keep_secrets || world.cloud.known().is_some_and(|c| c.of(uid).is_none()), "its instance is there")?;
            if let Some(machines) = world.machines.known_mut() {
                machines.retain(|m| m.uid != *uid);
            }
            if let Some(secrets) = world.secrets.known_mut().filter(|_| !keep_secrets) {
                secrets.machines.remove(machine);
            }
        }
        Action::RecordInstance { machine, uid, instance } => {
            record_mut(world, machine, uid)?.instance.get_or_insert_with(|| instance.clone());
        }
        Action::IssueBootstrap { machine, uid } => {
            record_mut(world, machine, uid)?;
            secrets_of(world, machine)?.bootstrap = true;
        }
        Action::IssueCertificates { machine, uid } => {
            record_mut(world, machine, uid)?;
            secrets_of(world, machine)?.certificates = true;
        }
        Action::DropBootstrap { machine } => secrets_of(world, machine)?.bootstrap = false,
        Action::Claim { machine, uid, .. } => {
            check(matches!(world.agents.get(machine), Some(AgentFacts::Answering)), "the agent does not answer")?;
            record_mut(world, machine, uid)?.claimed = true;
            world.agents.insert(machine.clone(), AgentFacts::Heard(AgentState::default()));
        }
        Action::ApplyPlan { machine, uid, expected, wanted } => {
            let founding = record_mut(world, machine, uid)?.is_control_plane() && expected.is_none();
            check(!founding || !world.cluster.bootstrapped, "the founding is over")?;
            check(world.wanted.get(machine) == Some(wanted), "what is rendered now is something else")?;
            accept(world, machine, expected.as_ref(), wanted)?;
        }
        _ => {}
    }
    Ok(())
}

/// The agent's side of ApplyPlan: compare and swap.
fn accept(world: &mut Observed, machine: &MachineName, expected: Option<&PlanDigest>, wanted: &PlanDigest) -> Result<(), Refused> {
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(machine) else { return Err(Refused("the agent does not answer")) };
    check(state.accepted.as_ref() == expected, "another configuration was accepted meanwhile")?;
    state.accepted = Some(wanted.clone());
    Ok(())
}
