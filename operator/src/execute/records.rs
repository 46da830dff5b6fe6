//! Effects on Clusters, NodePools and Machines: our own records. All of them compare before they swap.

use super::book::record;
use super::checks::{self, live_cluster};
use super::{EffectError, Scene, secrets};
use crate::api::call;
use crate::context::{Context, FIELD_MANAGER, FINALIZER, LABEL_CLUSTER, LABEL_POOL};
use crate::records;
use crate::report::events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_crds::{Cluster, Instance, Join, Machine, MachineRole, MachineSpec, NodePool, NodePoolSpec};
use slipway_model::{MachineName, MachineVersions, PoolName};
use slipway_plan::{Endpoint, InstanceRef, JoinRecord, Ordinals, Removal};
use std::collections::BTreeMap;
use std::fmt::Debug;

/// How often a compare-and-swap is tried again when somebody else wrote the object, though not what is compared.
pub const TRIES: usize = 8;

pub fn clusters(context: &Context, scene: &Scene) -> Api<Cluster> {
    Api::namespaced(context.client.clone(), &scene.cluster.namespace)
}

fn machines(context: &Context, scene: &Scene) -> Api<Machine> {
    Api::namespaced(context.client.clone(), &scene.cluster.namespace)
}

fn pools(context: &Context, scene: &Scene) -> Api<NodePool> {
    Api::namespaced(context.client.clone(), &scene.cluster.namespace)
}

pub fn manager() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn creator() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn exactly(uid: &str) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None })
}

// --- finalizers ---

/// Puts our finalizer on; there or not, it is afterwards.
pub async fn add_finalizer(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    let (api, name) = (clusters(context, scene), &scene.cluster.name);
    let what = || format!("take charge of Cluster {name}");
    for _ in 0..TRIES {
        let found = call(api.get_metadata(name)).await.map_err(EffectError::api(what()))?;
        if found.metadata.deletion_timestamp.is_some() || found.uid().as_deref() != Some(&scene.key.uid) {
            return Err(EffectError::Precondition(format!("Cluster {name} is being deleted")));
        }
        if found.finalizers().iter().any(|f| f == FINALIZER) {
            return Ok(());
        }
        let finalizers = [found.finalizers(), &[FINALIZER.to_owned()]].concat();
        match set_finalizers(&api, name, &found, &finalizers).await {
            Err(EffectError::Api { source, .. }) if source.is_conflict() => {}
            result => return result,
        }
    }
    Err(EffectError::Precondition(format!("Cluster {name} is being written by others all the time")))
}

/// Takes our finalizer off the Cluster: the last that is done for it.
pub async fn remove_finalizer(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    checks::nothing_left(context, scene).await?;
    let (api, name) = (clusters(context, scene), &scene.cluster.name);
    let found = call(api.get_metadata_opt(name)).await.map_err(EffectError::api(format!("read Cluster {name}")))?;
    match found.filter(|c| c.uid().as_deref() == Some(&scene.key.uid)) {
        Some(found) => drop_finalizer(&api, &found).await,
        None => Ok(()),
    }
}

/// Takes our finalizer off an object whose metadata were just read. Gone is as good.
pub async fn drop_finalizer<K, M>(api: &Api<K>, found: &M) -> Result<(), EffectError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    M: ResourceExt,
{
    let left: Vec<String> = found.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
    if left.len() == found.finalizers().len() {
        return Ok(());
    }
    match set_finalizers(api, &found.name_any(), found, &left).await {
        Err(EffectError::Api { source, .. }) if source.is_not_found() => Ok(()),
        result => result,
    }
}

async fn set_finalizers<K, M>(api: &Api<K>, name: &str, found: &M, finalizers: &[String]) -> Result<(), EffectError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    M: ResourceExt,
{
    // The version is the precondition: a finalizer that another party put on meanwhile must not be lost.
    let patch = json!({"metadata": {"uid": found.uid(), "resourceVersion": found.resource_version(), "finalizers": finalizers}});
    let written = call(api.patch_metadata(name, &manager(), &Patch::Merge(&patch))).await;
    written.map(|_| ()).map_err(EffectError::api(format!("set the finalizers of {} {name}", K::kind(&()))))
}

