//! The cloud-controller-manager of the local cloud, as the `cloud-provider` library means it: what Kubernetes knows of machines comes from
//! the cloud's inventory.
//!
//! ```text
//!   Nodes (watch) ────────┐
//!                         ├──► decide (pure) ──► ranges, routes, patches, deletions ──► wait for the next event
//!   inventory (long poll) ┘
//! ```

pub mod decide;
pub mod ranges;
mod run;

pub use run::{CcmError, Controller};
