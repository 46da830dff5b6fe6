//! Watches over our kinds, reduced to "something that matters changed in this cluster".

use crate::bell::Kinds;
use crate::context::{ClusterRef, Context, LABEL_CLUSTER};
use crate::snapshots;
use futures::StreamExt;
use kube::core::metadata::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use slipway_crds::{Cluster, EtcdSnapshot, Machine, NodePool};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio_util::task::AbortOnDropHandle;

/// After an error; the watcher lists anew by itself.
const PAUSE: Duration = Duration::from_secs(1);

/// What changed.
#[derive(Debug)]
pub enum Change {
    /// The Cluster itself.
    Cluster(ClusterRef),
    /// One of its objects of this kind.
    Record(ClusterRef, Kinds),
}

/// What of an object's metadata matters. A status write changes none of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    uid: String,
    generation: i64,
    deleting: bool,
    finalizers: usize,
    annotations: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Mark {
    fn of(object: &impl ResourceExt) -> Self {
        Self {
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation.unwrap_or_default(),
            deleting: object.meta().deletion_timestamp.is_some(),
            finalizers: object.finalizers().len(),
            annotations: object.annotations().clone(),
            labels: object.labels().clone(),
        }
    }
}

/// Starts the three watches. Dropping them ends them.
pub fn start(context: &Arc<Context>, sender: &Sender<Change>) -> Vec<AbortOnDropHandle<()>> {
    let client = &context.client;
    vec![
        spawn(follow::<Cluster>(Api::all(client.clone()), sender.clone(), |o| {
            Some(Change::Cluster(ClusterRef::new(&o.namespace()?, &o.name_any())))
        })),
        spawn(follow::<NodePool>(Api::all(client.clone()), sender.clone(), |o| record(o, Kinds::POOLS))),
        spawn(follow::<Machine>(Api::all(client.clone()), sender.clone(), |o| record(o, Kinds::MACHINES))),
        spawn(follow_snapshots(Api::all(client.clone()), sender.clone())),
    ]
}

/// New EtcdSnapshots: whose they are stands in their specs, since people make them. That one is gone changes nothing.
async fn follow_snapshots(api: Api<EtcdSnapshot>, sender: Sender<Change>) {
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let object = match event {
            Err(error) => {
                tracing::warn!("watching EtcdSnapshots: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Ok(Event::InitApply(object) | Event::Apply(object)) => object,
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => continue,
        };
        let Some(namespace) = object.namespace().filter(|_| snapshots::is_new(&object)) else { continue };
        if sender.send(Change::Record(ClusterRef::new(&namespace, &object.spec.cluster), Kinds::SNAPSHOTS)).await.is_err() {
            return;
        }
    }
}

fn spawn(watch: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(watch))
}

fn record<K: Resource<DynamicType = ()>>(object: &PartialObjectMeta<K>, kind: Kinds) -> Option<Change> {
    let cluster = object.labels().get(LABEL_CLUSTER)?;
    Some(Change::Record(ClusterRef::new(&object.namespace()?, cluster), kind))
}

type Told<K> = fn(&PartialObjectMeta<K>) -> Option<Change>;

async fn follow<K>(api: Api<PartialObjectMeta<K>>, sender: Sender<Change>, told: Told<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + 'static,
{
    let kind = K::kind(&());
    let mut marks: BTreeMap<(String, String), (Mark, PartialObjectMeta<K>)> = BTreeMap::new();
    let mut listed: Vec<(String, String)> = vec![];
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        let mut changed = vec![];
        match event {
            Err(error) => {
                tracing::warn!("watching {kind}s: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.push(key(&object));
                changed.extend(note(&mut marks, object));
            }
            Ok(Event::Apply(object)) => changed.extend(note(&mut marks, object)),
            Ok(Event::Delete(object)) => {
                marks.remove(&key(&object));
                changed.push(object);
            }
            Ok(Event::InitDone) => {
                // What is not in the list any more was deleted while nobody looked.
                let gone: Vec<_> = marks.keys().filter(|k| !listed.contains(k)).cloned().collect();
                changed.extend(gone.iter().filter_map(|k| marks.remove(k)).map(|(_, object)| object));
                listed = vec![];
            }
        }
        for change in changed.iter().filter_map(told) {
            if sender.send(change).await.is_err() {
                return;
            }
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &PartialObjectMeta<K>) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Remembers an object's mark; gives the object if it changed. Only what [`Told`] needs is kept.
fn note<K: Resource<DynamicType = ()> + Clone>(
    marks: &mut BTreeMap<(String, String), (Mark, PartialObjectMeta<K>)>,
    mut object: PartialObjectMeta<K>,
) -> Option<PartialObjectMeta<K>> {
    let mark = Mark::of(&object);
    object.managed_fields_mut().clear();
    object.annotations_mut().clear();
    let known = marks.insert(key(&object), (mark.clone(), object.clone()));
    known.is_none_or(|(before, _)| before != mark).then_some(object)
}
