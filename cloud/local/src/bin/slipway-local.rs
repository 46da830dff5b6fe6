//! `slipway-local`: the local cloud's daemon, the parent that keeps it running, and the broom that removes every trace.

use clap::{Args, Parser, Subcommand};
use slipway_local::daemon::serve::{self, EXIT_TAKEN, Options};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The local cloud: machines as systemd containers on this host, behind an HTTPS API.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground. Ends on SIGTERM; machines go on.
    Serve(Settings),
    /// Run the daemon, and start it again whenever it ends.
    Run(Settings),
    /// Remove every trace: daemon, machines, network, files. Works on half-made and half-removed ones, too.
    Remove {
        /// State directory.
        #[arg(long, default_value = "/var/lib/slipway/local")]
        state: PathBuf,
        /// Prefix; needed only where the state directory no longer says it.
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Settings {
    /// Directory of everything: records, machines' disks, certificates.
    #[arg(long, default_value = "/var/lib/slipway/local")]
    state: PathBuf,
    /// Store of artifacts; machines see it read-only at /opt/slipway/store.
    #[arg(long)]
    store: PathBuf,
    /// Prefix of namespaces, links, containers and cgroups: two daemons on one host need two.
    #[arg(long, default_value = "slw")]
    name: String,
    /// Addresses to hand out, a /24 to each cluster. Must not be in use on this host.
    #[arg(long, default_value = "198.18.0.0/20")]
    range: ipnet::Ipv4Net,
    /// IP:PORT to listen on; `auto`: port 7450 of the host's end of the link to the machines.
    #[arg(long, default_value = "auto")]
    address: String,
}

fn main() -> ExitCode {
    // A level is enough, and a filter by target would cost a megabyte of regular expressions.
    let level = std::env::var("SLIPWAY_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    match Cli::parse().command {
        Command::Serve(settings) => foreground(settings),
        Command::Run(settings) => parent(&settings),
        Command::Remove { state, name } => remove(&state, name.as_deref()),
    }
}

fn failed(code: u8, why: impl std::fmt::Display) -> ExitCode {
    eprintln!("slipway-local: {why}");
    ExitCode::from(code)
}

fn foreground(settings: Settings) -> ExitCode {
    // The parent waits for its signals with these blocked, and a blocked signal stays so in children: SIGTERM would never arrive here.
    if let Err(e) = nix::sys::signal::SigSet::all().thread_unblock() {
        return failed(5, e);
    }
    let address = match settings.address.as_str() {
        "auto" => None,
        text => match text.parse::<SocketAddr>() {
            Ok(address) => Some(address),
            Err(_) => return failed(2, format!("--address {text}: give IP:PORT or auto")),
        },
    };
    let options = Options { state: settings.state, store: settings.store, name: settings.name, range: settings.range, address };
    // One thread does everything but disk writes: the work is waiting.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(5, e),
    };
    match runtime.block_on(serve::serve(options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => failed(EXIT_TAKEN, "another slipway-local has this state directory"),
        Err(e @ slipway_local::HostError::Refused(_)) => failed(EXIT_TAKEN, e),
        Err(e) => failed(5, e),
    }
}

fn remove(state: &std::path::Path, name: Option<&str>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(5, e),
    };
    match runtime.block_on(slipway_local::remove(state, name)) {
        Ok(said) => {
            said.iter().for_each(|line| println!("removed: {line}"));
            ExitCode::SUCCESS
        }
        Err(e) => failed(5, e),
    }
}

fn parent(settings: &Settings) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(e) => return failed(5, e),
    };
    let mut command = std::process::Command::new(program);
    command.arg("serve").arg("--state").arg(&settings.state).arg("--store").arg(&settings.store);
    command.args(["--name", &settings.name, "--range", &settings.range.to_string(), "--address", &settings.address]);
    match serve::supervise(&settings.state, command) {
        Ok(code) => ExitCode::from(code),
        Err(e) => failed(5, e),
    }
}
