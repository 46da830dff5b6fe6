//! The controller's loop: two streams of events, one pass after each. A pass does everything that is due, concurrently, and every call in
//! it has a deadline; what failed is due again in the next pass.

use super::decide::{self, Act, Facts};
use super::ranges::Ranges;
use crate::LocalClient;
use crate::leader::in_short;
use futures::StreamExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use slipway_cloud_api::{Cloud, CloudError, ClusterKey, Inventory};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Deadline of a call to the API server.
const DEADLINE: Duration = Duration::from_secs(5);
/// First and longest pause after something failed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often a Node that others write to is decided upon anew in one pass.
const CONFLICTS_MAX: u32 = 5;
/// How long one wait for a change in the cloud lasts.
const POLL: Duration = Duration::from_secs(50);

/// What went wrong in a pass.
#[derive(Debug, thiserror::Error)]
pub enum CcmError {
    /// The cluster's API server.
    #[error("node {node}: {}", in_short(why))]
    Node {
        /// Which Node.
        node: String,
        /// What it said.
        why: Box<kube::Error>,
    },
    /// It did not answer.
    #[error("node {node}: no answer from the API server within {DEADLINE:?}")]
    Silent {
        /// Which Node.
        node: String,
    },
    /// The cloud.
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// Node, pod-range and route controller of one cluster.
pub struct Controller {
    /// The cluster's API server.
    pub client: Client,
    /// The cloud.
    pub cloud: LocalClient,
    /// Whose Nodes.
    pub cluster: ClusterKey,
    /// Its pod range.
    pub cluster_cidr: Ipv4Net,
    /// Prefix length of a Node's share of it.
    pub node_mask: u8,
}

impl Controller {
    /// Runs for ever.
    pub async fn run(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (told, mut cloud) = watch::channel(());
        let poll = self.poll(told);
        let work = async {
            let mut events = pin!(watcher(nodes.clone(), watcher::Config::default()));
            let (mut known, mut listing, mut listed) = (BTreeMap::new(), BTreeMap::new(), false);
            let mut ranges = Ranges::new(self.cluster_cidr, self.node_mask);
            let mut backoff = BACKOFF.0;
            loop {
                let mut retry = None;
                if listed {
                    match self.pass(&nodes, &mut known, &mut ranges).await {
                        Ok(()) => backoff = BACKOFF.0,
                        Err(e) => {
                            tracing::warn!("{e}; trying again in {backoff:?}");
                            retry = Some(Instant::now() + backoff);
                            backoff = (backoff * 2).min(BACKOFF.1);
                        }
                    }
                }
                // Heartbeats are most of the events, and no news.
                let mut due = false;
                while !due {
                    tokio::select! {
                        event = events.next() => match note(event, &mut known, &mut listing, &mut listed) {
                            Ok(news) => due = news,
                            Err(()) => tokio::time::sleep(BACKOFF.0).await,
                        },
                        _ = cloud.changed() => due = true,
                        () = pause(retry) => due = true,
                    }
                }
                // Whatever else has arrived belongs to the same pass.
                while let Some(Ok(_)) =
                    futures::FutureExt::now_or_never(events.next()).map(|e| note(e, &mut known, &mut listing, &mut listed))
                {
                }
            }
        };
        tokio::join!(poll, work);
    }

    /// Tells of every change in the cloud.
    async fn poll(&self, told: watch::Sender<()>) {
        loop {
            if let Err(e) = self.cloud.changed(&self.cluster, POLL).await {
                tracing::debug!("{e}");
                tokio::time::sleep(BACKOFF.0 * 5).await;
            }
            told.send_replace(());
        }
    }

