//! Commands about this host as a local cloud.

use super::StoreArgs;
use crate::duration::duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// How a local cloud is called, and its addresses.
#[derive(Debug, Clone, Args)]
pub struct CloudArgs {
    /// Prefix of everything made on this host: local clouds of different names live side by side.
    #[arg(long, env = "SLIPWAY_NAME", value_name = "PREFIX", default_value = "slw")]
    pub name: String,
    /// Addresses of the local cloud; must not be in use on this host.
    #[arg(long, env = "SLIPWAY_RANGE", value_name = "CIDR", default_value = "198.18.0.0/20")]
    pub range: String,
}

/// `slipway up`
#[derive(Debug, Args)]
pub struct Up {
    /// Clusters to bring up: a YAML file as for `kubectl apply`, `-` for standard input. Without it only the management plane starts.
    #[arg(short, long = "file", alias = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Artifact store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The local cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// How long to wait until everything is ready.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
    /// Directory of Slipway's own programs [default: where this one lies].
    #[arg(long, value_name = "DIR")]
    pub bin: Option<PathBuf>,
    /// How long the certificates of agents live; they are renewed when a third of that is left [default: a year].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub agent_certificate_life: Option<Duration>,
    /// Do not try DNS and Services in the finished cluster.
    #[arg(long)]
    pub no_check: bool,
}

/// `slipway down`
#[derive(Debug, Args)]
pub struct Down {
    /// Do not ask the management plane to delete the clusters first: take the machines away at once.
    #[arg(long)]
    pub force: bool,
    /// How long the clusters' own deletion may take.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub timeout: Duration,
    /// Remove the artifact store, too.
    #[arg(long)]
    pub purge: bool,
    /// Artifact store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// `slipway doctor`
#[derive(Debug, Args)]
#[command(mut_arg("name", |arg| arg.help("Prefix of the local cloud that shall run here")))]
#[command(mut_arg("range", |arg| arg.help("Addresses of the local cloud that shall run here")))]
pub struct Doctor {
    /// Artifact store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The local cloud.
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// `slipway local`
#[derive(Debug, Args)]
pub struct Local {
    /// What to do.
    #[command(subcommand)]
    pub command: LocalCommand,
}

/// What to do with the local cloud.
#[derive(Debug, Subcommand)]
pub enum LocalCommand {
    /// Show the daemon, and every machine and load balancer that it keeps.
    Status,
    /// Pull a machine's plug: everything in it dies at once, its disk stays.
    PowerOff {
        /// The machine.
        machine: String,
    },
    /// Start a machine that is powered off.
    Start {
        /// The machine.
        machine: String,
    },
    /// Pull a machine's plug and put it back.
    Reboot {
        /// The machine.
        machine: String,
    },
    /// Show what a machine wrote to its console.
    Console {
        /// The machine.
        machine: String,
    },
    /// Let the cloud's calls fail, replies be lost, or machines never boot. Each call replaces what was set before.
    Faults(Faults),
    /// Let the operator end right after its N-th effect, again and again; 0 calls it off.
    DieAfter {
        /// How many effects.
        #[arg(required_unless_present = "deaths")]
        effects: Option<u64>,
        /// Show how often the operator ended since.
        #[arg(long)]
        deaths: bool,
    },
}

/// `slipway local faults`
#[derive(Debug, Args)]
pub struct Faults {
    /// Share of calls that fail without effect, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub error_rate: f64,
    /// Share of calls that have their effect and whose reply is lost, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub lost_reply_rate: f64,
    /// Every call takes this much longer.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub delay: Option<Duration>,
    /// The machine of this name is made and never gets up. May be repeated.
    #[arg(long, value_name = "MACHINE")]
    pub never_boot: Vec<String>,
    /// End all faults.
    #[arg(long, conflicts_with_all = ["error_rate", "lost_reply_rate", "delay", "never_boot"])]
    pub clear: bool,
}
