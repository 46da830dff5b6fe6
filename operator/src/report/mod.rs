//! What people see: statuses and events. Computed from the same world as the plan, written beside the pass and only where something changed.
//!
//! A status is compared with the one that was just read, so nothing is written twice, and one that was tampered with is put right. Writes cost a starting
//! cluster time (every one is an fsync in the management etcd): mere progress waits for company, what a user waits for is written at once.

mod cluster;
mod decisions;
mod etcd;
pub mod events;
mod machine;
mod pool;
mod stages;

use crate::api::call;
use crate::bell::Kinds;
use crate::clock;
use crate::compose::World;
use crate::context::{ClusterRef, Context, FIELD_MANAGER};
use crate::memory::Memory;
use crate::observe::Seen;
use crate::reconcile::Next;
use crate::validate::Invalid;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_crds::{Cluster, Finding, Machine, NodePool, Stage, set_conditions};
use slipway_plan::Plan;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Progress of a cluster is written this often at most.
const CLUSTER_PACE: Duration = Duration::from_millis(500);
/// Progress of a machine.
const MACHINE_PACE: Duration = Duration::from_secs(1);

/// What is remembered about reporting.
#[derive(Default)]
pub struct Reported {
    /// When each machine reached each stage; begun from its status.
    stages: BTreeMap<String, Vec<Stage>>,
    /// Why what was done was done.
    decisions: decisions::Decisions,
    /// Events.
    tidings: events::Tidings,
    /// When each object's status was last written, by kind and name.
    written: BTreeMap<(&'static str, String), Instant>,
    writer: JoinSet<()>,
    waiting: bool,
}

impl Reported {
    /// Whether something is left to be written, soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.waiting
    }
}

/// A status to be written.
struct Write {
    kind: &'static str,
    name: String,
    uid: String,
    status: Value,
    /// People wait for it.
    urgent: bool,
}

/// Says how things are. Never fails and never waits: what could not be written is tried at the next pass.
pub fn report(context: &Arc<Context>, memory: &mut Memory, world: &World, plan: &Plan, now: Timestamp) {
    // To the second, as the API keeps transition times: or what is written would never equal what is read.
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    stages::note(&mut memory.reported.stages, world, now);
    for (action, since) in memory.running.begun() {
        memory.reported.decisions.note(plan, action, since);
    }
    let ended = memory.running.ended();
    let Reported { tidings, decisions, .. } = &mut memory.reported;
    tidings.note(world, plan, &ended, decisions, now);
    let untold = tidings.write(context);
    while memory.reported.writer.try_join_next().is_some() {}
    if !memory.reported.writer.is_empty() {
        // What was read for this pass may be older than what is being written.
        memory.reported.waiting = true;
        return;
    }
    let steps = crate::execute::steps(memory);
    let mut writes: Vec<Write> = vec![];
    let decisions = &memory.reported.decisions;
    writes.extend(cluster::status(world, plan, steps, decisions, second));
    writes.extend(world.seen.pools.iter().filter_map(|pool| pool::status(pool, world, second)));
    writes.extend(world.seen.machines.iter().filter_map(|m| machine::status(m, world, plan, &memory.reported, second)));
    if world.observed.cluster.deleting.is_some() {
        // Records that are going are not worth a write each.
        writes.retain(|w| w.kind == "Cluster");
    }

    let at = Instant::now();
    let pace = |kind| if kind == "Cluster" { CLUSTER_PACE } else { MACHINE_PACE };
    let (due, later): (Vec<_>, Vec<_>) = writes.into_iter().partition(|w| {
        let last = memory.reported.written.get(&(w.kind, w.name.clone()));
        w.urgent || last.is_none_or(|last| at.duration_since(*last) >= pace(w.kind))
    });
    memory.reported.waiting = untold || !later.is_empty();
    if due.is_empty() {
        return;
    }
    memory.reported.written.extend(due.iter().map(|w| ((w.kind, w.name.clone()), at)));
    let (context, cluster, bell) = (context.clone(), memory.cluster.clone(), memory.bell.clone());
    memory.reported.writer.spawn(async move {
        join_all(due.iter().map(|w| write(&context, &cluster, w))).await;
        // The next status is compared with the one that was written.
        for write in &due {
            bell.changed(match write.kind {
                "Machine" => Kinds::MACHINES,
                "NodePool" => Kinds::POOLS,
                _ => Kinds::NONE,
            });
        }
    });
}

