//! Effects on the workload cluster's own API.

use super::{EffectError, Scene};
use crate::api::{CallError, call};
use crate::clock;
use crate::context::{Context, FIELD_MANAGER};
use crate::render::{self, UPGRADE_PENDING};
use crate::report::events;
use crate::workload::{ADDONS, NodeFacts};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Taint};
use kube::api::{ApiResource, DeleteParams, DynamicObject, EvictParams, Patch, PatchParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use slipway_model::{MachineName, Pool};
use slipway_plan::PodKey;

/// Annotation on a Node: digest of the pool's labels and taints as they were last put on.
pub const POOL_DIGEST: &str = "slipway.dev/pool-settings";

/// Annotation on a Node: when it was cordoned so that its machine could be changed in place.
pub const CORDONED: &str = "slipway.dev/cordoned";

/// Kinds that others live in or refer to: applied before the rest.
const FIRST: [&str; 3] = ["Namespace", "ServiceAccount", "CustomResourceDefinition"];

/// Kinds that say who may do what. Those that stand first are applied first of all.
const RIGHTS: [&str; 2] = ["ClusterRole", "ClusterRoleBinding"];

pub async fn apply_addons(context: &Context, scene: &Scene, wanted: &str) -> Result<(), EffectError> {
    let door = scene.workload()?;
    let addons = render::addons(&scene.spec, &context.artifacts).map_err(EffectError::own)?;
    if addons.digest != wanted {
        return Err(EffectError::Precondition("the addons are others by now".to_owned()));
    }
    let kind = |object: &Value| object.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Rights come before everything else, and not among it: Nodes get their pod ranges once the cloud-controller-manager has its own.
    let mut objects = addons.objects.iter().peekable();
    let rights: Vec<_> = std::iter::from_fn(|| objects.next_if(|o| RIGHTS.contains(&kind(o).as_str()))).collect();
    let (first, rest): (Vec<_>, Vec<_>) = objects.partition(|o| FIRST.contains(&kind(o).as_str()));
    try_join_all(rights.into_iter().map(|o| apply(&door.client, o))).await?;
    try_join_all(first.into_iter().map(|o| apply(&door.client, o))).await?;
    try_join_all(rest.into_iter().map(|o| apply(&door.client, o))).await?;
    // Last: it says that all the others are in.
    let maps: Api<ConfigMap> = Api::namespaced(door.client.clone(), "kube-system");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ADDONS}, "data": {"digest": wanted}});
    call(maps.patch(ADDONS, &params(), &Patch::Apply(&map))).await.map_err(EffectError::api("note the addons"))?;
    door.note(|view| view.addons = Some(wanted.to_owned()));
    Ok(())
}

fn params() -> PatchParams {
    PatchParams::apply(FIELD_MANAGER).force()
}

async fn apply(client: &Client, object: &Value) -> Result<(), EffectError> {
    let mut object: DynamicObject = serde_json::from_value(object.clone()).map_err(EffectError::own)?;
    let types = object.types.clone().unwrap_or_default();
    let gvk = GroupVersionKind::try_from(&types).map_err(EffectError::own)?;
    let resource = ApiResource::from_gvk(&gvk);
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    object.metadata.managed_fields = None;
    let what = format!("apply {} {name}", types.kind);
    call(api.patch(&name, &params(), &Patch::Apply(&object))).await.map_err(EffectError::api(what))?;
    Ok(())
}

/// Labels by server-side apply, so that a label which leaves the pool leaves the Node; taints one by one, since their list has several owners.
pub async fn label_node(scene: &Scene, machine: &MachineName, node: &str, uid: &str) -> Result<(), EffectError> {
    let door = scene.workload()?;
    let nodes: Api<Node> = Api::all(door.client.clone());
    let record = scene.machines.get(machine).ok_or_else(|| EffectError::Precondition(format!("{machine} has no record any more")))?;
    let pool = scene.spec.pools.iter().find(|p| p.name == record.pool);
    let labels = render::node_labels(pool, record.pool.is_control_plane());
    let digest = render::pool_digest(pool);
    let patch = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node, "uid": uid, "labels": labels, "annotations": {POOL_DIGEST: digest}},
    });
    let what = format!("label Node {node}");
    let mut applied = call(nodes.patch(node, &params(), &Patch::Apply(&patch))).await.map_err(EffectError::api(&what))?;
    let present = applied.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let pending = render::is_upgrade_pending(&scene.spec, &scene.machines, record);
    if let Some(taints) = with_taints(&present, pool, pending) {
        // The list is replaced as a whole: as it was read, or not at all.
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": applied.metadata.resource_version}, "spec": {"taints": taints}});
        applied = call(nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch))).await.map_err(EffectError::api(&what))?;
    }
    let facts = NodeFacts::of(&applied);
    door.note(|view| {
        view.nodes.insert(facts.name.clone(), facts);
    });
    Ok(())
}

/// A Node's taints with its pool's among them, and with that of an upgrade that is yet to come to it where there is one; those of others stay. `None` where
/// nothing changes.
fn with_taints(present: &[Taint], pool: Option<&Pool>, pending: bool) -> Option<Vec<Taint>> {
    let taint = |key: &str, value: Option<&str>, effect: &str| Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        ..Taint::default()
    };
    let of_pool = pool.into_iter().flat_map(|p| &p.taints).map(|t| {
        let value = Some(t.value.as_str()).filter(|v| !v.is_empty());
        taint(&t.key, value, t.effect.as_str())
    });
    let ours: Vec<Taint> = of_pool.chain(pending.then(|| taint(UPGRADE_PENDING, None, "PreferNoSchedule"))).collect();
    let is_same = |a: &Taint, b: &Taint| a.key == b.key && a.effect == b.effect;
    let has = |wanted: &Taint| {
        present.iter().any(|t| is_same(t, wanted) && t.value.as_deref().unwrap_or_default() == wanted.value.as_deref().unwrap_or_default())
    };
    let over = |t: &Taint| t.key == UPGRADE_PENDING && !pending;
    if ours.iter().all(has) && !present.iter().any(over) {
        return None;
    }
    let others = present.iter().filter(|t| !over(t) && !ours.iter().any(|own| is_same(own, t))).cloned();
    Some(others.chain(ours.iter().cloned()).collect())
}

