//! Versions of what runs on a machine, the upgrade from some to others, and numbers of machines, as objects carry them.

use k8s_openapi::jiff::Timestamp;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What a machine runs, in the parts that are upgraded one after the other. All with a leading v.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Versions {
    /// etcd, on control-plane machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub etcd: Option<String>,
    /// kube-apiserver, on control-plane machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub api_server: Option<String>,
    /// kube-controller-manager, kube-scheduler and cloud-controller-manager, on control-plane machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub controllers: Option<String>,
    /// kubelet and kube-proxy.
    #[schemars(length(max = 32))]
    pub kubelet: String,
    /// containerd.
    #[schemars(length(max = 32))]
    pub containerd: String,
}

/// An upgrade of the control plane that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// What the control plane ran before.
    pub from: Versions,
    /// What it shall run.
    pub to: Versions,
    /// Name of the EtcdSnapshot that was taken before anything changed.
    pub snapshot: String,
    /// When it was begun.
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Timestamp,
    /// Why it stands still, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// Why an upgrade stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The machine that did not come back.
    pub machine: String,
    /// What of it was changed: etcd, apiServer, controllers or node.
    pub part: String,
    /// What it said.
    pub why: String,
    /// When.
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Timestamp,
}

/// A number of machines or a percentage of them, as `intstr.IntOrString`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// 2
    Int(u32),
    /// "25%"
    String(String),
}
