//! The local cloud: machines on this host, the daemon that is their cloud API, and the clusters' cloud-controller-manager for it.
//!
//! Others use [`LocalClient`], which implements [`slipway_cloud_api::Cloud`] over the daemon's HTTPS API.

mod balancer;
mod client;
pub mod daemon;
mod host;
mod layout;
mod machine;
mod network;
mod records;
mod tls;
pub mod wire;

pub use client::LocalClient;
pub use host::HostError;
