//! The daemon of the local cloud as a process on this host: found, or started in a session of its own so that it outlives this program.

use crate::place::Place;
use crate::plane::Settings;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_local::LocalClient;
use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Its program.
const PROGRAM: &str = "slipway-local";
/// How long it may take until it answers.
const START: Duration = Duration::from_secs(20);

/// A daemon that answers, if there is one.
pub async fn find(place: &Place) -> Option<LocalClient> {
    let client = LocalClient::from_dir(&place.local()).ok()?;
    // A daemon that has just died refuses at once; one that hangs is not better than none.
    tokio::time::timeout(Duration::from_secs(3), client.status()).await.ok()?.ok()?;
    Some(client)
}

/// A daemon that answers; started where there was none. Returns whether it had to be.
pub async fn ensure(place: &Place, settings: &Settings, bin: &Path) -> Result<(LocalClient, bool)> {
    if let Some(client) = find(place).await {
        return renewed(client, place, bin).await;
    }
    let mut child = start(place, settings, bin)?;
    let deadline = Instant::now() + START;
    loop {
        if let Some(client) = find(place).await {
            return Ok((client, true));
        }
        if let Some(status) = child.try_wait().context("looking after slipway-local")? {
            bail!("slipway-local ended at once ({status}): {}", last_words(&place.daemon_log()));
        }
        if Instant::now() > deadline {
            bail!("slipway-local does not answer within {} s: {}", START.as_secs(), last_words(&place.daemon_log()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same daemon, or a new process of it where its program was replaced meanwhile: it is ended, and its parent starts it again. Machines go on.
async fn renewed(client: LocalClient, place: &Place, bin: &Path) -> Result<(LocalClient, bool)> {
    let pid = client.status().await?.pid;
    let file = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let running = file(Path::new(&format!("/proc/{pid}/exe")));
    if running.is_none() || running == file(&bin.join(PROGRAM)) {
        return Ok((client, false));
    }
    let process = Pid::from_raw(i32::try_from(pid).context("the daemon's process id")?);
    kill(process, Signal::SIGTERM).with_context(|| format!("ending the old slipway-local, process {pid}"))?;
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if let Some(client) = find(place).await
            && client.status().await.is_ok_and(|s| s.pid != pid)
        {
            return Ok((client, true));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("slipway-local was ended to be renewed and does not answer within {} s: {}", START.as_secs(), last_words(&place.daemon_log()))
}

fn start(place: &Place, settings: &Settings, bin: &Path) -> Result<std::process::Child> {
    let program = bin.join(PROGRAM);
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(place.daemon_log())
        .with_context(|| format!("opening {}", place.daemon_log().display()))?;
    let state = place.local();
    // `setsid` forks and leaves at once: what it starts belongs to no terminal, and Ctrl-C here does not reach it.
    Command::new("setsid")
        .arg(&program)
        .arg("run")
        .arg("--state")
        .arg(&state)
        .arg("--store")
        .arg(&settings.store)
        .arg("--name")
        .arg(&settings.name)
        .arg("--range")
        .arg(settings.range.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("the daemon's log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

/// The end of a log, for an error's message.
pub fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().filter(|l| !l.trim().is_empty()).take(3).collect();
    let words: Vec<&str> = lines.into_iter().rev().collect();
    if words.is_empty() { format!("nothing in {}", log.display()) } else { format!("{} ({})", words.join(" | "), log.display()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_words_are_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "one\ntwo\n\nthree\nfour\n").unwrap();
        assert!(last_words(&log).starts_with("two | three | four ("));
        assert!(last_words(&dir.path().join("none")).starts_with("nothing in"));
    }
}
