//! The operator as a unit of the management machine.

use crate::part::{Part, http};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, OperatorSettings, RenderError, controllers};
use slipway_model::MachinePlan;

pub(crate) const USER: (&str, u32) = (crate::machine::OPERATOR_USER, 2384);

/// Where the operator of a management machine may keep snapshots of etcd.
pub const SNAPSHOTS: &str = "/var/lib/slipway-operator";

pub(crate) fn render(
    cluster: &ClusterSettings,
    operator: &OperatorSettings,
    ca: &str,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::user("slipway-operator", USER.0, USER.1);
    let kubeconfig = controllers::kubeconfig(&mut part, "slipway-operator", "slipway-operator", &operator.credential, cluster, ca);
    part.adopt(&operator.files);
    // On the disk: they outlive every restart of the operator and of its machine.
    part.directory(SNAPSHOTS, 0o700);
    let mut service = Service::program("Slipway operator", "slipway-operator", operator.args.clone()).run_as(USER.0);
    service.environment = std::iter::once(("KUBECONFIG".to_owned(), kubeconfig)).chain(operator.environment.clone()).collect();
    service.hold = controllers::hold();
    part.finish(&service, &["slipway-operator"], artifacts, http(&operator.health_url))
}
