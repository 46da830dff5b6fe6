//! `slipway-agent`: the agent on every machine.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use slipway_agent::http::{Asker, Target, Trust};
use slipway_agent::release_lease::{Released, release};
use slipway_agent::wait_for::{Condition, wait_for};
use std::path::PathBuf;
use tracing_subscriber::filter::LevelFilter;

/// Slipway's agent: makes this machine what the operator's plan says.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent, as slipway-agent.service does.
    Run {
        /// Where the machine's file system begins.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Tries another build as the agent and decides whether it stays, as slipway-agent-trial.service does.
    Trial {
        /// Where the machine's file system begins.
        #[arg(long, default_value = "/")]
        root: PathBuf,
    },
    /// Waits, for ever, until something is there: what a unit needs before it starts.
    WaitFor(WaitFor),
    /// Gives back the Lease of a controller that has ended on this machine, as its unit does when it has stopped.
    ReleaseLease(ReleaseLease),
    /// Prints the version.
    Version,
}

#[derive(Args)]
struct WaitFor {
    #[command(flatten)]
    what: What,
    /// Takes any certificate of an https URL.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// PEM file of the authority of an https URL; the system's own without it.
    #[arg(long)]
    ca: Option<PathBuf>,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A URL that answers 200.
    #[arg(long)]
    url: Option<String>,
    /// A URL that answers, whatever it says.
    #[arg(long)]
    answers: Option<String>,
    /// A path that exists.
    #[arg(long)]
    path: Option<PathBuf>,
    /// A directory with an entry.
    #[arg(long)]
    dir_nonempty: Option<PathBuf>,
}

#[derive(Args)]
struct ReleaseLease {
    /// URL of the Lease.
    #[arg(long)]
    url: String,
    /// PEM file of the API server's authority.
    #[arg(long)]
    ca: PathBuf,
    /// PEM file of the controller's certificate.
    #[arg(long)]
    cert: PathBuf,
    /// PEM file of its key.
    #[arg(long)]
    key: PathBuf,
}

impl ReleaseLease {
    async fn run(self) -> anyhow::Result<()> {
        let trust = Trust::client(&self.ca, &self.cert, &self.key)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        match release(&Target::parse(&self.url)?, &trust, &host)
            .await
            .with_context(|| format!("the Lease {} was not given back", self.url))?
        {
            Released::Yes => println!("the Lease {} is given back: another may lead", self.url),
            Released::NotOurs => {}
        }
        Ok(())
    }
}

impl WaitFor {
    fn condition(self) -> anyhow::Result<(String, Condition)> {
        let trust = |url: &str| match &self.ca {
            _ if self.insecure || url.starts_with("http:") => Trust::anybody(),
            Some(ca) => Trust::file(ca),
            None => Trust::system(),
        };
        Ok(match self.what {
            What { url: Some(url), .. } => {
                let condition = Condition::Url(Asker::new(Target::parse(&url)?, trust(&url)?));
                (url, condition)
            }
            What { answers: Some(url), .. } => {
                let condition = Condition::Answers(Asker::new(Target::parse(&url)?, trust(&url)?));
                (format!("an answer of {url}"), condition)
            }
            What { path: Some(path), .. } => (path.display().to_string(), Condition::Path(path)),
            What { dir_nonempty, .. } => {
                let path = dir_nonempty.context("nothing to wait for")?;
                (format!("an entry in {}", path.display()), Condition::DirectoryNotEmpty(path))
            }
        })
    }
}

/// systemd stamps the lines. One level for all: the filter language of EnvFilter would cost a tenth of the agent's memory.
fn log() {
    let level = std::env::var("SLIPWAY_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt().with_max_level(level).without_time().with_ansi(false).with_writer(std::io::stderr).init();
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // One thread: the agent waits nearly all the time, and what hashes or syncs goes to threads that end again.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
    match cli.command {
        Command::Run { root } => {
            log();
            runtime.block_on(slipway_agent::run(root))
        }
        Command::Trial { root } => {
            log();
            runtime.block_on(slipway_agent::trial(root))
        }
        Command::WaitFor(args) => {
            let (what, mut condition) = args.condition()?;
            runtime.block_on(wait_for(&what, &mut condition));
            Ok(())
        }
        Command::ReleaseLease(args) => runtime.block_on(args.run()),
        Command::Version => {
            println!("{}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}
