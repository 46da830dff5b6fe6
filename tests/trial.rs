//! `slipway-trial`: hurts clusters and changes them while clients count, and writes what was seen as JSON. `cargo xtask bench` and `cargo xtask faults`
//! run it and make tables.

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use slipway_tests::trials::{failover, faults, upgrade};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "slipway-trial", about = "Clusters under trial")]
struct Args {
    /// Where the findings go, as JSON.
    #[arg(long)]
    json: PathBuf,
    /// Where logs are kept.
    #[arg(long)]
    logs: PathBuf,
    #[command(subcommand)]
    trial: Trial,
}

#[derive(Subcommand)]
enum Trial {
    /// Lets each kind of thing die.
    Failover {
        /// How often each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Kubernetes version.
        #[arg(long, default_value = "v1.36.4")]
        version: String,
        /// Seconds for which the client with one request under way waits for an answer.
        #[arg(long, default_value = "1", value_parser = seconds)]
        patience: Duration,
        /// Only this dies, named as in the table; again for more.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Hurts a cluster in every way that is known.
    Faults {
        /// Only this one; again for more.
        #[arg(long)]
        only: Vec<String>,
        /// Only the quick half, and shorter.
        #[arg(long)]
        quick: bool,
    },
    /// Upgrades clusters in place.
    Upgrade {
        /// How many clusters, one after the other.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Kubernetes version before.
        #[arg(long, default_value = "v1.36.4")]
        from: String,
        /// Kubernetes version after.
        #[arg(long, default_value = "v1.37.2")]
        to: String,
        /// etcd's version before.
        #[arg(long, default_value = "v3.6.14")]
        etcd_from: String,
        /// etcd's version after.
        #[arg(long, default_value = "v3.6.14")]
        etcd_to: String,
    },
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = Duration::try_from_secs_f64(text.parse()?)?;
    ensure!(!seconds.is_zero(), "a client without patience sees nothing");
    Ok(seconds)
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.logs).with_context(|| format!("cannot make {}", args.logs.display()))?;
    let found = match args.trial {
        Trial::Failover { rounds, version, patience, only } => {
            serde_json::to_vec_pretty(&failover::run(&failover::Way { version, rounds, patience, only }, &args.logs)?)?
        }
        Trial::Faults { only, quick } => serde_json::to_vec_pretty(&faults::run(&only, quick, &args.logs)?)?,
        Trial::Upgrade { rounds, from, to, etcd_from, etcd_to } => {
            serde_json::to_vec_pretty(&upgrade::run(&upgrade::Way { from, to, etcd_from, etcd_to }, rounds, &args.logs)?)?
        }
    };
    std::fs::write(&args.json, found).with_context(|| format!("cannot write {}", args.json.display()))
}
