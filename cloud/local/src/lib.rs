//! The local cloud: machines on this host, the daemon that is their cloud API, and the clusters' cloud-controller-manager for it.
//!
//! Others use [`LocalClient`], which implements [`slipway_cloud_api::Cloud`] over the daemon's HTTPS API.

mod balancer;
pub mod ccm;
mod client;
pub mod daemon;
pub mod doctor;
mod host;
mod layout;
pub mod leader;
mod leftovers;
mod machine;
mod network;
mod records;
mod remove;
mod tls;
pub mod wire;

pub use client::LocalClient;
pub use host::HostError;
pub use layout::Layout;
pub use leftovers::leftovers;
// A test of what runs in a machine makes one without the daemon.
pub use machine::{image, spec};
pub use remove::remove;
