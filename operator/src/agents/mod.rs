//! The agents of one cluster's machines: a connection task for each, whose last word a pass reads from memory.
//!
//! ```text
//! not claimed:  dial every 100 ms ──► it answers ──► Greeted          (the planner then decides to claim)
//! claimed:      connect ──► Watch: a snapshot, then changes ──► (broken) ──► Silent since … ──► connect …
//! ```
//! A silent agent is a fact of its own, with its time and its last error; what it last said is kept beside it.

mod dial;
mod link;

pub use dial::{Agent, Agents, GrpcAgents, SignCertificate};
pub use link::{AgentPool, Hearing, Peer};
