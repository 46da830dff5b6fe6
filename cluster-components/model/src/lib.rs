//! The plain types that all of Slipway shares: names, versions, networks, what a validated cluster is, and what a machine is told to be.
//!
//! ```text
//! Cluster object ──validate──► ClusterSpec ──plan──► actions
//!                                   └──render──► MachinePlan ──agent──► files, units, probes
//! ```
//! A leaf: no I/O, no clock, nothing of Kubernetes' API types. Whatever stands here has been parsed and needs no second check.

mod cluster;
mod credentials;
mod machine;
mod names;
mod network;
mod upgrade;
mod version;
mod versions;

pub use cluster::{ClusterSpec, ControlPlane, DeletionPolicy, Pace, Pool, Provider, Taint, TaintEffect};
pub use credentials::{ControlPlaneCredentials, Credential, NodeCredentials};
pub use machine::{
    ArtifactRef, Content, Directory, File, GATE_PORT, Gate, MachinePlan, PlanDigest, Probe, ProbeKind, Unit, UnitState, User,
};
pub use names::{ClusterName, MachineName, NameError, PoolName};
pub use network::{Network, NetworkError, ProxyMode};
pub use upgrade::{Allow, Amount, Healing, HealthCheck, Maintenance, NodeConditionLimit, PoolUpgrade, Strategy, Weekday, Window};
pub use version::{KubernetesVersion, VersionError};
pub use versions::{ComponentVersion, ComponentVersionError, ControlPlaneVersions, MachineVersions, NodeVersions, Part};
