//! `cargo xtask bench`: speed and memory, as figures and as ratios to whatever else is run in turn with Slipway.
//!
//! Nothing is asserted here: machines differ, and a ratio taken in one run says more than seconds do.

mod failover;
mod footprint;
mod plane;
mod startup;
mod upgrade;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From `kubectl apply` to all Nodes Ready.
    Startup(startup::Startup),
    /// Memory and processor time of an idle cluster's operator, agents and daemon.
    Footprint(footprint::Footprint),
    /// What clients see when a component or a control-plane machine dies.
    Failover(failover::Failover),
    /// Upgrading a whole cluster in place, and what clients see of it.
    Upgrade(upgrade::Upgrade),
}

impl Bench {
    /// Measures, prints, and writes where asked.
    pub fn run(self) -> Result<()> {
        match self.what {
            What::Startup(startup) => startup.run(),
            What::Footprint(footprint) => footprint.run(),
            What::Failover(failover) => failover.run(),
            What::Upgrade(upgrade) => upgrade.run(),
        }
    }
}

/// Where the figures go beside the terminal.
#[derive(Args)]
pub struct Publish {
    /// Replaces what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` of this file.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Writes every single measurement.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Publish {
    /// Prints the table and writes what is asked for.
    pub fn publish(&self, name: &str, table: &str, all: &serde_json::Value) -> Result<()> {
        println!("\n{table}");
        if let Some(file) = &self.json {
            std::fs::write(file, serde_json::to_vec_pretty(all)?).with_context(|| format!("cannot write {}", file.display()))?;
        }
        self.markdown.as_deref().map_or(Ok(()), |file| replace(file, name, table))
    }
}

fn replace(file: &Path, name: &str, table: &str) -> Result<()> {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parts = text.split_once(&begin).and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    let Some((head, tail)) = parts else { bail!("{} has no {begin} … {end}", file.display()) };
    std::fs::write(file, format!("{head}{begin}\n{}\n{end}{tail}", table.trim_end()))?;
    Ok(())
}

/// The middle one, or the mean of the middle two.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.is_empty() {
        f64::NAN
    } else if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(sorted.len() / 2 - 1), at(sorted.len() / 2))
    } else {
        at(sorted.len() / 2)
    }
}

/// What machine this was, in one line.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(": ")).map_or("unknown processor", |(_, m)| m);
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    let kib: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    format!("{cores} cores ({}), {} GiB, kernel {}", model.trim(), kib >> 20, read("/proc/sys/kernel/osrelease").trim())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_median_is_the_middle() {
        assert!((super::median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((super::median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(super::median(&[]).is_nan());
    }
}
