//! kube-controller-manager.

use crate::part::{CLUSTER_CA, Part, http};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, RenderError, controllers};
use slipway_model::{ControlPlaneCredentials, MachinePlan};

pub(crate) const USER: (&str, u32) = ("kube-controller-manager", 2381);

/// What it is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// A cluster with Nodes.
    Cluster,
    /// The management plane: no Nodes and no pods, only what custom resources, namespaces and service accounts need.
    Management,
}

/// The controllers of a management plane.
const MANAGEMENT: [&str; 6] = [
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "validatingadmissionpolicy-status-controller",
];

pub(crate) fn render(
    duty: Duty,
    cluster: &ClusterSettings,
    credentials: &ControlPlaneCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::user("kube-controller-manager", USER.0, USER.1);
    part.secret_directory();
    let (user, credential) = ("system:kube-controller-manager", &credentials.controller_manager);
    let kubeconfig = controllers::kubeconfig(&mut part, "kube-controller-manager", user, credential, cluster, &credentials.node.cluster_ca);
    let (mut args, release) = controllers::flags(&mut part, "kube-controller-manager", &kubeconfig, credential, cluster);
    let signing = part.secret("sa.key", credentials.service_account_key.clone());
    args.extend([
        "--use-service-account-credentials=true".into(),
        format!("--service-account-private-key-file={signing}"),
        format!("--root-ca-file={CLUSTER_CA}"),
    ]);
    match duty {
        Duty::Cluster => {
            let ca_key = part.secret("ca.key", credentials.cluster_ca_key.clone());
            args.extend([
                "--controllers=*".into(),
                "--cloud-provider=external".into(),
                // The cloud-controller-manager gives Nodes their pod ranges: it is up long before, and a Node is not Ready without one.
                "--allocate-node-cidrs=false".into(),
                format!("--cluster-signing-cert-file={CLUSTER_CA}"),
                format!("--cluster-signing-key-file={ca_key}"),
                // By its default of 20 requests a second a new cluster's first service accounts hold everything else back by five seconds.
                "--kube-api-qps=200".into(),
                "--kube-api-burst=400".into(),
            ]);
        }
        Duty::Management => args.push(format!("--controllers={}", MANAGEMENT.join(","))),
    }
    let mut service = Service::program("Kubernetes controller manager", "kube-controller-manager", args).run_as(USER.0);
    service.hold = controllers::hold();
    service.afterwards = Some(release);
    service.extra.push(controllers::AFTER_THE_API);
    part.finish(&service, &["kube-controller-manager"], artifacts, http("https://127.0.0.1:10257/healthz"))
}
