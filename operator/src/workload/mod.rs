//! The way into a workload cluster: one link per cluster that keeps what its API says in memory, so that a pass never waits for an API that hangs.
//!
//! ```text
//! connect ──► list nodes ──► watch ──► (broken) ──► list nodes …
//!              every 30 s again: `as_of` says how old the picture is
//! ```
//! The picture is trimmed at once: a Node with its list of images is 20 KiB, what is needed of it is 500 bytes.

mod link;
mod node;

pub use link::{ADDONS, Picture, View, WorkloadDoor, WorkloadLink};
pub use node::{NodeFacts, PodCount};
