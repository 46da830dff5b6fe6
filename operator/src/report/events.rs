//! Events for what people should hear of without looking: each once per occurrence, none of them able to stop anything.

use crate::api::{CallError, call};
use crate::context::Context;
use crate::execute::Scene;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use slipway_model::MachineName;
use slipway_plan::PodKey;

/// A scaled NodePool was put back.
pub async fn scale_put_back(context: &Context, pool: ObjectReference, from: u32, to: u32) {
    let note =
        format!("set back from {from} to {to} replicas: the Cluster decides. Leave replicas out of the Cluster's pool to scale here.");
    publish(context, pool, EventType::Warning, "ScalePutBack", "Scale", note).await;
}

/// A machine is taken away by the planner's own decision.
pub async fn machine_removed(context: &Context, cluster: ObjectReference, machine: &MachineName, why: &str) {
    publish(context, cluster, EventType::Normal, "MachineRemoved", "Delete", format!("machine {machine} is taken away: {why}")).await;
}

/// A disruption budget does not let a pod go.
pub async fn drain_blocked(context: &Context, scene: &Scene, machine: &MachineName, pod: &PodKey, error: &CallError) {
    let note = format!("pod {pod} cannot be evicted from {machine}: {error}");
    publish(context, cluster_reference(scene), EventType::Warning, "DrainBlocked", "Evict", note).await;
}

/// The Cluster, as what an event is about.
#[must_use]
pub fn cluster_reference(scene: &Scene) -> ObjectReference {
    reference(scene, "Cluster", &scene.cluster.name, &scene.key.uid)
}

/// An object of ours, as what an event is about.
#[must_use]
pub fn reference(scene: &Scene, kind: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("slipway.dev/v1alpha1".to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(scene.cluster.namespace.clone()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

async fn publish(context: &Context, about: ObjectReference, type_: EventType, reason: &str, action: &str, note: String) {
    // The API takes at most 1024 bytes.
    let note: String = note.chars().take(1000).collect();
    let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None };
    if let Err(error) = call(context.recorder.publish(&event, &about)).await {
        tracing::debug!(%error, reason, "an event was not written");
    }
}
