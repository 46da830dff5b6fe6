//! The contract between operator and agent, and what both ends need to keep it.

/// The generated messages, client and server.
pub mod v1 {
    #![allow(missing_docs, clippy::all, clippy::pedantic)]
    tonic::include_proto!("slipway.agent.v1");
}