// --- the Cluster's record ---

pub async fn record_endpoint(context: &Context, scene: &Scene, endpoint: &Endpoint) -> Result<(), EffectError> {
    record(context, scene, |r| match &r.endpoint {
        Some(known) if records::endpoint(known) == *endpoint => Ok(false),
        Some(known) => Err(format!("the endpoint {known} is recorded and never changes")),
        None => {
            r.endpoint = Some(slipway_crds::Endpoint { host: endpoint.host.clone(), port: endpoint.port });
            Ok(true)
        }
    })
    .await
}

pub async fn set_ordinals(context: &Context, scene: &Scene, pool: &PoolName, from: Ordinals, to: Ordinals) -> Result<(), EffectError> {
    record(context, scene, |r| {
        let known = r.ordinals.get(pool.as_str()).copied().unwrap_or_default();
        let known = Ordinals { settled: known.settled, next: known.next };
        if known == to {
            return Ok(false);
        }
        if known != from {
            return Err(format!("the numbers of pool {pool} stand at {known:?}, not {from:?}"));
        }
        r.ordinals.insert(pool.to_string(), slipway_crds::Ordinals { settled: to.settled, next: to.next });
        Ok(true)
    })
    .await
}

pub async fn record_founders(context: &Context, scene: &Scene, from: &[MachineName], founders: &[MachineName]) -> Result<(), EffectError> {
    checks::founders_live(context, scene, founders, from).await?;
    record(context, scene, |r| {
        let known = records::names(&r.founders);
        if known == founders {
            return Ok(false);
        }
        if r.bootstrapped || known != from {
            return Err("the control plane was founded by others".to_owned());
        }
        r.founders = founders.iter().map(ToString::to_string).collect();
        Ok(true)
    })
    .await
}

pub async fn record_bootstrapped(context: &Context, scene: &Scene, founders: &[MachineName]) -> Result<(), EffectError> {
    checks::founders_live(context, scene, founders, &[]).await?;
    record(context, scene, |r| {
        if records::names(&r.founders) != founders {
            return Err("the control plane was founded by others".to_owned());
        }
        Ok(!std::mem::replace(&mut r.bootstrapped, true))
    })
    .await
}

// --- NodePools ---

fn labels(scene: &Scene, pool: &PoolName) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_CLUSTER.to_owned(), scene.cluster.name.clone()), (LABEL_POOL.to_owned(), pool.to_string())])
}

