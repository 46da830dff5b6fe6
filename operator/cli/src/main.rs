//! The program `slipway`, by any name: also `kubectl-slipway`.

use clap::Parser;
use slipway_cli::{Outcome, args::Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = std::env::var("SLIPWAY_LOG").unwrap_or_else(|_| "off".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(level).unwrap_or_default();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    run(cli).unwrap_or(Outcome::Failed).into()
}
