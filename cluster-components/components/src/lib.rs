//! Kubernetes' components as files, systemd units and probes: typed settings in, a [`slipway_model::MachinePlan`] out. No I/O.

pub mod addons;
pub mod kubelet;
pub mod machine;
mod settings;

pub use settings::{
    ApiShutdown, Artifacts, CloudControllerManager, ClusterSettings, ControlPlaneMachine, Endpoint, EtcdEndpoints, EtcdSettings, EtcdState,
    EtcdTiming, Host, Image, Images, LeaderElection, MachineSettings, ManagementMachine, OperatorSettings, Profile, RenderError,
    WorkerMachine,
};
