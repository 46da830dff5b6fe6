//! What a cloud must be able to do for Slipway, and nothing about how.
//!
//! Every call is safe to repeat: creating is keyed by the machine's UID, deleting what is gone succeeds. Everything a cloud holds for a
//! cluster carries the cluster's UID, so that [`Cloud::inventory`] finds it even where a status write was lost.

use async_trait::async_trait;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use slipway_model::{ClusterName, MachineName};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Whose resources: the UID is what counts, the name is for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterKey {
    /// `metadata.uid` of the Cluster.
    pub uid: String,
    /// Its name.
    pub name: ClusterName,
}

/// All that a cloud holds for one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The network that the machines share.
    pub network: Option<NetworkState>,
    /// The load balancer before the API servers.
    pub load_balancer: Option<LoadBalancerState>,
    /// Machines, deleted ones excepted.
    pub instances: Vec<Instance>,
}

/// A cluster's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkState {
    /// The cloud's name for it.
    pub id: String,
    /// Range of the machines' addresses.
    pub cidr: Ipv4Net,
    /// Pod routes in its route table.
    pub routes: Vec<Route>,
}

/// Packets for a Node's pods go to that machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The Node's podCIDR.
    pub destination: Ipv4Net,
    /// The machine's instance id.
    pub instance_id: String,
}

/// A TCP load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerState {
    /// The cloud's name for it.
    pub id: String,
    /// Where clients connect. Never changes in its life.
    pub address: Ipv4Addr,
    /// What clients connect to.
    pub port: u16,
    /// Instances that it was told of, sorted.
    pub targets: Vec<String>,
    /// Whether it forwards by now.
    pub ready: bool,
    /// Why it does not, where the cloud knows.
    pub trouble: Option<String>,
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InstanceState {
    /// Being made.
    Pending,
    /// Its operating system was started.
    Running,
    /// Powered off; its disk is intact.
    Stopped,
    /// Being removed.
    Deleting,
}

/// A machine as its cloud sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The cloud's name for it, never used twice.
    pub id: String,
    /// The Machine it was made for.
    pub name: MachineName,
    /// `metadata.uid` of that Machine.
    pub machine_uid: String,
    /// Where it is in its life.
    pub state: InstanceState,
    /// Its address in the cluster's network, known from the first answer on.
    pub address: Ipv4Addr,
    /// Failure domain.
    pub zone: String,
    /// What kind of machine it is.
    pub instance_type: String,
    /// `spec.providerID` of its Node.
    pub provider_id: String,
    /// Why it is not what it should be, where the cloud knows.
    pub trouble: Option<String>,
}

/// Asks for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceRequest {
    /// The cluster.
    pub cluster: ClusterKey,
    /// The Machine's name: host name and tag.
    pub name: MachineName,
    /// The Machine's UID: the idempotency key. The same UID gives the same instance, and never a second one.
    pub machine_uid: String,
    /// Failure domain, or the cloud chooses.
    pub zone: Option<String>,
    /// A POSIX shell script that root runs once, at the first boot.
    pub user_data: String,
}

/// Asks for a load balancer on `port`, forwarding to the targets' `port`, with an HTTPS GET of `/readyz` as its check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerRequest {
    /// The cluster.
    pub cluster: ClusterKey,
    /// Front and back port.
    pub port: u16,
}

/// What the caller of a failed call should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ErrorClass {
    /// Ask again after a while: the call may or may not have had its effect.
    Retry,
    /// Something must happen first: a quota, a capacity, a dependency still being deleted.
    Wait,
    /// The same call will never succeed.
    Terminal,
}

/// Why a cloud did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{call}: {message}")]
#[serde(rename_all = "camelCase")]
pub struct CloudError {
    /// The call, e.g. `create instance demo-cp-0`.
    pub call: String,
    /// What to do.
    pub class: ErrorClass,
    /// What happened and, where somebody can do something, what.
    pub message: String,
    /// When to ask again, where the cloud says so.
    pub retry_after: Option<Duration>,
}

impl CloudError {
    /// A failure that may pass by itself.
    pub fn retry(call: impl Into<String>, message: impl ToString) -> Self {
        Self { call: call.into(), class: ErrorClass::Retry, message: message.to_string(), retry_after: None }
    }

    /// A failure that will stay.
    pub fn terminal(call: impl Into<String>, message: impl ToString) -> Self {
        Self { call: call.into(), class: ErrorClass::Terminal, message: message.to_string(), retry_after: None }
    }

    /// A failure that ends when something else is done.
    pub fn wait(call: impl Into<String>, message: impl ToString) -> Self {
        Self { call: call.into(), class: ErrorClass::Wait, message: message.to_string(), retry_after: None }
    }
}

/// A cloud. Calls start things and return; progress is seen in the inventory.
#[async_trait]
pub trait Cloud: Send + Sync {
    /// Everything there is for a cluster.
    async fn inventory(&self, cluster: &ClusterKey) -> Result<Inventory, CloudError>;

    /// Returns after something of the cluster's may have changed, or after `at_most`. Only a trigger: the truth is in the inventory.
    async fn changed(&self, cluster: &ClusterKey, at_most: Duration) -> Result<(), CloudError>;

    /// Makes the network, or finds it.
    async fn ensure_network(&self, cluster: &ClusterKey) -> Result<NetworkState, CloudError>;

    /// Makes the load balancer, or finds it. Needs the network.
    async fn ensure_load_balancer(&self, request: &LoadBalancerRequest) -> Result<LoadBalancerState, CloudError>;

    /// Sets the instances that the load balancer forwards to: the whole list.
    async fn set_targets(&self, cluster: &ClusterKey, targets: &[String]) -> Result<(), CloudError>;

    /// Makes an instance, or finds the one made for this Machine. Needs the network.
    async fn create_instance(&self, request: &InstanceRequest) -> Result<Instance, CloudError>;

    /// Starts a stopped instance again.
    async fn start_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError>;

    /// Removes an instance, its disk and its routes.
    async fn delete_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError>;

    /// Removes the load balancer.
    async fn delete_load_balancer(&self, cluster: &ClusterKey) -> Result<(), CloudError>;

    /// Removes the network and its routes. Refused (`Wait`) while something is in it.
    async fn delete_network(&self, cluster: &ClusterKey) -> Result<(), CloudError>;
}
