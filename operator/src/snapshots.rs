//! Snapshots of etcd: from a member's agent into an object store, read back before they count, and told in an EtcdSnapshot object.
//!
//! ```text
//! EtcdSnapshot (made if it is not there) ──► agent: saved, verified, streamed ──► store: hashed on the way ──► read back, hashed again
//!                                                                                                               └─► metadata ──► Complete
//! ```
//! What is not whole leaves nothing in the store. The data outlive the object and the cluster: nothing here deletes any.

use crate::api::call;
use crate::clock;
use crate::context::{Context, FIELD_MANAGER, LABEL_CLUSTER};
use crate::execute::{EffectError, Scene};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slipway_agent_api::AgentError;
use slipway_agent_api::v1::{EtcdSnapshotPiece, EtcdSnapshotSummary};
use slipway_crds::{EtcdSnapshot, EtcdSnapshotSpec, EtcdSnapshotStatus, Finding, set_conditions};
use slipway_model::MachineName;
use slipway_plan::SnapshotFacts;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a snapshot may take: 8 GiB, the most that etcd holds, saved, verified, sent and read back on slow disks.
pub const DEADLINE: Duration = Duration::from_secs(20 * 60);
/// The condition of an EtcdSnapshot.
const COMPLETE: &str = "Complete";

/// Why a snapshot is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The setting.
    #[error("--snapshots {url}: {problem}; write file:///DIRECTORY, a directory that this operator may write to")]
    Setting {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No setting.
    #[error("this operator keeps no snapshots: start it with --snapshots file:///DIRECTORY")]
    Nowhere,
    /// The store.
    #[error("{location}: {source}")]
    Store {
        /// Which object of it.
        location: String,
        /// Its words.
        source: object_store::Error,
    },
    /// The agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// What came, or what is stored, is not what was taken.
    #[error("{location}: {problem}")]
    NotWhole {
        /// Where.
        location: String,
        /// In what.
        problem: String,
    },
}

/// Where snapshots are kept.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    place: Option<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    store: Arc<dyn ObjectStore>,
    url: String,
    directory: PathBuf,
}

/// One snapshot's place in the store.
#[derive(Debug, Clone)]
pub struct Key {
    /// Namespace, cluster and its uid.
    folder: [String; 3],
    name: String,
}

impl Key {
    fn of(scene: &Scene, snapshot: &str) -> Self {
        let uid = scene.key.uid.clone();
        Self { folder: [scene.cluster.namespace.clone(), scene.cluster.name.clone(), uid], name: snapshot.to_owned() }
    }

    fn path(&self, kind: &str) -> Path {
        self.folder.iter().cloned().chain([format!("{}.{kind}", self.name)]).collect()
    }
}

