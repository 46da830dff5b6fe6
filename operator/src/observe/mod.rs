//! What is there, for every pass, in the order in which conclusions are sound (see `slipway_plan::Observed`).
//!
//! ```text
//! 1. agents and Nodes, as their tasks last heard them   (memory)
//!    the cloud's inventory                              (one call)
//! 2. the Cluster                                        (quorum read)
//! 3. Machines, NodePools, EtcdSnapshots, Secrets' metadata (quorum lists, concurrently; those that something may have changed, see [`lists`])
//! ```

pub mod agents;
pub mod cloud;
pub mod lists;
pub mod nodes;
pub mod preflight;

pub use cloud::CloudWatch;
pub use preflight::PreflightLook;

use crate::agents::Hearing;
use crate::api::{CallError, call};
use crate::context::{Context, LABEL_CLUSTER};
use crate::memory::Memory;
use crate::snapshots;
use crate::workload::Picture;
use futures::TryFutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt};
use slipway_cloud_api::{ClusterKey, Inventory};
use slipway_crds::{Cluster, EtcdSnapshot, Machine, NodePool};
use slipway_plan::{Fact, Plan, SnapshotFacts};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// When nothing at all happens, a pass is made all the same: everything heard is only a trigger, and one may have been missed.
const SAFETY_NET: Duration = Duration::from_secs(300);
/// A status that waits for company is written this soon.
const SOON: Duration = Duration::from_millis(500);

/// Why a pass sees too little to plan. What the planner can cope with is a `Fact::Unknown` and no error.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The management API.
    #[error("the management API does not show {what}: {source}")]
    Management {
        /// What was read.
        what: &'static str,
        /// Its failure.
        source: CallError,
    },
    /// A name that the CRD's rules forbid.
    #[error("the Cluster's name is not usable: {0}")]
    Name(#[from] slipway_model::NameError),
}

/// What one pass saw.
pub struct Seen {
    /// The Cluster.
    pub cluster: Arc<Cluster>,
    /// Its UID and name.
    pub key: ClusterKey,
    /// Its Machines.
    pub machines: Vec<Machine>,
    /// Its NodePools.
    pub pools: Vec<NodePool>,
    /// Its Secrets, without their contents.
    pub secrets: Vec<PartialObjectMeta<Secret>>,
    /// Snapshots of its etcd.
    pub snapshots: Fact<Vec<SnapshotFacts>>,
    /// The cloud's side.
    pub inventory: Fact<Inventory>,
    /// Agents' last words, by the machine's UID.
    pub hearings: BTreeMap<String, Hearing>,
    /// The workload cluster's picture; `None`: nobody looks yet.
    pub picture: Option<Picture>,
}

/// Reads everything. `None`: there is no such Cluster.
pub async fn observe(context: &Arc<Context>, memory: &mut Memory, now: Timestamp) -> Result<Option<Seen>, ObserveError> {
    let fail = |what| move |source| ObserveError::Management { what, source };
    let namespace = memory.cluster.namespace.clone();
    let clusters: Api<Cluster> = Api::namespaced(context.client.clone(), &namespace);
    let read = || call(clusters.get_opt(&memory.cluster.name));
    // The first pass does not know whose inventory to ask for.
    let key = match memory.key.clone() {
        Some(key) => key,
        None => match read().await.map_err(fail("the Cluster"))? {
            Some(cluster) => ClusterKey { uid: cluster.uid().unwrap_or_default(), name: cluster.name_any().parse()? },
            None => return Ok(None),
        },
    };

    let hearings = memory.agents.hearings();
    let picture = memory.workload.as_ref().map(|(_, link)| link.picture());
    let inventory = tokio::time::timeout(cloud::PATIENCE, context.cloud.inventory(&key)).await;

    let Some(cluster) = read().await.map_err(fail("the Cluster"))? else { return Ok(None) };
    if cluster.uid().unwrap_or_default() != key.uid {
        // Deleted and made anew under the same name: another cluster, of which nothing is known yet.
        memory.forget_everything();
        memory.bell.fact();
        return Err(ObserveError::Management { what: "the same Cluster as before", source: CallError::Deadline(Duration::ZERO) });
    }
    memory.key = Some(key.clone());

    let ours = ListParams::default().labels(&format!("{LABEL_CLUSTER}={}", memory.cluster.name));
    let machines: Api<Machine> = Api::namespaced(context.client.clone(), &namespace);
    let pools: Api<NodePool> = Api::namespaced(context.client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    // Those that people make carry no label.
    let of_cluster = ListParams::default().fields(&format!("spec.cluster={}", memory.cluster.name));
    let snapshots: Api<EtcdSnapshot> = Api::namespaced(context.client.clone(), &namespace);
    let bell = memory.bell.clone();
    let (machines, pools, secrets, snapshots) = tokio::join!(
        memory.machines.get(&bell, call(machines.list(&ours)).map_ok(|list| list.items)),
        memory.pools.get(&bell, call(pools.list(&ours)).map_ok(|list| list.items)),
        memory.secrets.get(&bell, call(secrets.list_metadata(&ours)).map_ok(|list| list.items)),
        memory.snapshots.get(&bell, call(snapshots.list(&of_cluster)).map_ok(|list| list.items))
    );
    // Only upgrades and snapshots themselves wait for them.
    let since = memory.seen("snapshots", snapshots.is_ok(), now);
    let snapshots = match snapshots {
        Ok(found) => Fact::Known(found.iter().filter(|s| s.spec.cluster == memory.cluster.name).map(snapshots::facts).collect()),
        Err(error) => Fact::unknown(format!("the management API does not show the EtcdSnapshots: {error}"), since),
    };

    let inventory = match inventory {
        Ok(Ok(inventory)) => Fact::Known(inventory),
        Ok(Err(error)) => Fact::unknown(error.to_string(), now),
        Err(_) => Fact::unknown(format!("the cloud does not show its inventory within {:?}", cloud::PATIENCE), now),
    };
    let since = memory.seen("cloud", inventory.known().is_some(), now);
    let inventory = match inventory {
        Fact::Unknown { why, .. } => Fact::unknown(why, since),
        known @ Fact::Known(_) => known,
    };
    Ok(Some(Seen {
        cluster: Arc::new(cluster),
        key,
        machines: machines.map_err(fail("the Machines"))?,
        pools: pools.map_err(fail("the NodePools"))?,
        secrets: secrets.map_err(fail("the Secrets"))?,
        snapshots,
        inventory,
        hearings,
        picture,
    }))
}

/// When to look again if nothing is heard.
#[must_use]
pub fn look_again(memory: &mut Memory, plan: &Plan, now: Timestamp) -> Duration {
    let mut wait = plan.requeue.unwrap_or(SAFETY_NET).min(SAFETY_NET);
    if let Some(at) = memory.failures.next_try() {
        let until = at.duration_since(now).max(jiff::SignedDuration::from_millis(20));
        wait = wait.min(until.unsigned_abs());
    }
    if memory.reported.is_waiting() {
        wait = wait.min(SOON);
    }
    if wait > lists::KEPT_FOR {
        memory.rest();
    }
    if wait == SAFETY_NET {
        // Thousands of clusters that settled together shall not be looked at together.
        let spread = memory.key.as_ref().map_or(0, |k| k.uid.bytes().fold(0u64, |n, b| n.wrapping_mul(31).wrapping_add(u64::from(b))) % 60);
        wait -= Duration::from_secs(spread);
    }
    wait
}
