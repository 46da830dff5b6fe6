//! The one command: host packages, artifacts, programs, and then `slipway up`, which does the rest and says what it does.

use crate::{build, host, run};
use anyhow::Result;
use clap::Args;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Arguments of `cargo xtask quickstart`.
#[derive(Args)]
pub struct Quickstart {
    /// Removes everything that a quickstart made, the store of downloaded and built artifacts excepted.
    #[arg(long)]
    down: bool,
    /// Which cluster.
    #[arg(long, short, default_value = "examples/local-ha.yaml")]
    file: String,
    /// More arguments for `slipway up` or `slipway down`, after `--`.
    #[arg(last = true)]
    rest: Vec<String>,
}

impl Quickstart {
    /// Ends with `slipway`'s exit code.
    pub fn run(self) -> Result<ExitCode> {
        let started = Instant::now();
        let root = run::root()?;
        if !self.down {
            host::prepare()?;
        }
        println!("building Slipway (a first build takes a few minutes)");
        let bin = build::programs(build::Profile::Dev)?;
        let mut slipway = Command::new(bin.join("slipway"));
        slipway.current_dir(&root);
        if self.down {
            slipway.arg("down");
        } else {
            println!("built in {:.1} s", started.elapsed().as_secs_f64());
            slipway.args(["up", "--file", &self.file]);
        }
        let status = slipway.args(&self.rest).status()?;
        if !self.down && status.success() {
            println!(
                "quickstart: {:.1} s in all. `cargo xtask quickstart --down` takes everything away again.",
                started.elapsed().as_secs_f64()
            );
        }
        Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(5)).unwrap_or(5)))
    }
}
