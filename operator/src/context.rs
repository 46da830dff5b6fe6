//! What every cluster's loop shares: ways to the outside, settings, and nothing that changes by itself.

use crate::agents::Agents;
use crate::artifacts::ArtifactIndex;
use crate::clients::Workloads;
use crate::effects::Effects;
use crate::looks::Looks;
use crate::metrics::Metrics;
use crate::snapshots::SnapshotStore;
use async_trait::async_trait;
use jiff::SignedDuration;
use kube::Client;
use kube::runtime::events::Recorder;
use secrecy::SecretString;
use slipway_cloud_api::{Cloud, CloudError};
use slipway_components::Profile;
use slipway_local::LocalClient;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// On everything of a cluster: its name.
pub const LABEL_CLUSTER: &str = "slipway.dev/cluster";
/// On everything of a pool: its name, `cp` for the control plane.
pub const LABEL_POOL: &str = "slipway.dev/pool";
/// On everything of a machine: its name.
pub const LABEL_MACHINE: &str = "slipway.dev/machine";
/// Our finalizer, on Clusters, NodePools, Machines and the PKI Secrets.
pub const FINALIZER: &str = "slipway.dev/operator";
/// Field manager of every write.
pub const FIELD_MANAGER: &str = "slipway-operator";
/// Port of every cluster's API.
pub const API_PORT: u16 = 6443;

/// A Cluster object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ClusterRef {
    /// By namespace and name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// What a cluster's cloud-controller-manager needs to reach its cloud.
#[derive(Clone)]
pub struct CloudAccess {
    /// `https://address:port`.
    pub endpoint: String,
    /// Authority of the cloud's API, PEM.
    pub ca: String,
    /// Client certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: SecretString,
}

/// Hands out the identities of clusters' cloud-controller-managers.
#[async_trait]
pub trait CloudIdentities: Send + Sync {
    /// A new one for a cluster.
    async fn issue(&self, cluster_uid: &str) -> Result<CloudAccess, CloudError>;
}

/// The local cloud's daemon signs them itself.
pub struct LocalIdentities {
    /// The daemon's client, with the operator's rights.
    pub client: LocalClient,
    /// Where cluster machines reach the daemon: `https://IP:PORT`.
    pub endpoint: String,
}

#[async_trait]
impl CloudIdentities for LocalIdentities {
    async fn issue(&self, cluster_uid: &str) -> Result<CloudAccess, CloudError> {
        let issued = self.client.issue_certificate(&format!("ccm:{cluster_uid}")).await?;
        Ok(CloudAccess { endpoint: self.endpoint.clone(), ca: issued.ca, certificate: issued.cert, key: SecretString::from(issued.key) })
    }
}

/// Shared by all loops.
pub struct Context {
    /// The management API.
    pub client: Client,
    /// Machines, load balancers, networks.
    pub cloud: Arc<dyn Cloud>,
    /// Identities of cloud-controller-managers.
    pub identities: Arc<dyn CloudIdentities>,
    /// Ways to agents.
    pub agents: Arc<dyn Agents>,
    /// Ways into workload clusters.
    pub workloads: Arc<dyn Workloads>,
    /// What can be installed.
    pub artifacts: ArtifactIndex,
    /// How long certificates of agents live.
    pub agent_certificate_life: SignedDuration,
    /// Where snapshots of etcd are kept.
    pub snapshots: SnapshotStore,
    /// What suits the place where machines run.
    pub profile: Profile,
    /// Number of this operator's term: fences what an earlier leader may still send.
    pub epoch: u64,
    /// Writes events.
    pub recorder: Recorder,
    /// Counts effects.
    pub effects: Effects,
    /// Counts everything else.
    pub metrics: Arc<Metrics>,
    /// What the last pass over each cluster saw.
    pub looks: Arc<Looks>,
    /// Called when another operator leads: this process must end.
    pub step_down: CancellationToken,
    /// How many passes may run at once.
    pub workers: Semaphore,
}