    /// One pass over all Nodes.
    async fn pass(&self, nodes: &Api<Node>, known: &mut BTreeMap<String, Facts>, ranges: &mut Ranges) -> Result<(), CcmError> {
        // Read after the Nodes: an instance that is not in it is gone. Without it nothing is known, and nothing done.
        let inventory = self.cloud.inventory(&self.cluster).await?;
        // First of all: a Node's pod network, and with it whether the Node is Ready, hangs on its range.
        let ranged = give_ranges(nodes, known, &inventory, ranges).await;
        let routes = self.route(known, &inventory).await;
        let routed = match &routes {
            Ok(routed) => routed.clone(),
            Err(e) => {
                tracing::warn!("{e}");
                BTreeSet::new()
            }
        };
        let (now, ours) = (jiff::Timestamp::now().to_string(), format!("local://{}/", self.cluster.uid));
        let decide = |n: &Facts| decide::node(n, &inventory, &ours, n.pod_cidr.is_some_and(|c| routed.contains(&c)), &now);
        let due: Vec<Facts> = known.values().filter(|n| !decide(n).is_empty()).cloned().collect();
        let done = futures::future::join_all(due.iter().map(|node| settle(nodes, node, decide))).await;
        let mut failed = routes.err().or(ranged.err());
        for (before, result) in due.iter().zip(done) {
            let name = &before.name;
            match result {
                // The watch will tell the same, later: until then we must not do it twice.
                Ok(Now::Is(node)) => known.extend(Facts::of(&node).map(|f| (name.clone(), f))),
                Ok(Now::Same) => {}
                Ok(Now::Gone) => drop(known.remove(name)),
                Err(e) => failed = Some(e),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes the routes what they should be; gives the pod ranges that have one.
    async fn route(&self, known: &BTreeMap<String, Facts>, inventory: &Inventory) -> Result<BTreeSet<Ipv4Net>, CcmError> {
        let wanted = decide::routes(known, inventory, self.cluster_cidr);
        let found: BTreeSet<_> = inventory.network.iter().flat_map(|n| n.routes.iter().cloned()).collect();
        if wanted != found {
            let list: Vec<_> = wanted.iter().cloned().collect();
            self.cloud.set_routes(&self.cluster, &list).await?;
            tracing::info!(routes = list.len(), "routes set");
        }
        Ok(wanted.into_iter().map(|r| r.destination).collect())
    }
}

/// Gives each Node that has none its share of the pod range, and takes note of it.
async fn give_ranges(
    nodes: &Api<Node>,
    known: &mut BTreeMap<String, Facts>,
    inventory: &Inventory,
    ranges: &mut Ranges,
) -> Result<(), CcmError> {
    let wanting = known.values().filter(|n| n.pod_cidr.is_none() && decide::has_machine(n, inventory));
    let wanting: Vec<Facts> = wanting.cloned().collect();
    let given = ranges.promise(known, &wanting);
    for left_out in wanting.iter().filter(|n| !given.contains_key(&n.name)) {
        tracing::error!(node = left_out.name, "no share of the pod range is free: delete Nodes, or make a cluster with a larger podCIDR");
    }
    let acts = wanting.iter().filter_map(|n| Some((n, Act::Range(decide::range(n, *given.get(&n.name)?)))));
    let done = futures::future::join_all(acts.map(async |(node, range)| (node, act(nodes, node, &[range]).await))).await;
    let mut failed = None;
    for (node, result) in done {
        match result {
            Ok(Now::Is(now)) => known.extend(Facts::of(&now).map(|f| (node.name.clone(), f))),
            Ok(Now::Same) => {}
            Ok(Now::Gone) => drop(known.remove(&node.name)),
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn pause(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Whether a resourceVersion is older than another. (They are numbers, and Kubernetes promises so since 1.35.)
fn older(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}

/// Takes an event into account; tells whether it is news. An error: the watch must rest a little.
fn note(
    event: Option<Result<Event<Node>, watcher::Error>>,
    known: &mut BTreeMap<String, Facts>,
    listing: &mut BTreeMap<String, Facts>,
    listed: &mut bool,
) -> Result<bool, ()> {
    match event {
        Some(Ok(Event::Apply(node))) => {
            let Some(facts) = Facts::of(&node) else { return Ok(false) };
            // The watch lags behind the answers to our own patches: what it tells of the time before them is no news, but would undo them here.
            if known.get(&facts.name).is_some_and(|k| k.uid == facts.uid && older(&facts.version, &k.version)) {
                return Ok(false);
            }
            let before = known.insert(facts.name.clone(), facts.clone());
            return Ok(before.is_none_or(|before| Facts { version: facts.version.clone(), ..before } != facts));
        }
        Some(Ok(Event::Delete(node))) => drop(known.remove(node.metadata.name.as_deref().unwrap_or_default())),
        Some(Ok(Event::Init)) => {
            listing.clear();
            return Ok(false);
        }
        Some(Ok(Event::InitApply(node))) => {
            listing.extend(Facts::of(&node).map(|f| (f.name.clone(), f)));
            return Ok(false);
        }
        Some(Ok(Event::InitDone)) => (*known, *listed) = (std::mem::take(listing), true),
        Some(Err(e)) => {
            tracing::debug!("watching Nodes: {e}");
            return Err(());
        }
        None => return Err(()),
    }
    Ok(true)
}

/// What has become of a Node.
enum Now {
    /// Nothing was to be done.
    Same,
    /// This.
    Is(Box<Node>),
    /// Nothing any more.
    Gone,
}

/// Does what is to be done to a Node, and decides again from the Node as it is where somebody else wrote in between: a young Node has many
/// writers.
async fn settle(nodes: &Api<Node>, node: &Facts, decide: impl Fn(&Facts) -> Vec<Act>) -> Result<Now, CcmError> {
    let mut before = node.clone();
    for _ in 0..CONFLICTS_MAX {
        match act(nodes, &before, &decide(&before)).await {
            Err(CcmError::Node { why, .. }) if matches!(&*why, kube::Error::Api(status) if status.is_conflict()) => {}
            done => return done,
        }
        let silent = |_| CcmError::Silent { node: node.name.clone() };
        let failed = |why| CcmError::Node { node: node.name.clone(), why: Box::new(why) };
        match timeout(DEADLINE, nodes.get_opt(&node.name)).await.map_err(silent)?.map_err(failed)? {
            None => return Ok(Now::Gone),
            // Somebody has registered anew under the name: the next pass sees to that one.
            Some(now) if now.metadata.uid.as_ref() != Some(&node.uid) => return Ok(Now::Is(Box::new(now))),
            Some(now) => before = Facts::of(&now).unwrap_or(before),
        }
    }
    act(nodes, &before, &decide(&before)).await
}

/// Does a Node's acts one after the other.
async fn act(nodes: &Api<Node>, before: &Facts, acts: &[Act]) -> Result<Now, CcmError> {
    let name = before.name.as_str();
    let params = PatchParams { field_manager: Some("slipway-ccm-local".into()), ..PatchParams::default() };
    let mut now = Now::Same;
    for act in acts {
        let last = if let Now::Is(node) = &now { Some(&**node) } else { None };
        let call = async {
            Ok(match act {
                Act::Range(patch) => Some(nodes.patch(name, &params, &Patch::Merge(patch)).await?),
                Act::Status(patch) => Some(nodes.patch_status(name, &params, &Patch::Strategic(patch)).await?),
                Act::Spec(patch) => match rebased(patch, before, last) {
                    Some(patch) => Some(nodes.patch(name, &params, &Patch::Merge(patch)).await?),
                    None => last.cloned(),
                },
                Act::Delete(uid) => {
                    let precondition = Preconditions { uid: Some(uid.clone()), resource_version: None };
                    nodes.delete(name, &DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() }).await?;
                    None
                }
            })
        };
        now = match timeout(DEADLINE, call).await {
            Ok(Ok(Some(node))) => Now::Is(Box::new(node)),
            Ok(Ok(None)) => Now::Gone,
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => return Ok(Now::Gone),
            Ok(Err(why)) => return Err(CcmError::Node { node: name.to_owned(), why: Box::new(why) }),
            Err(_) => return Err(CcmError::Silent { node: name.to_owned() }),
        };
        tracing::info!(node = name, "{}", describe(act));
    }
    Ok(now)
}

/// Our own status patch has raised the resourceVersion: the next patch goes on from there. Not if somebody else changed the taints in
/// between: the patch would take theirs away, and their change's event makes us decide anew.
fn rebased(patch: &serde_json::Value, before: &Facts, last: Option<&Node>) -> Option<serde_json::Value> {
    let mut patch = patch.clone();
    if let Some(now) = last.and_then(Facts::of) {
        if now.taints != before.taints {
            return None;
        }
        patch.get_mut("metadata")?.as_object_mut()?.insert("resourceVersion".into(), now.version.into());
    }
    Some(patch)
}

fn describe(act: &Act) -> &'static str {
    match act {
        Act::Range(_) => "pod range given",
        Act::Status(_) => "addresses or conditions set",
        Act::Spec(_) => "initialised, or labels or taints brought up to date",
        Act::Delete(_) => "deleted: its machine is gone",
    }
}
