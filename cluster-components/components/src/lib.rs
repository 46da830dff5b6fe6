//! Kubernetes' components as files, systemd units and probes: typed settings in, a [`slipway_model::MachinePlan`] out. No I/O.
//!
//! One module per component, each the whole truth about its flags; [`machine`] puts them together, [`addons`] are the objects that a new cluster is given.
//! Differences between versions stand where the flag stands, follow the version of the part that the flag belongs to, and show in the golden files,
//! one set per minor.

pub mod addons;
mod cloud_controller_manager;
mod cni;
mod containerd;
mod controllers;
mod coredns;
mod etcd;
mod host;
mod kube_apiserver;
mod kube_controller_manager;
mod kube_proxy;
mod kube_scheduler;
pub mod kubelet;
pub mod machine;
mod operator;
mod part;
mod settings;
mod unit;
pub mod user_data;

pub use operator::SNAPSHOTS as OPERATOR_SNAPSHOTS;
pub use settings::{
    ApiShutdown, Artifacts, CloudControllerManager, ClusterSettings, ControlPlaneDuty, ControlPlaneMachine, Endpoint, EtcdEndpoints,
    EtcdSettings, EtcdState, EtcdTiming, Host, Image, Images, LeaderElection, MachineSettings, ManagementMachine, NodeStart,
    OperatorSettings, Profile, RenderError, WorkerMachine,
};