/// `returns`: with the time beside it, which says that it is ours to lift again. One that somebody else cordoned before stays theirs.
pub async fn cordon(scene: &Scene, node: &str, uid: &str, returns: bool) -> Result<(), EffectError> {
    let what = format!("cordon Node {node}");
    if !returns {
        return schedulable(scene, node, json!({"metadata": {"uid": uid}, "spec": {"unschedulable": true}}), &what).await;
    }
    let Some(found) = node_of(scene, node, uid, &what).await? else {
        return Err(EffectError::Precondition(format!("Node {node} is another one by now")));
    };
    if found.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        return Ok(());
    }
    let metadata = json!({
        "uid": uid, "resourceVersion": found.metadata.resource_version, "annotations": {CORDONED: clock::now().to_string()},
    });
    schedulable(scene, node, json!({"metadata": metadata, "spec": {"unschedulable": true}}), &what).await
}

/// Only what we cordoned for a while ourselves.
pub async fn uncordon(scene: &Scene, node: &str, uid: &str) -> Result<(), EffectError> {
    let what = format!("uncordon Node {node}");
    let Some(found) = node_of(scene, node, uid, &what).await? else { return Ok(()) };
    if !found.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(CORDONED)) {
        return Ok(());
    }
    let metadata = json!({"uid": uid, "resourceVersion": found.metadata.resource_version, "annotations": {CORDONED: null}});
    schedulable(scene, node, json!({"metadata": metadata, "spec": {"unschedulable": null}}), &what).await
}

/// A Node as it is now, with its uid.
async fn node_of(scene: &Scene, node: &str, uid: &str, what: &str) -> Result<Option<Node>, EffectError> {
    let nodes: Api<Node> = Api::all(scene.workload()?.client.clone());
    let found = call(nodes.get_opt(node)).await.map_err(EffectError::api(what))?;
    Ok(found.filter(|n| n.metadata.uid.as_deref() == Some(uid)))
}

async fn schedulable(scene: &Scene, node: &str, patch: Value, what: &str) -> Result<(), EffectError> {
    let door = scene.workload()?;
    let nodes: Api<Node> = Api::all(door.client.clone());
    let applied = call(nodes.patch(node, &PatchParams::default(), &Patch::Merge(&patch))).await.map_err(EffectError::api(what))?;
    let facts = NodeFacts::of(&applied);
    door.note(|view| {
        view.nodes.insert(facts.name.clone(), facts);
    });
    Ok(())
}

pub async fn evict(context: &Context, scene: &Scene, machine: &MachineName, pod: &PodKey) -> Result<(), EffectError> {
    let door = scene.workload()?;
    let pods: Api<Pod> = Api::namespaced(door.client.clone(), &pod.namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let options = EvictParams { delete_options: Some(DeleteParams::default().preconditions(preconditions)), ..EvictParams::default() };
    match call(pods.evict(&pod.name, &options)).await {
        // Another pod by that name: the one that was meant is gone.
        Ok(_) => {}
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) if error.is_too_many_requests() => {
            events::drain_blocked(context, scene, machine, pod, &error).await;
            return Err(EffectError::Budget { pod: pod.clone(), source: error });
        }
        Err(error) => return Err(EffectError::Api { what: format!("evict {pod}"), source: error }),
    }
    // Not evicted again before the next count of the pods shows it on its way out.
    door.note(|view| {
        let pods = view.pods.values_mut().flat_map(|count| &mut count.to_leave);
        pods.filter(|p| p.uid == pod.uid).for_each(|p| p.terminating = true);
    });
    door.poke();
    Ok(())
}

pub async fn delete_node(scene: &Scene, node: &str, uid: &str) -> Result<(), EffectError> {
    let door = scene.workload()?;
    let nodes: Api<Node> = Api::all(door.client.clone());
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    match call(nodes.delete(node, &DeleteParams::default().preconditions(preconditions))).await {
        Ok(_) => {}
        // Somebody else deleted it, or a new one took its name.
        Err(error) if gone(&error) => {}
        Err(error) => return Err(EffectError::Api { what: format!("delete Node {node}"), source: error }),
    }
    door.note(|view| {
        view.nodes.remove(node);
    });
    Ok(())
}

fn gone(error: &CallError) -> bool {
    error.is_not_found() || error.is_conflict()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn taint(key: &str, value: Option<&str>, effect: &str) -> Taint {
        Taint { key: key.into(), value: value.map(str::to_owned), effect: effect.into(), ..Taint::default() }
    }

    #[test]
    fn taints_of_others_stay_and_that_of_an_upgrade_comes_and_goes() {
        let role = taint("node-role.kubernetes.io/control-plane", None, "NoSchedule");
        let pending = taint(UPGRADE_PENDING, None, "PreferNoSchedule");
        assert_eq!(with_taints(std::slice::from_ref(&role), None, false), None);
        let with = with_taints(std::slice::from_ref(&role), None, true).unwrap();
        assert_eq!(with, [role.clone(), pending]);
        assert_eq!(with_taints(&with, None, true), None);
        assert_eq!(with_taints(&with, None, false).unwrap(), [role]);
    }
}
