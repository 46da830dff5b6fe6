//! What is looked at once more, right before an effect that would do harm if the plan was made from an older picture. `slipway_plan::Action` says which
//! effect needs which; exploration of the planner found why.

use super::{EffectError, Scene};
use crate::api::{DEADLINE, call};
use crate::clock;
use crate::context::{Context, LABEL_CLUSTER};
use crate::observe;
use crate::records;
use crate::workload::{self, NodeFacts as Seen, View};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use slipway_agent_api::AGENT_PORT;
use slipway_cloud_api::InstanceState;
use slipway_crds::{Cluster, Machine, NodePool};
use slipway_model::{DeletionPolicy, MachineName, MachineVersions, PoolName};
use slipway_plan::{
    ClusterFacts, EtcdFacts, Fact, MachineRecord, NodeFacts, Running, is_no_member, may_be_deleted, skew_allows, skew_lets_follow,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

fn refuse<T>(why: impl Into<String>) -> Result<T, EffectError> {
    Err(EffectError::Precondition(why.into()))
}

/// The Cluster as it is now, with its UID.
pub async fn cluster(context: &Context, scene: &Scene) -> Result<ClusterFacts, EffectError> {
    let name = &scene.cluster.name;
    let api: Api<Cluster> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let found = call(api.get_opt(name)).await.map_err(EffectError::api(format!("read Cluster {name}")))?;
    match found.filter(|c| c.uid().as_deref() == Some(&scene.key.uid)) {
        Some(found) => Ok(records::cluster(&found)),
        None => refuse(format!("Cluster {name} is gone")),
    }
}

/// The Cluster lives: nothing may be made for it otherwise.
pub async fn live_cluster(context: &Context, scene: &Scene) -> Result<ClusterFacts, EffectError> {
    let found = cluster(context, scene).await?;
    if found.deleting.is_some() { refuse(format!("Cluster {} is being deleted", scene.cluster.name)) } else { Ok(found) }
}

/// A Machine as it is now.
pub async fn machine(context: &Context, scene: &Scene, name: &MachineName) -> Result<Option<MachineRecord>, EffectError> {
    let api: Api<Machine> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let found = call(api.get_opt(name.as_str())).await.map_err(EffectError::api(format!("read Machine {name}")))?;
    found.map(|m| records::machine(&m).map_err(EffectError::own)).transpose()
}

/// All Machines of the cluster as they are now.
pub async fn machines(context: &Context, scene: &Scene) -> Result<Vec<MachineRecord>, EffectError> {
    let api: Api<Machine> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_CLUSTER}={}", scene.cluster.name));
    let found = call(api.list(&ours)).await.map_err(EffectError::api("list the Machines"))?;
    found.items.iter().map(|m| records::machine(m).map_err(EffectError::own)).collect()
}

