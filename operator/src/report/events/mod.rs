//! Kubernetes Events for what people should hear of without looking: each once per change, none of them able to stop anything.
//!
//! ```text
//! effects that succeeded (actions) ─┐
//! what turned since the last pass   ├─► Tidings: at most so many per object ──► one writer, in order ──► the API, repeated ones as a series
//!   (changes)                      ─┘
//! ```
//! A cluster to which nothing happens writes none. What was told before this operator began is taken from the statuses, so that nothing is told twice.

mod actions;
mod changes;
mod quota;

use super::decisions::Decisions;
use crate::api::{CallError, call};
use crate::compose::World;
use crate::context::Context;
use crate::execute::Scene;
use changes::Told;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use quota::Quota;
use slipway_model::MachineName;
use slipway_plan::{Action, Plan, PodKey};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinSet;

/// As the API takes it: at most 1024 bytes.
const LONGEST_NOTE: usize = 1000;

/// Something to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiding {
    about: ObjectReference,
    type_: EventType,
    reason: &'static str,
    /// What was done. The same reason of the same object with another action is another Event, not one more of the same.
    action: String,
    related: Option<ObjectReference>,
    note: String,
}

impl Tiding {
    fn new(about: ObjectReference, reason: &'static str, action: impl Into<String>, note: impl Into<String>) -> Self {
        Self { about, type_: EventType::Normal, reason, action: action.into(), related: None, note: note.into() }
    }

    fn warning(self) -> Self {
        Self { type_: EventType::Warning, ..self }
    }
}

/// What is to be told of a cluster, and what was.
#[derive(Default)]
pub struct Tidings {
    told: Told,
    quota: Quota,
    waiting: VecDeque<Tiding>,
    writer: JoinSet<()>,
}

impl Tidings {
    /// Notes what this pass shows. `ended`: actions that succeeded since the last one.
    pub fn note(&mut self, world: &World, plan: &Plan, ended: &[Action], decisions: &Decisions, now: Timestamp) {
        let done = ended.iter().filter_map(|action| actions::told(action, &world.scene, decisions));
        let turned = self.told.turned(world, plan);
        for tiding in done.chain(turned) {
            if self.quota.allows(&tiding.about, now) {
                self.waiting.push_back(tiding);
            }
        }
    }

    /// Writes what waits, one after the other, unless that is already being done. Whether something still waits.
    pub fn write(&mut self, context: &Arc<Context>) -> bool {
        while self.writer.try_join_next().is_some() {}
        if self.waiting.is_empty() || !self.writer.is_empty() {
            return !self.waiting.is_empty();
        }
        let (context, all) = (context.clone(), std::mem::take(&mut self.waiting));
        self.writer.spawn(async move {
            for tiding in all {
                publish(&context, tiding).await;
            }
        });
        false
    }
}

/// A scaled NodePool was put back.
pub async fn scale_put_back(context: &Context, pool: ObjectReference, from: u32, to: u32) {
    let note =
        format!("set back from {from} to {to} replicas: the Cluster decides. Leave replicas out of the Cluster's pool to scale here.");
    publish(context, Tiding::new(pool, "ScalePutBack", "Scale", note).warning()).await;
}

/// A disruption budget does not let a pod go.
pub async fn drain_blocked(context: &Context, scene: &Scene, machine: &MachineName, pod: &PodKey, error: &CallError) {
    let note = format!("pod {pod} cannot be evicted from {machine}: {error}");
    publish(context, Tiding::new(cluster_reference(scene), "DrainBlocked", "Evict", note).warning()).await;
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
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

async fn publish(context: &Context, tiding: Tiding) {
    let Tiding { about, type_, reason, action, related, mut note } = tiding;
    if note.len() > LONGEST_NOTE {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    }
    let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: related };
    if let Err(error) = call(context.recorder.publish(&event, &about)).await {
        tracing::debug!(%error, reason, "an event was not written");
    }
}
