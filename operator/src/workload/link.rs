//! The task that keeps one workload cluster's picture.

use super::node::{NodeFacts, PodCount};
use super::volumes::attached;
use crate::api::{CallError, call_within};
use crate::bell::Bell;
use crate::clock;
use futures::{StreamExt, TryStreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// ConfigMap in kube-system that says which addons were applied completely.
pub const ADDONS: &str = "slipway-addons";
/// How old a picture gets before it is made anew although nothing was heard.
const REFRESH: Duration = Duration::from_secs(30);
/// The same while pods leave a machine.
const REFRESH_DRAINING: Duration = Duration::from_secs(1);
/// One list through a load balancer; longer means that nobody is behind it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between tries: an API that comes up is seen at once.
const RETRY: Duration = Duration::from_millis(200);
/// Between tries when it has been gone for a minute.
const RETRY_GONE: Duration = Duration::from_secs(2);
/// How long the last picture stands after the connection broke: an apiserver that restarts behind the load balancer is no event.
const GRACE: Duration = Duration::from_secs(3);

/// What the API of the cluster says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Nodes by name.
    pub nodes: BTreeMap<String, NodeFacts>,
    /// Pods of the nodes named by [`WorkloadLink::drains`].
    pub pods: BTreeMap<String, PodCount>,
    /// Volumes that are attached to those of them that go, once their pods have left.
    pub volumes: BTreeMap<String, Vec<String>>,
    /// Digest of the addons that were applied completely.
    pub addons: Option<String>,
}

/// What is known, and how old it is.
#[derive(Debug, Clone)]
pub enum Picture {
    /// Nothing, or it is too old.
    Unknown {
        /// The last error.
        why: String,
        /// Since when.
        since: Timestamp,
    },
    /// This.
    Known {
        /// What was seen.
        view: View,
        /// When it was last confirmed.
        as_of: Timestamp,
    },
}

/// A link. Dropping it ends the connection.
pub struct WorkloadLink {
    door: WorkloadDoor,
    task: JoinHandle<()>,
}

/// The way in for effects: outlives the link by as long as an effect runs.
#[derive(Clone)]
pub struct WorkloadDoor {
    /// The cluster's client.
    pub client: Client,
    shared: Arc<Shared>,
}

impl WorkloadDoor {
    /// Puts an effect's own answer into the picture, so that the next pass does not plan it again before the watch has told.
    pub fn note(&self, change: impl FnOnce(&mut View)) {
        if let Picture::Known { view, .. } = &mut *lock(&self.shared.picture) {
            change(view);
        }
    }

    /// Makes the picture anew, soon.
    pub fn poke(&self) {
        self.shared.poke.notify_one();
    }
}

struct Shared {
    picture: Mutex<Picture>,
    draining: Mutex<Drains>,
    poke: Notify,
    bell: Arc<Bell>,
}

/// Nodes that are being drained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drains {
    /// All of them: their pods are counted.
    pub nodes: BTreeSet<String>,
    /// Those whose machine is being deleted: their volumes are looked at.
    pub leaving: BTreeSet<String>,
}

impl Drop for WorkloadLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl WorkloadLink {
    /// Begins to look. `bell` rings when the picture changes.
    #[must_use]
    pub fn open(client: Client, bell: Arc<Bell>) -> Self {
        let shared = Arc::new(Shared {
            picture: Mutex::new(Picture::Unknown { why: "not asked yet".to_owned(), since: clock::now() }),
            draining: Mutex::default(),
            poke: Notify::new(),
            bell,
        });
        let task = tokio::spawn(follow(client.clone(), shared.clone()));
        Self { door: WorkloadDoor { client, shared }, task }
    }

    /// For effects.
    #[must_use]
    pub fn door(&self) -> WorkloadDoor {
        self.door.clone()
    }

    /// The picture, as it is now.
    #[must_use]
    pub fn picture(&self) -> Picture {
        lock(&self.door.shared.picture).clone()
    }

    /// Makes the picture anew, soon: an effect has changed it, or an agent says that the apiserver is there.
    pub fn poke(&self) {
        self.door.poke();
    }

