//! `Machine`: the record of one machine, written before the machine is asked for. Its spec is the operator's: facts that must survive stand there.

use crate::progress::{Decision, Wait};
use crate::upgrade::Versions;
use crate::{rules, schemas};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What the machine is, and what was recorded about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slipway.dev",
    version = "v1alpha1",
    kind = "Machine",
    namespaced,
    status = "MachineStatus",
    derive = "PartialEq",
    cel,
    doc = "The record of one machine, made and kept by Slipway. Deleting a Machine means: replace that machine. Its spec is not for people to edit.",
    shortname = "ma",
    category = "slipway",
    validation = rules::machine_name(),
    selectable = ".spec.cluster",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.cluster"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.versions.kubelet"),
    printcolumn(name = "Address", type_ = "string", json_path = ".spec.instance.address"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName", priority = "1"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".spec.instance.id", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = rules::role_fits_pool(), validation = rules::instance_recorded_once(), validation = rules::recorded_once("agentKey"), validation = rules::recorded_once("join"))]
pub struct MachineSpec {
    /// Name of the Cluster in the same namespace. It cannot be changed.
    #[schemars(length(max = 30))]
    #[x_kube(validation = rules::immutable("spec.cluster"))]
    pub cluster: String,
    /// Name of its pool; cp is the control plane. It cannot be changed.
    #[schemars(length(max = 20))]
    #[x_kube(validation = rules::immutable("spec.pool"))]
    pub pool: String,
    /// What it does in the cluster. It cannot be changed.
    #[x_kube(validation = rules::immutable("spec.role"))]
    pub role: MachineRole,
    /// Its number in its pool; none is used twice. It cannot be changed.
    #[schemars(with = "i64", range(min = 0, max = 4_294_967_295_i64))]
    #[x_kube(validation = rules::immutable_number("spec.ordinal"))]
    pub ordinal: u32,
    /// What it is told to run.
    pub versions: Versions,
    /// What it was told to run before, and when that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<VersionChange>,
    /// Of what only a new machine can bring. A machine whose revision is not the wanted one is replaced.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub revision: String,
    /// How its etcd member joins a cluster that was founded before. It cannot be changed once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Join>,
    /// It is leaving the control plane and runs neither API server nor controllers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retiring: bool,
    /// Builds of Slipway's own programs that it was told to run. A new release of Slipway brings new ones, which come with the next change of the
    /// controllers' version: nothing restarts because Slipway is new.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub programs: Vec<Program>,
    /// What the cloud made for this record. It cannot be changed once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// sha256 of the public key of its agent, recorded when the agent was claimed: its one-time token is used up. It cannot be changed once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub agent_key: Option<String>,
}

/// A change of a machine's versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionChange {
    /// What it was told to run before.
    pub from: Versions,
    /// The builds of Slipway's own programs that it was told to run before: they come back with those versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub programs: Vec<Program>,
    /// When that changed, to the microsecond.
    #[schemars(schema_with = "crate::schemas::time")]
    pub at: Timestamp,
}

/// One build of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// File name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// sha256 of the file, hexadecimal.
    #[schemars(length(max = 64))]
    pub sha256: String,
    /// In bytes.
    #[schemars(with = "i64")]
    pub size: u64,
}

/// How an etcd member joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The number that etcd gave it, 16 hexadecimal digits.
    #[schemars(length(max = 16))]
    pub member: String,
    /// Addresses of all members when it was added, itself included, by machine.
    pub members: BTreeMap<String, String>,
}

/// What a machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schemas::plain_enum)]
pub enum MachineRole {
    /// Runs etcd and the control plane.
    ControlPlane,
    /// Runs pods.
    Worker,
}

/// A machine in its cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// The cloud's id of it.
    #[schemars(length(max = 253))]
    pub id: String,
    /// Its address in the cluster's network: agent, kubelet and the components listen there.
    #[schemars(length(max = 45))]
    pub address: String,
    /// The zone it was made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub zone: Option<String>,
}

/// What was last seen of the machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// metadata.generation that the rest of the status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<MachinePhase>,
    /// Name of its Node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Version of the kubelet that its Node reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// What the cloud says of the instance: Pending, Running, Stopped or Deleting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_state: Option<String>,
    /// What its agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// Its systemd units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub units: Vec<UnitStatus>,
    /// Whether its components do their work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub probes: Vec<ProbeStatus>,
    /// When it reached each stage of its making, for timelines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub stages: Vec<Stage>,
    /// Why things were done to it, the latest last: what `slipway explain` tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// What is being waited for on this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<Wait>,
    /// Ready: its Node is Ready and every unit does its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where a machine is in its life. For people and columns; nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = schemas::plain_enum)]
pub enum MachinePhase {
    /// Recorded, not made yet.
    Pending,
    /// Being made or booting.
    Booting,
    /// Its agent was claimed; components are being started.
    Configuring,
    /// Components run; the Node is not Ready yet.
    Joining,
    /// Its Node is Ready.
    Ready,
    /// It was ready, or should be by now, and is not.
    Failing,
    /// Pods are being moved away.
    Draining,
    /// It is being removed.
    Deleting,
}

impl fmt::Display for MachinePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What an agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The build that runs: sha256 of its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// The build that is on trial: it stays once it was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<String>,
    /// The build that was tried last and did not stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedBuild>,
    /// When its certificate ends. It is renewed when a third of its life is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub certificate_expires: Option<Timestamp>,
    /// sha256 of the configuration that it last accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_digest: Option<String>,
    /// sha256 of the configuration that is completely real.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_digest: Option<String>,
    /// What it is doing between the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying: Option<String>,
    /// The last failure on that way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Since when it does not answer. Without: it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub silent_since: Option<Timestamp>,
}

/// A build of the agent that did not stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefusedBuild {
    /// sha256 of its file.
    pub build: String,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Option<Timestamp>,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnitStatus {
    /// Its name, e.g. kubelet.service.
    pub name: String,
    /// systemd's word: active, activating, failed, …
    #[serde(default)]
    pub state: String,
    /// How often systemd started it again.
    #[serde(default)]
    #[schemars(with = "i32")]
    pub restarts: u32,
    /// Why it is not active, if it should be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when it is in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Option<Timestamp>,
}

/// A component's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeStatus {
    /// Which, e.g. kube-apiserver.
    pub name: String,
    /// Whether it does its work.
    #[serde(default)]
    pub healthy: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Option<Timestamp>,
}

/// A stage that a machine reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Which, e.g. claimed.
    pub name: String,
    /// When, to the microsecond.
    #[schemars(schema_with = "crate::schemas::time")]
    pub at: Timestamp,
}
