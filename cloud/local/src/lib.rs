//! The local cloud: machines on this host, the daemon that is their cloud API, and the clusters' cloud-controller-manager for it.
//!
//! Others use [`LocalClient`], which implements [`slipway_cloud_api::Cloud`] over the daemon's HTTPS API.

mod client;
mod tls;
pub mod wire;

pub use client::LocalClient;
