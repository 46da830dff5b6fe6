//! Running other programs: streamed, with a limit, and ended with all they started.

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// The repository. Found when run, not when built: a build directory may be shared by clones.
pub fn root() -> Result<PathBuf> {
    let from = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(std::env::current_dir, |dir| Ok(PathBuf::from(dir)))?;
    let found = from.ancestors().find(|dir| dir.join("Cargo.lock").exists() && dir.join("xtask").exists());
    found.map(PathBuf::from).context("not inside the repository: run it with `cargo xtask` from there")
}

/// `cargo`, in the repository.
pub fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?);
    // Set by the cargo that runs us; a build in a clone of its own must not inherit them.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    Ok(command)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> Result<PathBuf> {
    Ok(std::env::var_os("CARGO_TARGET_DIR").map_or(root()?.join("target"), PathBuf::from))
}

/// How a program ended.
pub enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended, with its whole process group, after this long.
    TooLong(Duration),
}

/// Runs a program in a process group of its own for at most `limit`.
pub fn limited(command: &mut Command, limit: Duration) -> Result<End> {
    let started = Instant::now();
    let mut child = command.process_group(0).spawn().with_context(|| format!("cannot start {command:?}"))?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited(status));
        }
        if started.elapsed() > limit {
            // Asked first: what it holds (machines, namespaces) is taken down by its own handlers.
            let _ = killpg(group, Signal::SIGTERM);
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(30) && child.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(100));
            }
            let _ = killpg(group, Signal::SIGKILL);
            child.wait()?;
            return Ok(End::TooLong(started.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a program to its end; anything but success is an error.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// What a program prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
