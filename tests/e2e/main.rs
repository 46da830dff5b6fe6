//! Whole clusters of real programs, made, used, hurt and taken away as users do. Run by `cargo xtask test --only e2e`, one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod agents;
mod cli;
mod control_plane;
mod crash;
mod faults;
mod ha;
mod lifecycle;
mod side_by_side;
mod snapshots;
mod table;
mod upgrade;
mod workload;

/// Whether what takes longer is asked for too.
fn full() -> bool {
    std::env::var_os("SLIPWAY_TEST_FULL").is_some()
}
