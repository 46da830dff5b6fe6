//! Runs `slipway-trial`, which makes clusters, hurts and changes them and counts what clients see; and commands that are compared with it.

use crate::{build, run};
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

/// Builds the programs and runs one trial. What it found, and where its logs are.
pub fn run<T: DeserializeOwned>(profile: build::Profile, name: &str, args: &[String]) -> Result<(T, PathBuf)> {
    let bin = build::with_trial(profile)?;
    let logs = std::env::temp_dir().join(format!("slipway-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    println!("logs of this run: {}", logs.display());
    let found = logs.join("found.json");
    let mut trial = Command::new(bin.join("slipway-trial"));
    trial.arg("--json").arg(&found).arg("--logs").arg(&logs).arg(name).args(args);
    run::must(trial.env("SLIPWAY_BIN", &bin).env("RUST_BACKTRACE", "0"))?;
    let text = std::fs::read(&found).with_context(|| format!("cannot read {}", found.display()))?;
    Ok((serde_json::from_slice(&text).with_context(|| format!("{} is not understood", found.display()))?, logs))
}

/// A `NAME=COMMAND` that is compared with Slipway.
#[derive(Debug, Clone)]
pub struct Other {
    /// What it is called in tables.
    pub name: String,
    command: String,
}

impl std::str::FromStr for Other {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let (name, command) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=COMMAND"))?;
        Ok(Self { name: name.to_owned(), command: command.to_owned() })
    }
}

impl Other {
    /// Runs the shell command to its end. The JSON objects that it printed, one on a line, in order.
    pub fn once(&self) -> Result<Vec<Value>> {
        let output = Command::new("sh").args(["-c", &self.command]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let found: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect();
        if !output.status.success() || found.is_empty() {
            bail!(
                "{} ended with {} and {} lines of JSON: {} {}",
                self.name,
                output.status,
                found.len(),
                text.trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(found)
    }
}
