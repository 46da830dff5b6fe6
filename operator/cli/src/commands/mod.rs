//! The commands, one file each.

mod artifacts;
mod bring_up;
mod describe;
mod doctor;
mod down;
mod events;
mod explain;
mod get;
mod kubeconfig;
mod local;
mod logs;
mod plan;
mod up;
mod upgrade;
mod wait;

use crate::args::{Cli, CliDocs, Command};
use crate::outcome::{Outcome, refused};
use crate::output::say;
use anyhow::{Context, Result};
use clap::CommandFactory;

/// Does what was asked for, says on standard error why not, and returns how it ended.
pub fn run(cli: Cli) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("starting")?;
    // rustls wants to be told which of its cryptographic providers is meant; told twice, it keeps the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = runtime.block_on(dispatch(cli));
    // A follow of logs or a blocking read of the terminal must not hold up the end.
    runtime.shutdown_background();
    match result {
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            eprintln!("slipway: {}", text(&error));
            Ok(Outcome::of_error(&error))
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Outcome> {
    let global = &cli.global;
    match cli.command {
        Command::Up(args) => up::run(global, &args).await,
        Command::Down(args) => down::run(global, &args).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Get(args) => get::run(global, &args).await,
        Command::Describe(args) => describe::run(global, &args).await,
        Command::Kubeconfig(args) => kubeconfig::run(global, &args).await,
        Command::Wait(args) => wait::run(global, &args).await,
        Command::Logs(args) => logs::run(global, &args).await,
        Command::Plan(args) => plan::run(global, &args).await,
        Command::Upgrade(args) => upgrade::run(global, &args).await,
        Command::Explain(args) => explain::run(global, &args).await,
        Command::Events(args) => events::run(global, &args).await,
        Command::Artifacts(args) => artifacts::run(global, args).await,
        Command::Completion(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "slipway", &mut script);
            say(&String::from_utf8_lossy(&script))?;
            Ok(Outcome::Done)
        }
        Command::Version => artifacts::version(global),
        Command::Local(args) => local::run(global, &args).await,
        Command::CliDocs(args) => reference(&args),
    }
}

/// docs/reference/cli.md: printed, written or compared.
fn reference(args: &CliDocs) -> Result<Outcome> {
    let text = crate::docs::markdown();
    let Some(path) = &args.file else {
        say(&text)?;
        return Ok(Outcome::Done);
    };
    let same = std::fs::read_to_string(path).is_ok_and(|there| there == text);
    if args.check {
        return if same {
            Ok(Outcome::Done)
        } else {
            Err(refused(format!("{} is not up to date: `cargo xtask gen` writes it", path.display())))
        };
    }
    if !same {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(Outcome::Done)
}

/// An error in one line, outermost first, without the repetitions that libraries put into their sources.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // Below an API's answer there is only its whole Status once more.
        let answer = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => Some(status.message.clone()),
            _ => None,
        };
        let words = answer.clone().unwrap_or_else(|| cause.to_string());
        if text.is_empty() {
            text = words;
        } else if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        if answer.is_some() {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_each_thing_once() {
        let error =
            anyhow::anyhow!("connection refused").context("dialing 198.18.0.2: connection refused").context("read the Cluster demo");
        assert_eq!(text(&error), "read the Cluster demo: dialing 198.18.0.2: connection refused");
    }
}
