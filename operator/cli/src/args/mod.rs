//! The command line: what can be typed, and the help that goes with it. docs/reference/cli.md is made from here.

mod clusters;
mod host;
mod store;

pub use clusters::{Describe, Events, Explain, Get, Kind, Kubeconfig, Logs, Plan, Upgrade, Wait};
pub use host::{CloudArgs, Doctor, Down, Faults, Local, LocalCommand, Up};
pub use store::{Artifacts, ArtifactsCommand, StoreArgs};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

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
