//! Everything that is done to this repository: `cargo xtask quickstart`, `test`, `gen`, `lint`, `bench`, `faults`.
//!
//! Small on purpose: it is built before anything else, in seconds.

mod bench;
mod build;
mod faults;
mod generate;
mod host;
mod lint;
mod mutants;
mod quickstart;
mod run;
mod test;
mod trial;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What is done to this repository")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From a fresh clone to a running highly available cluster on this machine; `--down` takes all of it away again.
    Quickstart(quickstart::Quickstart),
    /// All that CI runs.
    Test(test::Test),
    /// Renders what is generated and checked in: CRDs, references.
    Gen {
        /// Changes nothing, fails where a file is not what would be rendered.
        #[arg(long)]
        check: bool,
    },
    /// Formatting, the arrows between crates, generated files.
    Lint,
    /// Builds Slipway's programs into target/slipway/bin.
    Build {
        /// The released profile: small and quick, minutes to build.
        #[arg(long)]
        dist: bool,
    },
    /// Seeds bugs into a copy of the planner and says which tests notice. By hand: it takes minutes.
    Mutants(mutants::Mutants),
    /// Measures, beside whatever else is named.
    Bench(bench::Bench),
    /// Hurts a cluster in every way that is known, while clients count, and says what was measured beside what is allowed.
    Faults(faults::Faults),
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Quickstart(quickstart) => quickstart.run(),
        Command::Test(test) => test.run(),
        Command::Gen { check } => generate::run(check).map(|()| ExitCode::SUCCESS),
        Command::Lint => lint::run().map(|()| ExitCode::SUCCESS),
        Command::Build { dist } => {
            build::programs(if dist { build::Profile::Dist } else { build::Profile::Dev }).map(|_| ExitCode::SUCCESS)
        }
        Command::Mutants(mutants) => mutants.run(),
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Faults(faults) => faults.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
