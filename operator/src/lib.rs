//! Slipway's operator: keeps Kubernetes clusters as their Cluster objects say.
//!
//! ```text
//! run ──► leadership ──► controller ──► one loop per Cluster ──► reconcile
//!                                                                  observe  → agents, etcd, workload, the cloud, the management API
//!                                                                  validate → the model's types
//!                                                                  compose  → render, keys: the planner's words
//!                                                                  plan     → slipway-plan, pure
//!                                                                  execute  → records, secrets, cloud, machines, membership, workload
//!                                                                  report   → statuses, events
//! ```
//! Others use [`run`] (the program), [`manifests`] and [`artifacts::render_artifacts_index`] (who installs it), and [`forecast`] (who wants to know what it would do).

pub mod agents;
mod api;
pub mod artifacts;
mod bell;
pub mod clients;
mod clock;
mod compose;
pub mod context;
pub mod controller;
pub mod effects;
pub mod etcd;
mod execute;
mod failures;
pub mod forecast;
mod http_server;
mod keys;
pub mod looks;
mod manifests;
mod memory;
pub mod metrics;
mod observe;
mod reconcile;
pub mod records;
mod render;
mod report;
pub mod run;
pub mod snapshots;
mod validate;
mod workload;

pub use manifests::{IDENTITY, NAMESPACE, manifests, manifests_yaml};