/// The record goes with its Cluster. Its own finalizer, not the owner's deletion, says when.
fn owner(scene: &Scene) -> OwnerReference {
    OwnerReference {
        api_version: Cluster::api_version(&()).into_owned(),
        kind: Cluster::kind(&()).into_owned(),
        name: scene.cluster.name.clone(),
        uid: scene.key.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

pub async fn create_pool(context: &Context, scene: &Scene, pool: &PoolName, replicas: u32) -> Result<(), EffectError> {
    live_cluster(context, scene).await?;
    let name = records::pool_object(&scene.cluster.name, pool);
    let drain = scene.spec.pools.iter().find(|p| p.name == *pool).map(|p| p.drain_timeout_seconds);
    let spec = NodePoolSpec { cluster: scene.cluster.name.clone(), pool: pool.to_string(), replicas, drain_timeout_seconds: drain };
    let mut object = NodePool::new(&name, spec);
    *object.labels_mut() = labels(scene, pool);
    object.finalizers_mut().push(FINALIZER.to_owned());
    object.owner_references_mut().push(owner(scene));
    match call(pools(context, scene).create(&creator(), &object)).await {
        Err(error) if !error.is_already_exists() => Err(EffectError::api(format!("create NodePool {name}"))(error)),
        _ => Ok(()),
    }
}

pub async fn set_pool_replicas(
    context: &Context,
    scene: &Scene,
    pool: &PoolName,
    uid: &str,
    from: u32,
    to: u32,
) -> Result<(), EffectError> {
    let (api, name) = (pools(context, scene), records::pool_object(&scene.cluster.name, pool));
    let what = || format!("set the replicas of NodePool {name}");
    let found = call(api.get(&name)).await.map_err(EffectError::api(what()))?;
    if found.spec.replicas == to {
        return Ok(());
    }
    if found.uid().as_deref() != Some(uid) || found.spec.replicas != from {
        return Err(EffectError::Precondition(format!("NodePool {name} was changed meanwhile")));
    }
    let patch = json!({"metadata": {"uid": uid, "resourceVersion": found.resource_version()}, "spec": {"replicas": to}});
    call(api.patch(&name, &manager(), &Patch::Merge(&patch))).await.map_err(EffectError::api(what()))?;
    if scaled_by_others(&found) {
        events::scale_put_back(context, events::reference(scene, "NodePool", &name, uid), from, to).await;
    }
    Ok(())
}

/// Whether somebody else wrote `spec.replicas` last: then it is put back, and otherwise only follows the Cluster.
fn scaled_by_others(pool: &NodePool) -> bool {
    let replicas = |fields: &Value| fields.pointer("/f:spec/f:replicas").is_some();
    let others = pool.managed_fields().iter().filter(|e| e.manager.as_deref() != Some(FIELD_MANAGER));
    others.filter_map(|e| e.fields_v1.as_ref()).any(|f| replicas(&f.0))
}

pub async fn remove_pool(context: &Context, scene: &Scene, pool: &PoolName, uid: &str) -> Result<(), EffectError> {
    remove(&pools(context, scene), &records::pool_object(&scene.cluster.name, pool), uid).await
}

/// Deletes an object and takes our finalizer off. Gone, or another one by that name, is as good.
async fn remove<K>(api: &Api<K>, name: &str, uid: &str) -> Result<(), EffectError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let what = || format!("remove {} {name}", K::kind(&()));
    match call(api.delete(name, &exactly(uid))).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        Err(error) => return Err(EffectError::api(what())(error)),
    }
    let found = call(api.get_metadata_opt(name)).await.map_err(EffectError::api(what()))?;
    match found.filter(|o| o.uid().as_deref() == Some(uid)) {
        Some(found) => drop_finalizer(api, &found).await,
        None => Ok(()),
    }
}

// --- Machines ---

pub async fn create_machine(
    context: &Context,
    scene: &Scene,
    machine: &MachineName,
    pool: &PoolName,
    ordinal: u32,
    versions: &MachineVersions,
    revision: &str,
) -> Result<(), EffectError> {
    let cluster = live_cluster(context, scene).await?;
    let open = cluster.ordinals.get(pool).is_some_and(|o| (o.settled..o.next).contains(&ordinal));
    if !open {
        return Err(EffectError::Precondition(format!("number {ordinal} of pool {pool} is settled, or was never handed out")));
    }
    checks::versions_may_change(scene, &checks::machines(context, scene).await?, machine, *versions)?;
    let spec = MachineSpec {
        cluster: scene.cluster.name.clone(),
        pool: pool.to_string(),
        role: if pool.is_control_plane() { MachineRole::ControlPlane } else { MachineRole::Worker },
        ordinal,
        versions: crate::records::versions_object(versions),
        changed: None,
        revision: revision.to_owned(),
        join: None,
        retiring: false,
        programs: if pool.is_control_plane() { crate::records::programs_object(&context.artifacts.programs()) } else { vec![] },
        instance: None,
        agent_key: None,
    };
    let mut object = Machine::new(machine.as_str(), spec);
    *object.labels_mut() = labels(scene, pool);
    object.finalizers_mut().push(FINALIZER.to_owned());
    object.owner_references_mut().push(owner(scene));
    match call(machines(context, scene).create(&creator(), &object)).await {
        Err(error) if !error.is_already_exists() => Err(EffectError::api(format!("create Machine {machine}"))(error)),
        _ => Ok(()),
    }
}

