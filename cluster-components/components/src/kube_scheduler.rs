//! kube-scheduler.

use crate::part::{Part, http};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, RenderError, controllers};
use slipway_model::{ControlPlaneCredentials, MachinePlan};

pub(crate) const USER: (&str, u32) = ("kube-scheduler", 2382);

pub(crate) fn render(
    cluster: &ClusterSettings,
    credentials: &ControlPlaneCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::user("kube-scheduler", USER.0, USER.1);
    part.secret_directory();
    let (user, credential) = ("system:kube-scheduler", &credentials.scheduler);
    let kubeconfig = controllers::kubeconfig(&mut part, "kube-scheduler", user, credential, cluster, &credentials.node.cluster_ca);
    let (args, release) = controllers::flags(&mut part, "kube-scheduler", &kubeconfig, credential, cluster);
    let mut service = Service::program("Kubernetes scheduler", "kube-scheduler", args).run_as(USER.0);
    service.hold = controllers::hold();
    service.afterwards = Some(release);
    service.extra.push(controllers::AFTER_THE_API);
    part.finish(&service, &["kube-scheduler"], artifacts, http("https://127.0.0.1:10259/healthz"))
}