    /// Whose pods are counted from now on, and whose volumes.
    pub fn drains(&self, drains: Drains) {
        let mut draining = lock(&self.door.shared.draining);
        if *draining != drains {
            *draining = drains;
            drop(draining);
            self.poke();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(client: Client, shared: Arc<Shared>) {
    let mut last_good: Option<Instant> = None;
    let begin = Instant::now();
    loop {
        match look(&client, &shared).await {
            Ok(version) => {
                let draining = !lock(&shared.draining).nodes.is_empty();
                let until = Instant::now() + if draining { REFRESH_DRAINING } else { REFRESH };
                tokio::select! {
                    () = shared.poke.notified() => {}
                    () = watch(&client, &shared, &version, until) => {}
                }
                // It was good for as long as the stream said so.
                last_good = Some(Instant::now());
            }
            Err(error) => {
                let gone = last_good.map_or(Duration::MAX, |at| at.elapsed());
                if gone > GRACE {
                    shared.unknown(error.to_string());
                }
                let retry = if last_good.unwrap_or(begin).elapsed() > Duration::from_secs(60) { RETRY_GONE } else { RETRY };
                let _ = tokio::time::timeout(retry, shared.poke.notified()).await;
            }
        }
    }
}

/// One fresh picture. Gives the version to watch from.
async fn look(client: &Client, shared: &Shared) -> Result<String, CallError> {
    let nodes_api: Api<Node> = Api::all(client.clone());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let draining = lock(&shared.draining).clone();
    let params = ListParams::default();
    let (nodes, addons) = tokio::try_join!(call_within(PATIENCE, nodes_api.list(&params)), call_within(PATIENCE, maps.get_opt(ADDONS)))?;
    let mut pods = BTreeMap::new();
    for node in draining.nodes.iter().filter(|name| nodes.items.iter().any(|n| n.name_any() == **name)) {
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let list = call_within(PATIENCE, Api::<Pod>::all(client.clone()).list(&on_node)).await?;
        pods.insert(node.clone(), PodCount::of(&list.items));
    }
    // After the pods, so that what the last one of them used is among them.
    let emptied = pods.iter().filter(|(node, count)| draining.leaving.contains(*node) && count.to_leave.is_empty()).collect();
    let volumes = attached(client, &emptied, PATIENCE).await?;
    let version = nodes.metadata.resource_version.clone().unwrap_or_default();
    shared.known(View {
        nodes: nodes.items.iter().map(|n| (n.name_any(), NodeFacts::of(n))).collect(),
        pods,
        volumes,
        addons: addons.and_then(|m| m.data.unwrap_or_default().remove("digest")),
    });
    Ok(version)
}

/// Keeps the nodes of the picture until `until`, or until the stream breaks.
async fn watch(client: &Client, shared: &Shared, version: &str, until: Instant) {
    let nodes: Api<Node> = Api::all(client.clone());
    let Ok(stream) = call_within(PATIENCE, nodes.watch(&WatchParams::default().timeout(290), version)).await else { return };
    let stream = stream.into_stream().boxed();
    pin_mut!(stream);
    loop {
        let event = match tokio::time::timeout_at(until, stream.try_next()).await {
            Err(_) | Ok(Ok(None) | Err(_)) => return,
            Ok(Ok(Some(event))) => event,
        };
        match event {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                let facts = NodeFacts::of(&node);
                shared.change(|view| view.nodes.insert(facts.name.clone(), facts.clone()) != Some(facts));
            }
            WatchEvent::Deleted(node) => shared.change(|view| view.nodes.remove(&node.name_any()).is_some()),
            WatchEvent::Bookmark(_) => shared.change(|_| false),
            WatchEvent::Error(_) => return,
        }
    }
}

impl Shared {
    fn known(&self, view: View) {
        let mut picture = lock(&self.picture);
        let same = matches!(&*picture, Picture::Known { view: old, .. } if *old == view);
        *picture = Picture::Known { view, as_of: clock::now() };
        drop(picture);
        if !same {
            self.bell.fact();
        }
    }

    fn change(&self, change: impl FnOnce(&mut View) -> bool) {
        let mut picture = lock(&self.picture);
        let Picture::Known { view, as_of } = &mut *picture else { return };
        *as_of = clock::now();
        let changed = change(view);
        drop(picture);
        if changed {
            self.bell.fact();
        }
    }

    fn unknown(&self, error: String) {
        let mut picture = lock(&self.picture);
        match &mut *picture {
            Picture::Unknown { why, .. } => *why = error,
            Picture::Known { .. } => {
                *picture = Picture::Unknown { why: error, since: clock::now() };
                drop(picture);
                self.bell.fact();
            }
        }
    }
}
