//! Commands about clusters, wherever they are.

use crate::duration::duration;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Kinds that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Clusters.
    #[value(alias = "cluster", alias = "cl")]
    Clusters,
    /// Node pools.
    #[value(alias = "pool", alias = "nodepool", alias = "nodepools", alias = "np")]
    Pools,
    /// Machines.
    #[value(alias = "machine", alias = "ma")]
    Machines,
    /// Snapshots of etcd.
    #[value(alias = "snapshot", alias = "etcdsnapshot", alias = "etcdsnapshots", alias = "es")]
    Snapshots,
}

/// `slipway get`
#[derive(Debug, Args)]
pub struct Get {
    /// What to list.
    #[arg(value_enum, default_value_t = Kind::Clusters)]
    pub kind: Kind,
    /// Only this one.
    pub name: Option<String>,
    /// Only those of this cluster.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// In every namespace.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// `slipway describe`
#[derive(Debug, Args)]
pub struct Describe {
    /// The cluster.
    pub name: String,
    /// Show when each machine reached each stage instead.
    #[arg(long)]
    pub timeline: bool,
    /// Write the timeline as a picture, too.
    #[arg(long, value_name = "FILE", requires = "timeline")]
    pub svg: Option<PathBuf>,
}

/// `slipway kubeconfig`
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The cluster.
    pub name: String,
    /// Merge it into ~/.kube/config (or --path) and make it the current context.
    #[arg(long, conflicts_with = "print")]
    pub merge: bool,
    /// Print it instead of writing a file.
    #[arg(long)]
    pub print: bool,
    /// The file to write or merge into [default: STATE/NAME.kubeconfig; with --merge: $KUBECONFIG's first, else ~/.kube/config].
    #[arg(long, value_name = "FILE", conflicts_with = "print")]
    pub path: Option<PathBuf>,
}

/// `slipway wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// The cluster.
    pub name: String,
    /// `condition=TYPE`, `condition=TYPE=False`, or `deleted`.
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready")]
    pub until: String,
    /// How long to wait.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// `slipway logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The machine.
    pub machine: String,
    /// The unit, e.g. `kubelet` or `etcd.service`; `slipway-agent` for the agent itself.
    pub unit: String,
    /// How many of the past lines to show.
    #[arg(short = 'l', long, value_name = "N", default_value_t = 100)]
    pub lines: u32,
    /// Go on with new lines as they come.
    #[arg(short, long)]
    pub follow: bool,
}

/// `slipway plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// The file that would be applied, `-` for standard input.
    #[arg(short, long = "file", alias = "filename", value_name = "FILE", required_unless_present = "name", conflicts_with = "name")]
    pub file: Option<PathBuf>,
    /// Instead of a file: a cluster that is there, as its object is now.
    pub name: Option<String>,
}

/// `slipway upgrade`
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The cluster.
    pub name: String,
    /// The Kubernetes version, e.g. v1.37.2. The version that it comes from calls an unfinished upgrade off.
    #[arg(long, value_name = "VERSION")]
    pub to: String,
    /// Do not ask before anything is changed.
    #[arg(short, long)]
    pub yes: bool,
    /// How long to watch. What was begun goes on afterwards.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    pub timeout: Duration,
}

/// `slipway explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// `cluster/NAME` or `machine/NAME`.
    pub object: String,
}

/// `slipway events`
#[derive(Debug, Args)]
pub struct Events {
    /// The cluster.
    pub name: String,
}
