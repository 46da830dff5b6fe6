//! What whole-system suites share: a management plane of their own, programs run as a user runs them, and waiting that says for what.
//!
//! Black boxes only: `slipway` and `kubectl` are called as anybody would, and what is asserted is what anybody could see.

#![allow(clippy::indexing_slicing)] // test code: JSON is indexed by name, and what is missing is null

pub mod api;
pub mod cluster;
pub mod history;
mod leaks;
pub mod net;
mod plane;
pub mod prober;
pub mod programs;
pub mod skew;
pub mod trials;
mod wait;
pub mod writers;

pub use leaks::{Process, processes};
pub use plane::{Finished, Plane};
pub use wait::until;
