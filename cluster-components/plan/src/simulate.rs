//! What an action does, on a model of the world: an [`Observed`] in which every part is known, called the *world* here.
//!
//! [`seen`] is what an operator would see of a world; [`simulate`] carries out an action, with the checks that the executor makes at the target;
//! what the world does by itself is in `happenings`. [`forecast`](crate::forecast) and the model checker are made of these.
//!
//! ```text
//! simulate ─► cloud     network, load balancer, instances
//!          ─► machines  Machine objects, their Secrets and agents      ─► render  what a machine is told, and what it runs
//!          ─► etcd      members, leadership, snapshots
//!          ─► nodes     Nodes, pods, NodePools
//!          ─► agents    agents' own builds and certificates
//! ```

mod agents;
mod cloud;
mod etcd;
mod machines;
mod nodes;
mod render;

pub(crate) use agents::{boots as agent_boots, end_of_trial};
pub(crate) use cloud::works;
pub(crate) use etcd::{follow as etcd_follows, serves_api};
pub(crate) use nodes::pod_on;
pub(crate) use render::{render, running};

use crate::{Action, CloudFacts, ClusterFacts, EtcdFacts, Fact, MachineRecord, MachineSecrets, Observed, PreflightFacts, SecretFacts};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{ClusterSpec, DeletionPolicy, MachineName};
use std::collections::BTreeMap;

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
            wanted_agent: None,
            agent_certificate_life: SignedDuration::from_hours(24 * 365),
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
    world.agents.keys().any(|name| serves_api(world, name))
}

/// What an operator sees of a world: etcd's members only through a quorum, Nodes and addons only through an API that answers, pods and volumes only where
/// it looks.
#[must_use]
pub fn seen(world: &Observed) -> Observed {
    let mut view = world.clone();
    let since = world.cluster.created;
    if !world.cluster.bootstrapped {
        view.etcd = Fact::unknown("etcd is not founded yet", since);
    } else if !etcd::has_quorum(world) {
        view.etcd = Fact::unknown("no quorum of etcd's members answers", since);
    }
    if !api_answers(world) {
        view.nodes = Fact::unknown("connection refused", since);
        view.addons = Fact::unknown("connection refused", since);
        return view;
    }
    let deleting = |name: &MachineName| record(world, name).is_some_and(|m| m.deleting.is_some());
    for node in view.nodes.known_mut().into_iter().flatten() {
        if !node.machine.as_ref().is_some_and(deleting) && node.cordoned.is_none() {
            node.pods = Fact::unknown("not asked for", since);
        }
        if !node.machine.as_ref().is_some_and(deleting) || node.pods.known().is_none_or(|pods| !pods.is_empty()) {
            node.volumes = Fact::unknown("not asked for", since);
        }
    }
    view
}

/// etcd's members as a linearizable read says now: what an executor asks right before it acts.
fn etcd_now(world: &Observed) -> Fact<EtcdFacts> {
    if etcd::has_quorum(world) { world.etcd.clone() } else { Fact::unknown("no quorum of etcd's members answers", world.cluster.created) }
}

pub(crate) fn record<'w>(world: &'w Observed, name: &MachineName) -> Option<&'w MachineRecord> {
    world.machines.known()?.iter().find(|m| m.name == *name)
}

fn record_mut<'w>(world: &'w mut Observed, name: &MachineName, uid: &str) -> Result<&'w mut MachineRecord, Refused> {
    let machines = world.machines.known_mut().ok_or(Refused("the Machine objects are not known"))?;
    machines.iter_mut().find(|m| m.name == *name && m.uid == uid).ok_or(Refused("no such Machine with this uid"))
}

fn record_count(world: &Observed) -> Option<usize> {
    Some(world.machines.known()?.len() + world.pools.known()?.len())
}

fn secrets_mut(world: &mut Observed) -> Result<&mut SecretFacts, Refused> {
    world.secrets.known_mut().ok_or(Refused("the Secrets are not known"))
}

fn secrets_of<'w>(world: &'w mut Observed, machine: &MachineName) -> Result<&'w mut MachineSecrets, Refused> {
    Ok(secrets_mut(world)?.machines.entry(machine.clone()).or_default())
}

fn check(holds: bool, otherwise: &'static str) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused(otherwise)) }
}

