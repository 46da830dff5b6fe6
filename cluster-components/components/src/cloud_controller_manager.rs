//! The cloud's controller manager: initialises Nodes, gives them their pod ranges, deletes those of deleted machines, programs pod routes.

use crate::part::{Part, http};
use crate::unit::Service;
use crate::{Artifacts, CloudControllerManager, ClusterSettings, RenderError, controllers};
use slipway_model::{ControlPlaneCredentials, MachinePlan};

pub(crate) const USER: (&str, u32) = ("cloud-controller-manager", 2383);
const HEALTH: &str = "127.0.0.1:10258";

pub(crate) fn render(
    cluster: &ClusterSettings,
    cloud: &CloudControllerManager,
    credentials: &ControlPlaneCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::user("cloud-controller-manager", USER.0, USER.1);
    part.secret_directory();
    let (user, credential) = ("system:cloud-controller-manager", &credentials.cloud_controller_manager);
    let kubeconfig =
        controllers::kubeconfig(&mut part, "cloud-controller-manager", user, credential, cluster, &credentials.node.cluster_ca);
    let (program, args) = match cloud {
        CloudControllerManager::Local { cluster_uid, daemon, ca, credential } => {
            let ca = part.secret("cloud-ca.crt", ca.clone());
            let (certificate, key) = part.pair("cloud", credential);
            let args = vec![
                format!("--kubeconfig={kubeconfig}"),
                format!("--cluster-uid={cluster_uid}"),
                format!("--daemon={daemon}"),
                format!("--ca={ca}"),
                format!("--cert={certificate}"),
                format!("--key={key}"),
                format!("--cluster-cidr={}", cluster.network.pod_cidr),
                format!("--node-cidr-mask-size={}", cluster.network.node_mask()),
                format!("--health-address={HEALTH}"),
                "--leader-elect".into(),
            ];
            ("slipway-ccm-local", args)
        }
    };
    let mut service = Service::program("Kubernetes cloud controller manager", program, args).run_as(USER.0);
    service.hold = controllers::hold();
    part.finish(&service, &[program], artifacts, http(&format!("http://{HEALTH}/healthz")))
}
