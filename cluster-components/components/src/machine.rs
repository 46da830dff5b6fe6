//! Whole machines.

use crate::{ControlPlaneMachine, ManagementMachine, RenderError, WorkerMachine};
use slipway_model::MachinePlan;

/// The management machine's operator runs as this user.
pub const OPERATOR_USER: &str = "slipway-operator";

/// A control-plane machine: etcd, the apiserver and its controllers, and a Node.
pub fn control_plane(_machine: &ControlPlaneMachine) -> Result<MachinePlan, RenderError> {
    Ok(MachinePlan::default())
}

/// A worker.
pub fn worker(_machine: &WorkerMachine) -> Result<MachinePlan, RenderError> {
    Ok(MachinePlan::default())
}

/// The embedded management plane.
pub fn management(_machine: &ManagementMachine) -> Result<MachinePlan, RenderError> {
    Ok(MachinePlan::default())
}