/// etcd's members as they are now; `Unknown` where no quorum answers.
async fn etcd(scene: &Scene) -> Fact<EtcdFacts> {
    let look = match scene.etcd() {
        Ok(door) => door.look().await.map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    look.map_or_else(|why| Fact::unknown(why, clock::now()), |look| Fact::Known(look.facts))
}

/// What every machine may be running.
fn running(scene: &Scene, machines: &[MachineRecord]) -> Vec<Running> {
    machines.iter().map(|m| Running::of(m, scene.is_settled(m))).collect()
}

/// A machine may be told these versions: nothing that must not meet would, and of the control plane no other one is half changed.
pub fn versions_may_change(scene: &Scene, machines: &[MachineRecord], name: &MachineName, to: MachineVersions) -> Result<(), EffectError> {
    skew_allows(&running(scene, machines), name, to).map_err(|violation| EffectError::Precondition(violation.to_string()))?;
    let is_control_plane = |m: &&MachineRecord| m.is_control_plane() && m.deleting.is_none();
    if !machines.iter().filter(is_control_plane).any(|m| m.name == *name) {
        return Ok(());
    }
    let half_changed = |m: &&MachineRecord| m.name != *name && m.changed.is_some() && !scene.is_settled(m);
    match machines.iter().filter(is_control_plane).find(half_changed) {
        Some(other) => refuse(format!("{} is half changed", other.name)),
        None => Ok(()),
    }
}

/// A machine may begin to run what it was told: the call that told it may have come through late. One that was never told anything else is not asked about
/// unless it runs nothing yet.
pub async fn may_follow(context: &Context, scene: &Scene, name: &MachineName, begun: bool) -> Result<(), EffectError> {
    let machines = machines(context, scene).await?;
    skew_lets_follow(&running(scene, &machines), name, begun).map_err(|violation| EffectError::Precondition(violation.to_string()))
}

/// A control plane may be given its first configuration: nothing is founded yet, or it is recorded how it joins, and its member waits for it.
pub async fn first_plan_may_come(context: &Context, scene: &Scene, name: &MachineName, uid: &str) -> Result<(), EffectError> {
    let (cluster, record) = tokio::try_join!(cluster(context, scene), machine(context, scene, name))?;
    if !cluster.bootstrapped {
        return Ok(());
    }
    let Some(record) = record.filter(|r| r.uid == uid && r.deleting.is_none()) else {
        return refuse(format!("{name} is not the machine {uid} any more, or is being deleted"));
    };
    let Some(join) = record.join else { return refuse(format!("the control plane is founded: {name} comes too late")) };
    let look = scene.etcd()?.look().await?;
    match look.facts.members.iter().find(|m| m.id == join.member) {
        Some(member) if member.learner && member.name.is_empty() => Ok(()),
        Some(member) => refuse(format!("etcd member {} of {name} has started before: its data are lost", member.id)),
        None => refuse(format!("etcd has no member {} for {name} any more", join.member)),
    }
}

/// The key that asks for a certificate is the one that was pinned when the machine was claimed.
pub async fn key_is_pinned(context: &Context, scene: &Scene, name: &MachineName, uid: &str, key: &str) -> Result<(), EffectError> {
    let api: Api<Machine> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let found = call(api.get_opt(name.as_str())).await.map_err(EffectError::api(format!("read Machine {name}")))?;
    let Some(machine) = found.filter(|m| m.uid().as_deref() == Some(uid) && m.metadata.deletion_timestamp.is_none()) else {
        return refuse(format!("{name} is not the machine {uid} any more, or is being deleted"));
    };
    match machine.spec.agent_key.as_deref() {
        Some(pinned) if pinned == key => Ok(()),
        Some(_) => Err(EffectError::Own(format!("the agent of {name} asks with another key than it was claimed with: delete the Machine"))),
        None => refuse(format!("the agent of {name} is not recorded as claimed")),
    }
}

/// These founders live and, where they replace others, those are gone.
pub async fn founders_live(context: &Context, scene: &Scene, founders: &[MachineName], before: &[MachineName]) -> Result<(), EffectError> {
    let api: Api<Machine> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_CLUSTER}={}", scene.cluster.name));
    let machines = call(api.list_metadata(&ours)).await.map_err(EffectError::api("list the Machines"))?.items;
    let found = |name: &MachineName| machines.iter().find(|m| m.name_any() == name.as_str());
    if let Some(name) = founders.iter().find(|name| found(name).is_none_or(|m| m.metadata.deletion_timestamp.is_some())) {
        return refuse(format!("founder {name} is gone or going"));
    }
    match before.iter().find(|name| !founders.contains(name) && found(name).is_some()) {
        Some(name) => refuse(format!("{name} of the founders before is still there")),
        None => Ok(()),
    }
}

/// A machine really is dead: its cloud does not show it running, or its agent still does not answer, or it answers and has lost its disk.
pub async fn is_dead(context: &Context, scene: &Scene, name: &MachineName, uid: &str) -> Result<(), EffectError> {
    let (inventory, record) =
        tokio::try_join!(async { context.cloud.inventory(&scene.key).await.map_err(EffectError::from) }, machine(context, scene, name))?;
    let Some(record) = record.filter(|r| r.uid == uid) else { return Ok(()) };
    let recorded = |id: &str| record.instance.as_ref().is_none_or(|at| at.id == id);
    let runs = inventory.instances.iter().any(|i| i.machine_uid == uid && recorded(&i.id) && i.state == InstanceState::Running);
    if !runs || !answers(context, scene, &record).await {
        return Ok(());
    }
    let is_control_plane = record.is_control_plane() && cluster(context, scene).await?.bootstrapped;
    if is_control_plane && knows_no_plan(scene, &record).await? && has_started(context, scene, &record).await? {
        return Ok(());
    }
    refuse(format!("{name} is back"))
}

