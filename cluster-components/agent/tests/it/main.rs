//! The real agent, as a process: over loopback for what concerns calls, and in machines with a real systemd for what concerns the machine.
//! Machines need root, runc and systemd; the CI has them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod authority;
mod balancer;
mod calls;
mod fixture;
mod machines;
mod process;
mod snapshots;
mod updates;
mod waiting;
