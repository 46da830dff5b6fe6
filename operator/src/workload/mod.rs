//! The way into a workload cluster: one link per cluster that keeps what its API says in memory, so that a pass never waits for an API that hangs.
//!
//! ```text
//! connect ──► list nodes ──► watch ──► (broken) ──► list nodes …
//!              every 30 s again: `as_of` says how old the picture is
//! ```
//! Pods are listed of Nodes that are being drained, by name; volumes once pods of a Node whose machine goes have left. Nothing else costs a request.
//!
//! The picture is trimmed at once: a Node with its list of images is 20 KiB, what is needed of it is 500 bytes.

mod link;
mod node;
mod volumes;

pub use link::{ADDONS, Drains, Picture, View, WorkloadDoor, WorkloadLink};
pub use node::{NodeFacts, PodCount};
pub use volumes::attached;
