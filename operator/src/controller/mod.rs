//! One loop per Cluster, and what wakes it.
//!
//! ```text
//! Cluster ──┐
//! NodePool ─┼─ watches (metadata only: a malformed object stops nothing) ──► Bell of that cluster ──► its loop: reconcile, again and again
//! Machine ──┘                                  agents, cloud, nodes, ended effects ──► Bell
//! ```
//! The watches are triggers and no truth: a pass reads what they say was changed. An operator's own status writes change no `generation` and ring nothing.

mod cluster_loop;
mod watches;

use crate::context::{ClusterRef, Context};
use cluster_loop::ClusterLoop;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use watches::Change;

/// Keeps every Cluster until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let (sender, mut changes) = mpsc::channel::<Change>(256);
    let watches = watches::start(&context, &sender);
    let mut loops: BTreeMap<ClusterRef, ClusterLoop> = BTreeMap::new();
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => break,
            change = changes.recv() => change,
        };
        let Some(change) = change else { break };
        loops.retain(|_, running| !running.is_over());
        match change {
            Change::Cluster(cluster) => {
                let running = loops.entry(cluster.clone()).or_insert_with(|| ClusterLoop::start(context.clone(), cluster));
                running.bell.fact();
            }
            // A record of a cluster that has no loop: its Cluster comes in the same list, or is gone.
            Change::Record(cluster, kind) => {
                if let Some(running) = loops.get(&cluster) {
                    running.bell.changed(kind);
                    running.bell.fact();
                }
            }
        }
        context.metrics.clusters(loops.len());
    }
    drop(watches);
    // Each loop ends its pass; effects that it began are abandoned where they are, which is what any crash does too.
    futures::future::join_all(loops.into_values().map(ClusterLoop::stop)).await;
}
