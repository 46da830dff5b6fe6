//! What runs on a cluster's machines, by the names of its processes.

/// What the units of every machine run.
pub const NODE: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];
/// What the units of a control plane run beside that.
pub const CONTROL_PLANE: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "slipway-ccm-local"];
/// What looks after those units.
pub const AGENT: &str = "slipway-agent";

/// Everything that the units of a control plane run.
pub fn of_control_plane() -> impl Iterator<Item = &'static str> {
    CONTROL_PLANE.into_iter().chain(NODE)
}