impl SnapshotStore {
    /// By the operator's setting: `file:///DIRECTORY`, made where it is missing. `None`: there is nowhere to keep snapshots.
    pub fn open(url: Option<&str>) -> Result<Self, StoreError> {
        let Some(url) = url else { return Ok(Self { place: None }) };
        let fail = |problem: String| StoreError::Setting { url: url.to_owned(), problem };
        let directory = url.strip_prefix("file://").filter(|path| path.starts_with('/')).map(PathBuf::from);
        let directory = directory.ok_or_else(|| fail("not a URL of a directory".to_owned()))?;
        // Whoever reads a snapshot reads every Secret of its cluster.
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|e| fail(e.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(|e| fail(e.to_string()))?.with_fsync(true);
        Ok(Self { place: Some(Place { store: Arc::new(store), url: url.trim_end_matches('/').to_owned(), directory }) })
    }

    fn place(&self) -> Result<&Place, StoreError> {
        self.place.as_ref().ok_or(StoreError::Nowhere)
    }

    /// Where a snapshot's data are.
    pub fn location(&self, key: &Key) -> Result<String, StoreError> {
        Ok(self.place()?.location(&key.path("db")))
    }

    /// Stores what comes and reads it back. Where it is not whole, or another than the agent says, nothing is stored.
    pub async fn keep(
        &self,
        key: &Key,
        pieces: impl Stream<Item = Result<EtcdSnapshotPiece, AgentError>> + Unpin,
    ) -> Result<EtcdSnapshotSummary, StoreError> {
        let (place, path) = (self.place()?, key.path("db"));
        place.sweep(&path);
        let upload = place.store.put_multipart(&path).await.map_err(|source| place.failed(&path, source))?;
        let mut upload = WriteMultipart::new(upload);
        match receive(place, &path, &mut upload, pieces).await {
            Ok(summary) => {
                upload.finish().await.map_err(|source| place.failed(&path, source))?;
                place.read_back(&path, &summary).await?;
                Ok(summary)
            }
            Err(error) => {
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Stores what a snapshot is, beside its data.
    pub async fn describe(&self, key: &Key, metadata: &Value) -> Result<(), StoreError> {
        let (place, path) = (self.place()?, key.path("json"));
        let text = format!("{metadata:#}\n").into_bytes();
        place.store.put(&path, PutPayload::from(text)).await.map(drop).map_err(|source| place.failed(&path, source))
    }
}

impl Place {
    fn location(&self, path: &Path) -> String {
        format!("{}/{path}", self.url)
    }

    fn failed(&self, path: &Path, source: object_store::Error) -> StoreError {
        StoreError::Store { location: self.location(path), source }
    }

    fn not_whole(&self, path: &Path, problem: impl Into<String>) -> StoreError {
        StoreError::NotWhole { location: self.location(path), problem: problem.into() }
    }

    /// Takes away what an operator that died left half written: the local store stages `NAME#1`, `NAME#2`, … beside what it writes.
    fn sweep(&self, path: &Path) {
        let file = self.directory.join(path.as_ref());
        let (Some(parent), Some(name)) = (file.parent(), file.file_name().map(|n| format!("{}#", n.to_string_lossy()))) else { return };
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    async fn read_back(&self, path: &Path, summary: &EtcdSnapshotSummary) -> Result<(), StoreError> {
        let found = self.store.get(path).await.map_err(|source| self.failed(path, source))?;
        let mut data = found.into_stream();
        let mut sum = Sha256::new();
        while let Some(chunk) = data.next().await {
            sum.update(&chunk.map_err(|source| self.failed(path, source))?);
        }
        let stored = hex::encode(sum.finalize());
        if stored == summary.sha256 {
            return Ok(());
        }
        Err(self.not_whole(path, format!("sha256 {stored} was read back, and {} was written", summary.sha256)))
    }
}

/// Data into the upload, up to the agent's last word.
async fn receive(
    place: &Place,
    path: &Path,
    upload: &mut WriteMultipart,
    mut pieces: impl Stream<Item = Result<EtcdSnapshotPiece, AgentError>> + Unpin,
) -> Result<EtcdSnapshotSummary, StoreError> {
    let (mut sum, mut bytes) = (Sha256::new(), 0_u64);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if let Some(summary) = piece.summary {
            let came = hex::encode(sum.finalize());
            return match (came == summary.sha256, bytes == summary.bytes) {
                (true, true) => Ok(summary),
                _ => Err(place.not_whole(
                    path,
                    format!("{bytes} bytes with sha256 {came} came, and {} bytes with {} were sent", summary.bytes, summary.sha256),
                )),
            };
        }
        sum.update(&piece.data);
        bytes = bytes.saturating_add(piece.data.len() as u64);
        // Bounds what is held in memory: the store may be slower than the network.
        upload.wait_for_capacity(1).await.map_err(|source| place.failed(path, source))?;
        upload.write(&piece.data);
    }
    Err(place.not_whole(path, format!("the agent's stream ended after {bytes} bytes, before its last word")))
}

// === the object ===

fn api(context: &Context, scene: &Scene) -> Api<EtcdSnapshot> {
    Api::namespaced(context.client.clone(), &scene.cluster.namespace)
}

/// In the planner's words.
#[must_use]
pub fn facts(object: &EtcdSnapshot) -> SnapshotFacts {
    let complete = condition(object).is_some_and(|(status, _)| status == "True");
    let completed = object.status.as_ref().and_then(|s| s.completed).filter(|_| complete);
    let trouble = condition(object).filter(|_| completed.is_none()).map(|(_, message)| message.to_owned());
    SnapshotFacts { name: object.name_any(), completed, trouble }
}

/// Whether nobody has looked at it yet: then its cluster's loop is told of it.
#[must_use]
pub fn is_new(object: &EtcdSnapshot) -> bool {
    object.status.as_ref().and_then(|s| s.observed_generation).is_none()
}

fn condition(object: &EtcdSnapshot) -> Option<(&str, &str)> {
    let found = object.status.as_ref()?.conditions.iter().find(|c| c.type_ == COMPLETE)?;
    Some((&found.status, &found.message))
}

/// Takes it, if it is not complete. What hinders it stands in the object, too.
pub async fn take(context: &Context, scene: &Scene, snapshot: &str, machine: &MachineName) -> Result<(), EffectError> {
    let object = object(context, scene, snapshot).await?;
    if facts(&object).completed.is_some() {
        return Ok(());
    }
    match fetch(context, scene, &object, machine).await {
        Ok(status) => tell(context, scene, &object, status).await,
        Err(error) => {
            let status = EtcdSnapshotStatus { machine: Some(machine.to_string()), ..EtcdSnapshotStatus::default() };
            let told = tell(context, scene, &object, finding(&object, status, ("False", "Failed", &error.to_string()))).await;
            if let Err(untold) = told {
                tracing::warn!(snapshot, error = %untold, "the snapshot's status is not written");
            }
            Err(error)
        }
    }
}

/// The object, made if it is not there. Nobody owns it: it outlives the Cluster, as its data do.
async fn object(context: &Context, scene: &Scene, snapshot: &str) -> Result<EtcdSnapshot, EffectError> {
    let (api, cluster) = (api(context, scene), &scene.cluster.name);
    let fail = |doing: &str| EffectError::api(format!("{doing} EtcdSnapshot {snapshot}"));
    let found = match call(api.get_opt(snapshot)).await.map_err(fail("read"))? {
        Some(found) => found,
        None => {
            let metadata = ObjectMeta {
                name: Some(snapshot.to_owned()),
                labels: Some(BTreeMap::from([(LABEL_CLUSTER.to_owned(), cluster.clone())])),
                ..ObjectMeta::default()
            };
            let wanted = EtcdSnapshot { metadata, spec: EtcdSnapshotSpec { cluster: cluster.clone() }, status: None };
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            call(api.create(&params, &wanted)).await.map_err(fail("make"))?
        }
    };
    if found.spec.cluster == *cluster {
        return Ok(found);
    }
    Err(EffectError::Own(format!("EtcdSnapshot {snapshot} is one of cluster {}: delete it, or give it another name", found.spec.cluster)))
}

/// From the agent into the store; the object's status then.
async fn fetch(context: &Context, scene: &Scene, object: &EtcdSnapshot, machine: &MachineName) -> Result<EtcdSnapshotStatus, EffectError> {
    let gone = |what: &str| EffectError::Precondition(format!("{machine} {what}"));
    let from = scene.machines.get(machine).ok_or_else(|| gone("has no record any more"))?;
    let agent = scene.connections.get(&from.uid).ok_or_else(|| gone("is not connected"))?;
    let key = Key::of(scene, &object.name_any());
    // Before an agent works for nothing.
    let location = context.snapshots.location(&key).map_err(EffectError::own)?;
    let pieces = agent.etcd_snapshot(context.epoch).await?;
    let summary = context.snapshots.keep(&key, pieces).await.map_err(EffectError::own)?;
    let completed = second(clock::now());
    let kubernetes = from.versions.control_plane.map_or(from.versions.node.kubelet, |v| v.api_server);
    let metadata = json!({
        "namespace": scene.cluster.namespace, "cluster": scene.cluster.name, "clusterUid": scene.key.uid, "snapshot": object.name_any(),
        "machine": machine, "kubernetesVersion": kubernetes, "etcdVersion": summary.etcd_version, "revision": summary.revision,
        "keys": summary.keys, "sha256": summary.sha256, "bytes": summary.bytes, "completed": completed.to_string(),
    });
    context.snapshots.describe(&key, &metadata).await.map_err(EffectError::own)?;
    let mut message = format!("{} bytes at revision {} from {machine}", summary.bytes, summary.revision);
    let _ = write!(message, ", read back with sha256 {}", summary.sha256);
    let status = EtcdSnapshotStatus {
        machine: Some(machine.to_string()),
        location: Some(location),
        sha256: Some(summary.sha256),
        bytes: i64::try_from(summary.bytes).ok(),
        revision: Some(summary.revision),
        etcd_version: Some(summary.etcd_version),
        completed: Some(completed),
        ..EtcdSnapshotStatus::default()
    };
    Ok(finding(object, status, ("True", "Verified", &message)))
}

/// To the second, as the API keeps transition times.
fn second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn finding(object: &EtcdSnapshot, status: EtcdSnapshotStatus, (is, reason, message): (&str, &str, &str)) -> EtcdSnapshotStatus {
    let before = object.status.as_ref().map(|s| s.conditions.clone()).unwrap_or_default();
    let generation = object.metadata.generation;
    let findings = [Finding { kind: COMPLETE, status: is, reason, message }];
    EtcdSnapshotStatus {
        observed_generation: generation,
        conditions: set_conditions(&before, findings, generation, second(clock::now())),
        ..status
    }
}

async fn tell(context: &Context, scene: &Scene, object: &EtcdSnapshot, status: EtcdSnapshotStatus) -> Result<(), EffectError> {
    let name = object.name_any();
    let patch = json!({
        "apiVersion": EtcdSnapshot::api_version(&()), "kind": EtcdSnapshot::kind(&()),
        "metadata": { "name": name, "uid": object.uid() }, "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let told = call(api(context, scene).patch_status(&name, &params, &Patch::Apply(&patch))).await;
    told.map(drop).map_err(EffectError::api(format!("write the status of EtcdSnapshot {name}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::stream;

    fn key() -> Key {
        Key { folder: ["default".into(), "demo".into(), "uid-1".into()], name: "before".into() }
    }

    fn data(text: &str) -> Result<EtcdSnapshotPiece, AgentError> {
        Ok(EtcdSnapshotPiece { data: text.into(), summary: None })
    }

    fn end(text: &str) -> Result<EtcdSnapshotPiece, AgentError> {
        let sha256 = hex::encode(Sha256::digest(text));
        let summary = EtcdSnapshotSummary { sha256, bytes: text.len() as u64, revision: 7, ..EtcdSnapshotSummary::default() };
        Ok(EtcdSnapshotPiece { data: vec![], summary: Some(summary) })
    }

    fn open() -> (tempfile::TempDir, SnapshotStore) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/kept", dir.path().display());
        let store = SnapshotStore::open(Some(&url)).unwrap();
        (dir, store)
    }

    fn files(dir: &tempfile::TempDir) -> Vec<String> {
        let folder = dir.path().join("kept/default/demo/uid-1");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_comes_whole_is_stored_and_described() {
        let (dir, store) = open();
        let summary = store.keep(&key(), stream::iter([data("one"), data("two"), end("onetwo")])).await.unwrap();
        store.describe(&key(), &json!({ "revision": summary.revision })).await.unwrap();
        assert_eq!(files(&dir), ["before.db", "before.json"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("kept/default/demo/uid-1/before.db")).unwrap(), "onetwo");
        assert_eq!(store.location(&key()).unwrap(), format!("file://{}/kept/default/demo/uid-1/before.db", dir.path().display()));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(dir.path().join("kept")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn what_is_not_whole_leaves_nothing() {
        let (dir, store) = open();
        let broken = || Err(AgentError::Own("the stream broke".into()));
        for (pieces, words) in [
            (vec![data("one")], "before its last word"),
            (vec![data("one"), broken()], "the stream broke"),
            (vec![data("one"), end("other")], "3 bytes with sha256"),
        ] {
            let error = store.keep(&key(), stream::iter(pieces)).await.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(files(&dir), [""; 0]);
    }

    #[tokio::test]
    async fn what_a_dead_operator_left_half_written_is_swept_away() {
        let (dir, store) = open();
        let folder = dir.path().join("kept/default/demo/uid-1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("before.db#1"), "half").unwrap();
        std::fs::write(folder.join("before.db"), "old").unwrap();
        store.keep(&key(), stream::iter([data("new"), end("new")])).await.unwrap();
        assert_eq!(files(&dir), ["before.db"]);
        assert_eq!(std::fs::read_to_string(folder.join("before.db")).unwrap(), "new");
    }

    #[test]
    fn a_wrong_setting_is_told_with_the_right_one() {
        for url in ["s3://bucket", "file://relative", "/var/lib", "file:///proc/none"] {
            let error = SnapshotStore::open(Some(url)).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains("write file:///DIRECTORY"), "{error}");
        }
        let error = SnapshotStore::open(None).unwrap().location(&key()).unwrap_err().to_string();
        assert!(error.contains("--snapshots"), "{error}");
    }
}