/// Whether the agent, asked now, has no configuration.
async fn knows_no_plan(scene: &Scene, record: &MachineRecord) -> Result<bool, EffectError> {
    let Some(agent) = scene.connections.get(&record.uid) else { return Ok(false) };
    let state = agent.watch().await?.next().await.transpose()?;
    Ok(state.is_some_and(|s| s.accepted_digest.is_empty()))
}

/// Whether a machine's member of etcd once started.
async fn has_started(context: &Context, scene: &Scene, record: &MachineRecord) -> Result<bool, EffectError> {
    if cluster(context, scene).await?.founders.contains(&record.name) {
        return Ok(true);
    }
    Ok(etcd(scene).await.known().is_some_and(|e| e.members.iter().any(|m| m.name == record.name.as_str())))
}

/// A recorded machine's instance may go: its cluster does, or the machine does and is drained, or its drain has lasted long enough, or it is dead.
pub async fn instance_may_go(context: &Context, scene: &Scene, name: &MachineName) -> Result<(), EffectError> {
    let (cluster, record) = tokio::try_join!(cluster(context, scene), machine(context, scene, name))?;
    if cluster.deleting.is_some() {
        return Ok(());
    }
    let Some(record) = record else { return refuse(format!("{name} has no record any more")) };
    let pools: Api<NodePool> = Api::namespaced(context.client.clone(), &scene.cluster.namespace);
    let pool = records::pool_object(&scene.cluster.name, &record.pool);
    let recorded = call(pools.get_opt(&pool)).await.map_err(EffectError::api(format!("read NodePool {pool}")))?;
    let timeout = recorded.and_then(|p| p.spec.drain_timeout_seconds);
    let node = if cluster.bootstrapped { node(scene, name).await } else { None };
    let etcd = if cluster.bootstrapped && record.is_control_plane() {
        etcd(scene).await
    } else {
        Fact::unknown("not asked: it is no member", clock::now())
    };
    let may = |answers| may_be_deleted(&scene.spec, cluster.bootstrapped, &record, timeout, node.as_ref(), answers, &etcd, clock::now());
    // The agent is asked only where it matters.
    if may(true) || (may(false) && !answers(context, scene, &record).await) {
        return Ok(());
    }
    refuse(format!("{name} is not drained yet"))
}

/// A machine's Node, its pods and its volumes, read now. Where the cluster's API does not show it, the Node is taken to be there with pods nobody can count.
async fn node(scene: &Scene, name: &MachineName) -> Option<NodeFacts> {
    let unseen = || NodeFacts {
        name: name.to_string(),
        uid: String::new(),
        machine: Some(name.clone()),
        ready: false,
        since: clock::now(),
        message: String::new(),
        unschedulable: false,
        cordoned: None,
        kubelet: None,
        conditions: vec![],
        labels_ok: true,
        pods: Fact::unknown("the cluster's API does not answer", clock::now()),
        volumes: Fact::unknown("the cluster's API does not answer", clock::now()),
    };
    let Some(door) = &scene.workload else { return Some(unseen()) };
    let nodes: Api<Node> = Api::all(door.client.clone());
    let Ok(list) = call(nodes.list(&ListParams::default())).await else { return Some(unseen()) };
    let mut view = View { nodes: list.items.iter().map(|n| (n.name_any(), Seen::of(n))).collect(), ..View::default() };
    let own = observe::nodes::of_machines(&view, &scene.machines, &BTreeSet::from([name]));
    let mut pods = BTreeMap::new();
    for node in own {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let Ok(list) = call(Api::<Pod>::all(door.client.clone()).list(&on_node)).await else { return Some(unseen()) };
        pods.insert(node, workload::PodCount::of(&list.items));
    }
    let emptied = pods.iter().filter(|(_, count)| count.to_leave.is_empty()).collect();
    let Ok(volumes) = workload::attached(&door.client, &emptied, DEADLINE).await else { return Some(unseen()) };
    (view.volumes, view.pods) = (volumes, pods);
    let facts = observe::nodes::facts(&view, &scene.spec, &scene.machines, clock::now());
    facts.into_iter().find(|n| n.machine.as_ref() == Some(name))
}