/// Carries an action out. An error means that the world is as it was.
pub fn simulate(spec: &ClusterSpec, world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    check(!world.is_over(), "the Cluster is gone")?;
    let marked = action.marks().then(|| nodes::pending(spec, world));
    match action {
        Action::AddFinalizer
        | Action::RecordEndpoint { .. }
        | Action::SetOrdinals { .. }
        | Action::RecordFounders { .. }
        | Action::RecordBootstrapped { .. }
        | Action::RecordUpgrade { .. }
        | Action::RemoveFinalizer => cluster(spec, world, action)?,
        Action::CreatePki => secrets_mut(world)?.pki = true,
        Action::WriteKubeconfig => secrets_mut(world)?.kubeconfig = true,
        Action::DeleteSecrets => world.secrets = Fact::Known(SecretFacts::default()),
        Action::EnsureNetwork
        | Action::EnsureLoadBalancer { .. }
        | Action::SetTargets { .. }
        | Action::DeleteLoadBalancer
        | Action::DeleteNetwork => cloud::shared(world, action)?,
        Action::CreateInstance { .. }
        | Action::StartInstance { .. }
        | Action::DeleteInstance { .. }
        | Action::DeleteStrayInstance { .. } => cloud::instance(spec, world, action, now)?,
        Action::CreatePool { .. } | Action::SetPoolReplicas { .. } | Action::RemovePool { .. } => nodes::pool(world, action)?,
        Action::LabelNode { .. }
        | Action::Cordon { .. }
        | Action::Uncordon { .. }
        | Action::Evict { .. }
        | Action::DeleteNode { .. }
        | Action::ApplyAddons { .. } => nodes::node(world, action, now)?,
        Action::AddMember { .. }
        | Action::PromoteMember { .. }
        | Action::RemoveMember { .. }
        | Action::MoveLeader { .. }
        | Action::TakeSnapshot { .. } => etcd::change(world, action, now)?,
        Action::CreateMachine { .. }
        | Action::SetVersions { .. }
        | Action::Retire { .. }
        | Action::DeleteMachine { .. }
        | Action::RemoveMachine { .. }
        | Action::RecordInstance { .. }
        | Action::IssueBootstrap { .. }
        | Action::IssueCertificates { .. }
        | Action::DropBootstrap { .. }
        | Action::Claim { .. }
        | Action::ApplyPlan { .. } => machines::machine(world, action, now)?,
        Action::UpdateAgent { .. } | Action::RenewAgentCertificate { .. } => agents::agent(world, action, now)?,
    }
    if let Some(before) = marked {
        nodes::mark(spec, world, &before);
    }
    crate::happenings::follow(world, now);
    Ok(())
}

/// The Cluster object.
fn cluster(spec: &ClusterSpec, world: &mut Observed, action: &Action) -> Result<(), Refused> {
    let living = world.cluster.deleting.is_none();
    let staying = |world: &Observed, name: &MachineName| record(world, name).is_some_and(|m| m.deleting.is_none());
    match action {
        Action::AddFinalizer => {
            check(living, "the Cluster is being deleted")?;
            world.cluster.finalizer = true;
        }
        Action::RecordEndpoint { endpoint } => {
            world.cluster.endpoint.get_or_insert_with(|| endpoint.clone());
        }
        Action::SetOrdinals { pool, from, to } => {
            let book = world.cluster.ordinals.entry(pool.clone()).or_default();
            check(book == from, "somebody else wrote first")?;
            *book = *to;
        }
        Action::RecordFounders { from, founders } => {
            check(world.cluster.founders == *from && !world.cluster.bootstrapped, "somebody else wrote first")?;
            check(founders.iter().all(|f| staying(world, f)), "a founder is not there")?;
            check(from.iter().all(|f| record(world, f).is_none()), "a former founder is still there")?;
            world.cluster.founders.clone_from(founders);
            world.etcd = Fact::Known(EtcdFacts::default());
        }
        Action::RecordBootstrapped { founders } => {
            check(world.cluster.founders == *founders, "other founders")?;
            check(founders.iter().all(|f| staying(world, f)), "a founder is not there")?;
            world.cluster.bootstrapped = true;
        }
        Action::RecordUpgrade { from, to } => {
            check(world.cluster.upgrade == *from, "somebody else wrote first")?;
            world.cluster.upgrade.clone_from(to);
        }
        Action::RemoveFinalizer => {
            let no_records = record_count(world) == Some(0);
            let empty = world.cloud.known().is_some_and(CloudFacts::is_empty) && world.secrets.known().is_some_and(SecretFacts::is_empty);
            check(!living && no_records && (empty || spec.deletion_policy == DeletionPolicy::Orphan), "something is left")?;
            world.cluster.finalizer = false;
        }
        _ => {}
    }
    Ok(())
}

/// A call that was sent long ago, after every check, comes through: only its target checks it once more. For exploration.
///
/// Of [`Action::AddMember`] that is the first half: etcd has the learner, and no Machine says so.
#[doc(hidden)]
pub fn arrives(spec: &ClusterSpec, world: &mut Observed, action: &Action, now: Timestamp) {
    // What its target refuses has no effect, and nobody hears of it.
    let _refused = match action {
        Action::CreateInstance { machine, uid } => cloud::create(world, machine, uid),
        Action::AddMember { machine, .. } => etcd::add(world, machine).map(|_| ()),
        Action::UpdateAgent { machine, from, to, .. } => agents::try_build(world, machine, from, to, now),
        Action::SetVersions { machine, uid, from, to } => machines::write_versions(world, machine, uid, *from, *to, now),
        other => simulate(spec, world, other, now),
    };
    crate::happenings::follow(world, now);
}

/// A build of an agent that was on trial does not stay. For exploration.
#[doc(hidden)]
pub fn falls_back(world: &mut Observed, machine: &MachineName, now: Timestamp) {
    end_of_trial(world, machine, Some(("it was not reached", now)));
}

/// Machines are rendered otherwise from now on, all of them. For exploration.
#[doc(hidden)]
pub fn renders(world: &mut Observed, rendering: Option<&str>) {
    render::all_otherwise(world, rendering);
}

/// What a machine is running, as its agent said last: what it was told, and what it ran before where it is still under way. For the tests' invariants.
#[doc(hidden)]
#[must_use]
pub fn what_runs(world: &Observed, machine: &MachineName) -> Vec<slipway_model::MachineVersions> {
    render::may_run(world, machine)
}
