//! The contract between operator and agent, and what both ends need to keep it.
//!
//! ```text
//! operator ── AgentClient::connect_unclaimed ─► GetInfo, Claim, Install      (TLS 1.3, the token proves both ends, bound to the session)
//!          ── AgentClient::connect ───────────► everything else              (mTLS: the cluster's agent CA proves both ends)
//! ```
//! `claim` and `refusal` are spoken by both ends; `client` is the operator's. The agent's end is the crate `slipway-agent`.

mod any_certificate;
pub mod claim;
pub mod client;
mod error;
mod noting;
pub mod refusal;
mod tls;
mod tunnel;

pub use any_certificate::AnyCertificate;
pub use client::{AgentClient, UnclaimedAgent};
pub use error::{AgentError, ErrorClass};
pub use tls::OperatorIdentity;
pub use tunnel::TunnelStream;

/// The generated messages, client and server.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("slipway.agent.v1");
}

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// Port of every agent.
pub const AGENT_PORT: u16 = 7443;

/// Bytes of the largest message that either end takes. A plan with all its files is about a quarter of a megabyte.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Common name of the only client certificate that agents hear.
pub const OPERATOR_COMMON_NAME: &str = "slipway-operator";

/// Name in an unclaimed agent's self-signed certificate. It proves nothing, and tells a caller that expects a claimed agent what it met.
pub const UNCLAIMED_SERVER_NAME: &str = "unclaimed.agent.slipway.internal";

/// Name in a claimed agent's certificate: what the operator verifies when it dials a machine by address.
#[must_use]
pub fn server_name(machine_uid: &str) -> String {
    format!("{machine_uid}.agent.slipway.internal")
}
