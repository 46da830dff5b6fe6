//! What users apply and what the operator keeps: [`Cluster`], [`NodePool`], [`Machine`] and [`EtcdSnapshot`] of `slipway.dev/v1alpha1`.
//!
//! ```text
//! Cluster ── spec.pools[] ──► NodePool (one per pool: the scale subresource)
//!    └────── every machine ──► Machine (one per VM: the record of it)
//! ```
//! Validation is CEL in the definitions ([`rules`]), so that what is wrong is refused before it is stored; the YAML under `crds/yaml/` and the pages under
//! `docs/reference/` are generated from these types ([`render`]) and checked in.

pub mod reference;
pub mod render;
pub mod rules;

mod cluster;
mod cluster_status;
mod conditions;
mod machine;
mod maintenance;
mod pool;
mod progress;
mod schemas;
mod snapshot;
mod upgrade;

pub use cluster::{
    Cluster, ClusterSpec, ComponentVersions, ControlPlane, HealthCheck, LocalProvider, Network, NodeCondition, Pool, Provider, Taint,
};
pub use cluster_status::{ClusterStatus, Counts, Endpoint, EtcdMember, Ordinals, Recorded};
pub use conditions::{Finding, set_conditions};
pub use machine::{
    AgentStatus, Instance, Join, Machine, MachinePhase, MachineRole, MachineSpec, MachineStatus, ProbeStatus, Program, RefusedBuild, Stage,
    UnitStatus, VersionChange,
};
pub use maintenance::{ControlPlaneUpgrade, Maintenance, PoolUpgrade, UpgradeChecks, Window};
pub use pool::{NodePool, NodePoolSpec, NodePoolStatus};
pub use progress::{Decision, Step, Wait};
pub use render::{all, yaml};
pub use slipway_model::{Allow, DeletionPolicy, Healing, ProxyMode, Strategy, TaintEffect, Weekday};
pub use snapshot::{EtcdSnapshot, EtcdSnapshotSpec, EtcdSnapshotStatus};
pub use upgrade::{Amount, Stopped, Upgrade, Versions};

/// The API group of everything here.
pub const GROUP: &str = "slipway.dev";
/// Its only version.
pub const VERSION: &str = "v1alpha1";
/// Kubernetes versions that a Cluster may ask for: those of the artifact catalogue, oldest first.
pub const SUPPORTED: &[&str] = &["v1.35.8", "v1.36.4", "v1.37.2"];
