//! The command line: what can be typed, and the help that goes with it. docs/reference/cli.md is made from here.

use crate::duration::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Whole Kubernetes clusters, as one resource.
#[derive(Debug, Parser)]
#[command(name = "slipway", version, about, propagate_version = true, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    /// Flags that every command understands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done or nothing to do, 2 usage, 3 refused (nothing was changed), 4 timed out, 5 failed, 6 `plan` would change something.
Works as a kubectl plug-in too: put this program, or a link to it, on the PATH as kubectl-slipway.";

/// Flags that every command understands.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// How to print what a command finds.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, help_heading = "Global options")]
    pub output: Format,
    /// Where the local cloud and the embedded management plane live [default: ~/.local/share/slipway].
    #[arg(long, global = true, env = "SLIPWAY_STATE", value_name = "DIR", help_heading = "Global options")]
    pub state: Option<PathBuf>,
    /// Kubeconfig of the management cluster [default: STATE/management.kubeconfig where there is one, else kubectl's rules].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of that kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub context: Option<String>,
    /// Namespace of the Clusters [default: the context's, else default].
    #[arg(short, long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub namespace: Option<String>,
}

/// How to print what a command finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and trees.
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Where the artifact store is.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Where artifacts are kept, by digest [default: ~/.cache/slipway/store].
    #[arg(long, env = "SLIPWAY_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the local cloud with its management plane, and bring up a cluster.
    Up(Up),
    /// Remove the local cloud, its management plane and every cluster in it.
    Down(Down),
    /// Check that this host can be a local cloud. Changes nothing.
    Doctor(Doctor),
    /// List clusters, pools, machines or snapshots.
    Get(Get),
    /// Show a cluster as a tree: pools, machines, units, and the reason of every wait.
    Describe(Describe),
    /// Write, merge or print the kubeconfig of a cluster.
    Kubeconfig(Kubeconfig),
    /// Wait until a cluster is as asked.
    Wait(Wait),
    /// Read the journal of a unit of a machine.
    Logs(Logs),
    /// Say what applying a file would do, step by step, without doing it.
    Plan(Plan),
    /// Bring a cluster to another Kubernetes version, and watch it go there.
    Upgrade(Upgrade),
    /// Say why things were done to a cluster or a machine, and what it waits for.
    Explain(Explain),
    /// Show what happened to a cluster and its machines.
    Events(Events),
    /// Look after the programs and images that clusters are made of.
    Artifacts(Artifacts),
    /// Print the completion script of a shell.
    Completion(Completion),
    /// Print the versions of this program and of the Kubernetes versions it knows.
    Version,
    /// Look into the local cloud, and break things in it to see them heal.
    Local(Local),
    /// Print the reference of this command line as Markdown, or write it to a file.
    #[command(hide = true)]
    CliDocs(CliDocs),
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
    /// Prefix of everything made on this host: local clouds of different names live side by side.
    #[arg(long, env = "SLIPWAY_NAME", value_name = "PREFIX", default_value = "slw")]
    pub name: String,
    /// Addresses of the local cloud; must not be in use on this host.
    #[arg(long, env = "SLIPWAY_RANGE", value_name = "CIDR", default_value = "198.18.0.0/20")]
    pub range: String,
    /// How long to wait until everything is ready.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
    /// Directory of Slipway's own programs [default: where this one lies].
    #[arg(long, value_name = "DIR")]
    pub bin: Option<PathBuf>,
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
pub struct Doctor {
    /// Artifact store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Prefix of the local cloud that shall run here.
    #[arg(long, env = "SLIPWAY_NAME", value_name = "PREFIX", default_value = "slw")]
    pub name: String,
    /// Addresses of the local cloud that shall run here.
    #[arg(long, env = "SLIPWAY_RANGE", value_name = "CIDR", default_value = "198.18.0.0/20")]
    pub range: String,
}

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

/// `slipway artifacts`
#[derive(Debug, Args)]
pub struct Artifacts {
    /// Artifact store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What to do with them.
    #[command(subcommand)]
    pub command: ArtifactsCommand,
}

/// What to do with artifacts.
#[derive(Debug, Subcommand)]
pub enum ArtifactsCommand {
    /// Show what a version consists of, and what of it is in the store.
    List {
        /// Kubernetes version or minor [default: all known].
        #[arg(value_name = "VERSION")]
        kubernetes: Option<String>,
    },
    /// Bring what a version consists of into the store.
    Fetch {
        /// Kubernetes version or minor [default: the default one].
        #[arg(value_name = "VERSION")]
        kubernetes: Option<String>,
    },
    /// Hash everything in the store again.
    Verify {
        /// Kubernetes version or minor [default: all in the store].
        #[arg(value_name = "VERSION")]
        kubernetes: Option<String>,
    },
    /// Like fetch, building everything from Go modules instead of downloading it.
    Build {
        /// Kubernetes version or minor [default: the default one].
        #[arg(value_name = "VERSION")]
        kubernetes: Option<String>,
    },
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

/// `slipway cli-docs`
#[derive(Debug, Args)]
pub struct CliDocs {
    /// The file [default: standard output].
    pub file: Option<PathBuf>,
    /// Only compare: fail if the file is not up to date.
    #[arg(long, requires = "file")]
    pub check: bool,
}

/// `slipway completion`
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        let cli = Cli::try_parse_from(["kubectl-slipway", "get", "machines", "-o", "json", "-n", "team"]).unwrap();
        assert_eq!((cli.global.output, cli.global.namespace.as_deref()), (Format::Json, Some("team")));
    }

    #[test]
    fn what_does_not_fit_together_is_a_usage_error() {
        for line in
            [&["slipway", "kubeconfig", "x", "--merge", "--print"][..], &["slipway", "describe", "x", "--svg", "f"], &["slipway", "fly"]]
        {
            assert_eq!(Cli::try_parse_from(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