async fn answers(context: &Context, scene: &Scene, record: &MachineRecord) -> bool {
    if let Some(agent) = scene.connections.get(&record.uid) {
        return agent.get_info().await.is_ok();
    }
    let (Some(instance), Some(keys)) = (&record.instance, &scene.keys) else { return false };
    let peer = SocketAddr::from((instance.address, AGENT_PORT));
    context.agents.connect(peer, &record.uid, &keys.operator).await.is_ok()
}

/// An instance without a record may go: there really is none, and no member of etcd is on it.
pub async fn stray_may_go(
    context: &Context,
    scene: &Scene,
    name: &MachineName,
    machine_uid: &str,
    instance: &str,
) -> Result<(), EffectError> {
    let (cluster, record) = tokio::try_join!(cluster(context, scene), machine(context, scene, name))?;
    if record.is_some_and(|r| r.uid == machine_uid) {
        return refuse(format!("{name} has a record after all"));
    }
    let first_of_name = format!("{}-{}-", scene.cluster.name, PoolName::control_plane());
    if cluster.deleting.is_some() || !cluster.bootstrapped || !name.as_str().starts_with(&first_of_name) {
        return Ok(());
    }
    let inventory = context.cloud.inventory(&scene.key).await?;
    let address = inventory.instances.iter().find(|i| i.id == instance).map(|i| i.address);
    let look = scene.etcd()?.look().await?;
    match look.facts.members.iter().find(|m| m.name == name.as_str() || Some(m.peer) == address) {
        Some(member) => refuse(format!("etcd member {} ({}) is on it, or was: it has to leave etcd first", member.id, member.name)),
        None => Ok(()),
    }
}

/// A Machine record may go: its cluster does; or the machine does, nothing of etcd is on it, and the cloud has nothing of it.
pub async fn record_may_go(context: &Context, scene: &Scene, name: &MachineName, uid: &str, orphan: bool) -> Result<(), EffectError> {
    let (cluster, record) = tokio::try_join!(cluster(context, scene), machine(context, scene, name))?;
    let Some(record) = record.filter(|r| r.uid == uid) else { return Ok(()) };
    if cluster.deleting.is_none() {
        if record.deleting.is_none() {
            return refuse(format!("{name} is not to go"));
        }
        if cluster.bootstrapped && record.is_control_plane() && !is_no_member(&record, &etcd(scene).await) {
            return refuse(format!("{name} is a member of etcd, or it cannot be seen whether it is"));
        }
    }
    if !orphan && context.cloud.inventory(&scene.key).await?.instances.iter().any(|i| i.machine_uid == uid) {
        return refuse(format!("{name} still has an instance"));
    }
    Ok(())
}

/// Nothing is left of the cluster, read now; of an orphan, none of its records.
pub async fn nothing_left(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    let orphan = scene.spec.deletion_policy == DeletionPolicy::Orphan;
    if !orphan {
        let inventory = context.cloud.inventory(&scene.key).await?;
        if inventory.network.is_some() || inventory.load_balancer.is_some() || !inventory.instances.is_empty() {
            return refuse(format!("the cloud still has something of {}", scene.cluster.name));
        }
    }
    let namespace = &scene.cluster.namespace;
    let ours = ListParams::default().labels(&format!("{LABEL_CLUSTER}={}", scene.cluster.name));
    let machines: Api<Machine> = Api::namespaced(context.client.clone(), namespace);
    let pools: Api<NodePool> = Api::namespaced(context.client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let (machines, pools, secrets) =
        tokio::try_join!(call(machines.list_metadata(&ours)), call(pools.list_metadata(&ours)), call(secrets.list_metadata(&ours)))
            .map_err(EffectError::api("list what is left"))?;
    let secrets = if orphan { 0 } else { secrets.items.len() };
    match (machines.items.len(), pools.items.len(), secrets) {
        (0, 0, 0) => Ok(()),
        (m, p, s) => refuse(format!("{m} Machines, {p} NodePools and {s} Secrets are left")),
    }
}