/// Compare-and-swap on a Machine's spec, by UID.
pub async fn record_machine(
    context: &Context,
    scene: &Scene,
    name: &MachineName,
    uid: &str,
    change: impl Fn(&mut MachineSpec) -> Result<bool, String>,
) -> Result<(), EffectError> {
    let api = machines(context, scene);
    let what = || format!("write the record of Machine {name}");
    for _ in 0..TRIES {
        let mut found = call(api.get(name.as_str())).await.map_err(EffectError::api(what()))?;
        if found.uid().as_deref() != Some(uid) {
            return Err(EffectError::Precondition(format!("Machine {name} is another one by now")));
        }
        if !change(&mut found.spec).map_err(EffectError::Precondition)? {
            return Ok(());
        }
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": found.resource_version()}, "spec": found.spec});
        match call(api.patch(name.as_str(), &manager(), &Patch::Merge(&patch))).await {
            Err(error) if error.is_conflict() => {}
            result => return result.map(|_| ()).map_err(EffectError::api(what())),
        }
    }
    Err(EffectError::Precondition(format!("Machine {name} is being written by others all the time")))
}

pub async fn record_instance(
    context: &Context,
    scene: &Scene,
    name: &MachineName,
    uid: &str,
    instance: &InstanceRef,
) -> Result<(), EffectError> {
    record_machine(context, scene, name, uid, |spec| match &mut spec.instance {
        Some(known) if known.id == instance.id && known.zone.is_none() && instance.zone.is_some() => {
            known.zone.clone_from(&instance.zone);
            Ok(true)
        }
        Some(known) if known.id == instance.id => Ok(false),
        Some(known) => Err(format!("{name} is recorded as instance {}", known.id)),
        None => {
            spec.instance = Some(Instance { id: instance.id.clone(), address: instance.address.to_string(), zone: instance.zone.clone() });
            Ok(true)
        }
    })
    .await
}

/// `key`: sha256 of the agent's public key, hex.
pub async fn record_claimed(context: &Context, scene: &Scene, name: &MachineName, uid: &str, key: &str) -> Result<(), EffectError> {
    record_machine(context, scene, name, uid, |spec| match &spec.agent_key {
        Some(known) if known == key => Ok(false),
        Some(_) => Err(format!("{name} was claimed with another key")),
        None => {
            spec.agent_key = Some(key.to_owned());
            Ok(true)
        }
    })
    .await
}

/// How its etcd member joins: once, and the same ever after.
pub async fn record_join(context: &Context, scene: &Scene, name: &MachineName, uid: &str, join: &JoinRecord) -> Result<(), EffectError> {
    let wanted = Join {
        member: join.member.to_string(),
        members: join.members.iter().map(|(name, address)| (name.to_string(), address.to_string())).collect(),
    };
    record_machine(context, scene, name, uid, |spec| match &spec.join {
        Some(known) if known.member == wanted.member => Ok(false),
        Some(known) => Err(format!("{name} is recorded as etcd member {}", known.member)),
        None => {
            spec.join = Some(wanted.clone());
            Ok(true)
        }
    })
    .await
}

/// It leaves the control plane, for good.
pub async fn retire(context: &Context, scene: &Scene, name: &MachineName, uid: &str) -> Result<(), EffectError> {
    if checks::machine(context, scene, name).await?.is_none_or(|m| m.uid != uid || m.deleting.is_none()) {
        return Err(EffectError::Precondition(format!("{name} is not being deleted")));
    }
    record_machine(context, scene, name, uid, |spec| Ok(!std::mem::replace(&mut spec.retiring, true))).await
}

pub async fn delete_machine(context: &Context, scene: &Scene, name: &MachineName, uid: &str, why: Removal) -> Result<(), EffectError> {
    match why {
        Removal::FoundingFailed if live_cluster(context, scene).await?.bootstrapped => {
            return Err(EffectError::Precondition("the control plane was founded after all".to_owned()));
        }
        Removal::Dead => checks::is_dead(context, scene, name, uid).await?,
        Removal::FoundingFailed | Removal::ScaleDown | Removal::PoolRemoved | Removal::Outdated => {}
    }
    match call(machines(context, scene).delete(name.as_str(), &exactly(uid))).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(EffectError::api(format!("delete Machine {name}"))(error)),
    }
}

pub async fn remove_machine(
    context: &Context,
    scene: &Scene,
    name: &MachineName,
    uid: &str,
    keep_secrets: bool,
) -> Result<(), EffectError> {
    checks::record_may_go(context, scene, name, uid, keep_secrets).await?;
    if !keep_secrets {
        secrets::drop_machine(context, scene, name).await?;
    }
    remove(&machines(context, scene), name.as_str(), uid).await
}
