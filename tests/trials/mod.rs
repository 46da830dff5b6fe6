//! Trials: a cluster is hurt or changed on purpose while clients count. Run by `cargo xtask bench` and `cargo xtask faults`; quick ones by the suites.

pub mod failover;
pub mod faults;
pub mod upgrade;

use crate::prober::Prober;
use crate::until;
use anyhow::Result;
use std::time::Duration;

/// For how long clients must have been served without a failure before the next thing is done to a cluster.
const CALM: Duration = Duration::from_secs(2);

/// Waits until nothing has failed for a while.
pub fn calm(prober: &Prober) -> Result<()> {
    until("clients are served without failures", Duration::from_secs(60), || {
        let calm = prober.calm();
        if calm >= CALM { Ok(()) } else { Err(format!("for {:.1} s", calm.as_secs_f64())) }
    })
}
