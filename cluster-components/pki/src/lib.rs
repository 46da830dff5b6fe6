//! A cluster's certificate authorities, and every certificate made from them.
//!
//! ```text
//! ClusterPki ── cluster CA ────── apiserver, kubelets, controller-manager, scheduler, cloud-controller-manager, kube-proxy, people
//!   │        ── etcd CA ───────── etcd servers and peers, the apiserver's etcd client       (a cluster certificate opens no etcd)
//!   │        ── front-proxy CA ── the apiserver towards aggregated APIs
//!   │        ── agent CA ──────── machine agents, and the operator towards them             (trusted by nothing of Kubernetes)
//!   └        ── service-account key pair
//! MachineLeaves: all of one machine, made once, kept in a Secret: rendered plans are compared by digest, so a certificate must not change by itself.
//! ```
//! No clock (times are arguments); randomness is rcgen's. Keys live in `secrecy` and show in neither Debug nor errors.

mod authority;
mod cluster;
mod error;
mod identity;
mod kubeconfig;
mod leaf;
mod machine;

pub use authority::{AGENT_LIFE, Authority};
pub use cluster::{ClusterPki, ServiceAccountKey};
pub use error::PkiError;
pub use identity::{AuthorityKind, Identity};
pub use kubeconfig::kubeconfig;
pub use leaf::Leaf;
pub use machine::{AdminLeaves, MachineFacts, MachineLeaves, MachineRole};

/// Name of the agent's server certificate: what the operator verifies when it dials a machine by address.
#[must_use]
pub fn agent_server_name(machine_uid: &str) -> String {
    format!("{machine_uid}.agent.slipway.internal")
}
