//! A house for one operator: fakes around it, and a way to wait for what they show.

use crate::fake_agents::FakeAgents;
use crate::fake_api::FakeApi;
use crate::fake_cloud::FakeCloud;
use async_trait::async_trait;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use secrecy::SecretString;
use serde_json::{Value, json};
use slipway_artifacts::{Component, catalogue};
use slipway_cloud_api::CloudError;
use slipway_components::Profile;
use slipway_operator::artifacts::{AGENT, ArtifactIndex, IndexEntry, OWN_COMPONENT};
use slipway_operator::clients::{ClientError, Workloads};
use slipway_operator::context::{CloudAccess, CloudIdentities, Context};
use slipway_operator::controller;
use slipway_operator::effects::Effects;
use slipway_operator::looks::Looks;
use slipway_operator::metrics::Metrics;
use slipway_operator::snapshots::SnapshotStore;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct House {
    pub api: FakeApi,
    pub cloud: FakeCloud,
    pub agents: FakeAgents,
    pub snapshots: SnapshotStore,
    /// Where snapshots are kept.
    pub kept: tempfile::TempDir,
}

struct Identities;

#[async_trait]
impl CloudIdentities for Identities {
    async fn issue(&self, _: &str) -> Result<CloudAccess, CloudError> {
        Ok(CloudAccess {
            endpoint: "https://198.18.0.1:7450".into(),
            ca: "ca".into(),
            certificate: "cert".into(),
            key: SecretString::from("key"),
        })
    }
}

struct Inside(FakeApi);

#[async_trait]
impl Workloads for Inside {
    async fn client(&self, _: &str, _: &SecretString) -> Result<Client, ClientError> {
        Ok(self.0.client())
    }
}

fn index() -> ArtifactIndex {
    let mut entries = vec![];
    for set in catalogue::supported() {
        for &component in Component::ALL {
            for name in component.artifacts() {
                entries.push(entry(component.name(), component.version(set), name));
            }
        }
    }
    for own in [AGENT, "slipway-ccm-local"] {
        entries.push(entry(OWN_COMPONENT, "0.1.0", own));
    }
    ArtifactIndex::new(entries, "file:///opt/slipway/store/sha256")
}

fn entry(component: &str, version: &str, name: &str) -> IndexEntry {
    IndexEntry { component: component.into(), version: version.into(), name: name.into(), sha256: "ab".repeat(32), size: 1 }
}

/// An operator at work. `end` is a crash: everything it had begun is abandoned.
pub struct Operator {
    task: JoinHandle<()>,
}

impl Operator {
    pub fn end(self) {
        self.task.abort();
    }
}

impl House {
    pub fn new() -> Self {
        // RUST_LOG=debug shows every pass and effect of a test.
        if std::env::var_os("RUST_LOG").is_some() {
            let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).try_init();
        }
        let cloud = FakeCloud::default();
        let kept = tempfile::tempdir().unwrap();
        let snapshots = SnapshotStore::open(Some(&format!("file://{}", kept.path().display()))).unwrap();
        Self { api: FakeApi::new(), agents: FakeAgents::new(cloud.clone()), cloud, snapshots, kept }
    }

    pub fn operator(&self, epoch: u64, stop: &CancellationToken, effects: Effects) -> Operator {
        let client = self.api.client();
        let context = Context {
            recorder: Recorder::new(client.clone(), Reporter { controller: "test".into(), instance: None }),
            client,
            cloud: Arc::new(self.cloud.clone()),
            identities: Arc::new(Identities),
            agents: Arc::new(self.agents.clone()),
            workloads: Arc::new(Inside(self.agents.workload.clone())),
            artifacts: index(),
            agent_certificate_life: slipway_pki::AGENT_LIFE,
            snapshots: self.snapshots.clone(),
            profile: Profile::local(true),
            epoch,
            effects,
            metrics: Arc::new(Metrics::default()),
            looks: Arc::new(Looks::default()),
            step_down: CancellationToken::new(),
            workers: Semaphore::new(4),
        };
        Operator { task: tokio::spawn(controller::run(Arc::new(context), stop.clone())) }
    }

    pub fn apply(&self, control_planes: u32, workers: Option<u32>) {
        let pools = workers.map_or_else(|| json!([]), |n| json!([{"name": "workers", "replicas": n}]));
        self.api.put(
            "slipway.dev/clusters",
            "default",
            json!({
                "apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "demo"},
                "spec": {"kubernetesVersion": "v1.36.4", "provider": {"local": {}}, "controlPlane": {"replicas": control_planes}, "pools": pools},
            }),
        );
    }

    pub fn condition(&self, kind: &str) -> String {
        let cluster = self.api.get("slipway.dev/clusters", "demo").unwrap_or_default();
        let all = cluster["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().find(|c| c["type"] == kind).map_or_else(String::new, |c| c["status"].as_str().unwrap().to_owned())
    }

    pub fn machines(&self) -> Vec<Value> {
        self.api.all("slipway.dev/machines")
    }

    /// Waits until `holds`, and says what there is when it does not.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) -> Duration {
        self.within(8, what, holds).await
    }

    /// The same with more seconds of patience: etcd takes members in one after the other, five seconds apart.
    pub async fn within(&self, seconds: u64, what: &str, holds: impl Fn() -> bool) -> Duration {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > Duration::from_secs(seconds) {
                let cluster = self.api.get("slipway.dev/clusters", "demo").unwrap_or_default();
                panic!(
                    "never came: {what}\nstatus {:#}\ncloud calls {:?}\nrequests {:?}",
                    cluster["status"],
                    self.cloud.calls(),
                    self.api.requests()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begin.elapsed()
    }
}
