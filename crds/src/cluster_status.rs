//! What was last seen of a Cluster, and what is recorded about it.

use crate::progress::{Decision, Step, Wait};
use crate::schemas;
use crate::upgrade::Upgrade;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What was last seen of the cluster, and what was recorded about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// metadata.generation that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: all that the spec asks for is there and works. InfrastructureReady: network, load balancer and every machine exist. ControlPlaneAvailable: the
    /// API answers. EtcdHealthy: every member is healthy. WorkersReady: every wanted worker has a Ready Node. UpToDate: every machine runs what the spec says.
    /// Progressing: something is being changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
    /// Where its API is reached, e.g. https://198.18.1.2:6443.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The Kubernetes version that its API servers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub kubernetes_version: Option<String>,
    /// The build of the agent that new machines get and the others are brought to: sha256 of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_build: Option<String>,
    /// Control-plane machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<Counts>,
    /// Worker machines of all pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Counts>,
    /// What is being done now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What is being waited for: on which machine, since when, the last error, the next try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Members of etcd, as a quorum of them says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub etcd_members: Vec<EtcdMember>,
    /// Why things were done, the latest last: what `slipway explain` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Facts that Slipway wrote down before it acted on them. They are not to be edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// A member of etcd.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EtcdMember {
    /// etcd's number of it, 16 hexadecimal digits.
    pub id: String,
    /// Its machine; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// Leader, Follower, Learner, or Silent where it does not answer.
    #[serde(default)]
    pub role: String,
    /// Version of its program, where it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub version: Option<String>,
}

/// Machines of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Those that are ready.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub ready: u32,
    /// Those that are wanted.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub wanted: u32,
    /// Both as text, e.g. 2/3.
    #[serde(default)]
    pub summary: String,
}

impl Counts {
    /// `ready` of `wanted`.
    #[must_use]
    pub fn new(ready: u32, wanted: u32) -> Self {
        Self { ready, wanted, summary: format!("{ready}/{wanted}") }
    }
}

/// What the operator recorded about a cluster. It changes only by compare-and-swap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The load balancer's address. It never changes once it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Machines whose etcd members found the cluster, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<String>,
    /// Their addresses when etcd first had a quorum. What founders are told names all of them, for as long as one of them is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub founder_addresses: BTreeMap<String, String>,
    /// Whether etcd ever had a quorum. From then on nothing is founded again.
    #[serde(default)]
    pub bootstrapped: bool,
    /// Machine numbers that each pool (cp for the control plane) has used. None is used twice.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ordinals: BTreeMap<String, Ordinals>,
    /// The upgrade that was begun and is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
}

/// An address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address or name.
    pub host: String,
    /// TCP port.
    #[schemars(with = "i32", range(min = 1, max = 65_535))]
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

/// Machine numbers of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ordinals {
    /// Below this, every number has had its Machine or never will.
    #[serde(default)]
    #[schemars(with = "i64")]
    pub settled: u32,
    /// The first number that was never handed out.
    #[serde(default)]
    #[schemars(with = "i64")]
    pub next: u32,
}
