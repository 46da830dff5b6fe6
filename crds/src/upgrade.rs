//! Versions of what runs on a machine, and numbers of machines, as objects carry them.

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

/// A number of machines or a percentage of them, as `intstr.IntOrString`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// 2
    Int(u32),
    /// "25%"
    String(String),
}
