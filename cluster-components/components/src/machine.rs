//! Whole machines: which components, in which order, towards which apiserver.
//!
//! ```text
//! control plane   etcd ◄── kube-apiserver ◄── controller-manager, scheduler, cloud-controller-manager, kubelet, kube-proxy   (all on this machine)
//!   retiring      etcd       load balancer ◄── kubelet, kube-proxy
//! worker          load balancer ◄── kubelet, kube-proxy
//! management      etcd ◄── kube-apiserver ◄── controller-manager (a few controllers), slipway-operator
//! ```
//! All units may start at once: what needs an API is held until it answers.

use crate::kube_controller_manager::Duty;
use crate::part::{CLUSTER_CA, PKI};
use crate::{
    Artifacts, ClusterSettings, ControlPlaneDuty, ControlPlaneMachine, MachineSettings, ManagementMachine, RenderError, WorkerMachine,
    cloud_controller_manager, containerd, controllers, etcd, host, kube_apiserver, kube_controller_manager, kube_proxy, kube_scheduler,
    kubelet, operator,
};
use slipway_model::{Directory, File, GATE_PORT, Gate, MachinePlan, NodeCredentials};
use std::collections::BTreeSet;

/// The management machine's operator runs as this user.
pub const OPERATOR_USER: &str = "slipway-operator";

/// A control-plane machine: etcd, the apiserver and its controllers, and a Node. A retiring one has its member and its Node left.
pub fn control_plane(machine: &ControlPlaneMachine) -> Result<MachinePlan, RenderError> {
    let ControlPlaneMachine { cluster, machine, etcd, etcd_endpoints, credentials, cloud, duty, artifacts } = machine;
    let member = etcd::render(&machine.node, machine.address, etcd, cluster.profile.etcd, credentials, artifacts)?;
    let parts = match duty {
        ControlPlaneDuty::Serving => vec![
            member,
            kube_apiserver::render(cluster, machine.address, etcd_endpoints, credentials, artifacts)?,
            kube_controller_manager::render(Duty::Cluster, cluster, credentials, artifacts)?,
            kube_scheduler::render(cluster, credentials, artifacts)?,
            cloud_controller_manager::render(cluster, cloud, credentials, artifacts)?,
            node(cluster, machine, controllers::LOCAL_API, &credentials.node, artifacts)?,
        ],
        ControlPlaneDuty::Retiring => vec![member, node(cluster, machine, &cluster.endpoint.url(), &credentials.node, artifacts)?],
    };
    let mut plan = assemble(&credentials.node.cluster_ca, parts);
    if *duty == ControlPlaneDuty::Serving {
        // The apiserver has no other member to turn to than this machine's.
        let units = ["etcd.service", "kube-apiserver.service"].map(str::to_owned).to_vec();
        plan.gate = Some(Gate { port: GATE_PORT, units });
    }
    Ok(plan)
}

/// A worker.
pub fn worker(machine: &WorkerMachine) -> Result<MachinePlan, RenderError> {
    let WorkerMachine { cluster, machine, credentials, artifacts } = machine;
    Ok(assemble(&credentials.cluster_ca, [node(cluster, machine, &cluster.endpoint.url(), credentials, artifacts)?]))
}

/// The embedded management plane.
pub fn management(machine: &ManagementMachine) -> Result<MachinePlan, RenderError> {
    let ManagementMachine { cluster, node, address, etcd, credentials, operator, artifacts } = machine;
    let ca = &credentials.node.cluster_ca;
    let parts = [
        etcd::render(node, *address, etcd, cluster.profile.etcd, credentials, artifacts)?,
        kube_apiserver::render(cluster, *address, &crate::EtcdEndpoints::Local, credentials, artifacts)?,
        kube_controller_manager::render(Duty::Management, cluster, credentials, artifacts)?,
        operator::render(cluster, operator, ca, artifacts)?,
    ];
    Ok(assemble(ca, parts))
}

/// What makes a machine a Node.
fn node(
    cluster: &ClusterSettings,
    machine: &MachineSettings,
    api: &str,
    credentials: &NodeCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut plan = host::render(artifacts)?;
    plan.extend(containerd::render(cluster, artifacts)?);
    plan.extend(kubelet::render(cluster, machine, api, credentials, artifacts)?);
    plan.extend(kube_proxy::render(cluster, machine, api, credentials, artifacts)?);
    Ok(plan)
}

/// Puts the parts behind what all of them share. An artifact that two parts use appears once.
fn assemble(cluster_ca: &str, parts: impl IntoIterator<Item = MachinePlan>) -> MachinePlan {
    let root = |path: &str| Directory { path: path.to_owned(), mode: 0o755, owner: "root".into() };
    let ca = File { path: CLUSTER_CA.into(), mode: 0o644, owner: "root".into(), content: cluster_ca.into() };
    let mut plan = MachinePlan { directories: vec![root("/etc/kubernetes"), root(PKI)], files: vec![ca], ..MachinePlan::default() };
    parts.into_iter().for_each(|part| plan.extend(part));
    let mut seen = BTreeSet::new();
    plan.artifacts.retain(|artifact| seen.insert(artifact.name.clone()));
    plan
}