async fn write(context: &Context, cluster: &ClusterRef, write: &Write) {
    let patch = json!({
        "apiVersion": Cluster::api_version(&()), "kind": write.kind,
        "metadata": {"name": write.name, "namespace": cluster.namespace, "uid": write.uid},
        "status": write.status,
    });
    let patch = Patch::Apply(&patch);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let result = match write.kind {
        "Machine" => send::<Machine>(context, cluster, &write.name, &params, &patch).await,
        "NodePool" => send::<NodePool>(context, cluster, &write.name, &params, &patch).await,
        _ => send::<Cluster>(context, cluster, &write.name, &params, &patch).await,
    };
    match result {
        Ok(()) => context.metrics.status_written(),
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        Err(error) => tracing::warn!(%error, "the status of {} {} was not written", write.kind, write.name),
    }
}

async fn send<K>(
    context: &Context,
    cluster: &ClusterRef,
    name: &str,
    params: &PatchParams,
    patch: &Patch<&Value>,
) -> Result<(), crate::api::CallError>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), &cluster.namespace);
    call(api.patch_status(name, params, patch)).await.map(|_| ())
}

/// A status to be written, if it is another one than the one that is there.
fn changed<S: Serialize + PartialEq>(kind: &'static str, object: &impl ResourceExt, before: &S, after: &S, urgent: bool) -> Option<Write> {
    if before == after {
        return None;
    }
    // Plain structs: serialising them cannot fail.
    let status = serde_json::to_value(after).unwrap_or_default();
    Some(Write { kind, name: object.name_any(), uid: object.uid().unwrap_or_default(), status, urgent })
}

/// The spec cannot be acted on: says why, and does nothing.
pub fn refused(context: &Arc<Context>, memory: &mut Memory, seen: &Seen, invalid: &Invalid, now: Timestamp) -> Next {
    let before = seen.cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let message = invalid.to_string();
    let finding = Finding { kind: "Ready", status: "False", reason: invalid.reason(), message: &message };
    alone(context, memory, before, &finding, seen.cluster.metadata.generation, now);
    Next::LookAgain(Duration::from_secs(300))
}

/// A pass failed before it could plan: says so where the management API still listens.
pub async fn trouble(context: &Arc<Context>, memory: &mut Memory, error: &str, next: Duration) {
    let clusters: Api<Cluster> = Api::namespaced(context.client.clone(), &memory.cluster.namespace);
    let Ok(Some(cluster)) = call(clusters.get_opt(&memory.cluster.name)).await else { return };
    let before = cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let message = format!("{error}; tried again within {next:?}");
    let finding = Finding { kind: "Ready", status: "Unknown", reason: "PassFailed", message: &message };
    alone(context, memory, before, &finding, cluster.metadata.generation, clock::now());
}

/// Writes one condition and leaves the others.
fn alone(
    context: &Arc<Context>,
    memory: &mut Memory,
    before: &[Condition],
    finding: &Finding<'_>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let others = before.iter().filter(|c| c.type_ != finding.kind);
    let mut after: Vec<Condition> = others.cloned().chain(set_conditions(before, [finding.clone()], generation, second)).collect();
    after.sort_by(|a, b| a.type_.cmp(&b.type_));
    if after == before || !memory.reported.writer.is_empty() {
        return;
    }
    let (context, cluster) = (context.clone(), memory.cluster.clone());
    memory.reported.writer.spawn(async move {
        let patch = json!({"status": {"conditions": after}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api: Api<Cluster> = Api::namespaced(context.client.clone(), &cluster.namespace);
        if let Err(error) = call(api.patch_status(&cluster.name, &params, &Patch::Merge(&patch))).await {
            tracing::warn!(%error, "the status was not written");
        }
    });
}
