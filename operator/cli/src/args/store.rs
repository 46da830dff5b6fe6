//! Commands about programs and images.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Where the artifact store is.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Where artifacts are kept, by digest [default: ~/.cache/slipway/store].
    #[arg(long, env = "SLIPWAY_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
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
