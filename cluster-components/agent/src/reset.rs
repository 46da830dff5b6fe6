//! Reset: stops what runs and removes what was written, the agent's own keys last. Begun, it is finished, over the agent's own restarts too:
//! the marker is durable before anything is undone, and stays, so that a machine that was reset takes nothing more.

use crate::apply::stopped;
use crate::check::AGENT_UNIT;
use crate::ledger::Ledger;
use crate::place::remove_users;
use crate::root::{self, Access, Root};
use crate::systemd::Systemd;
use crate::{artifacts, update};
use futures::future::join_all;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;

/// Who does not end by itself within this is killed.
const GRACE: Duration = Duration::from_secs(3);
/// A caller hears within its own deadline how far it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const SIGKILL: i32 = 9;

/// How far a reset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetState {
    /// Nobody asked for one.
    Never,
    /// Begun.
    Running,
    /// Nothing is left.
    Done,
}

/// The machine's reset.
pub struct Reset {
    root: Root,
    systemd: Systemd,
    state: watch::Sender<ResetState>,
}

impl Reset {
    /// As the marker says. An unfinished one goes on.
    #[must_use]
    pub fn load(root: &Root, systemd: &Systemd) -> Self {
        let begun = marker(root).exists();
        let state = watch::Sender::new(if begun { ResetState::Running } else { ResetState::Never });
        let reset = Self { root: root.clone(), systemd: systemd.clone(), state };
        if begun {
            reset.go_on();
        }
        reset
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> ResetState {
        *self.state.borrow()
    }

    /// Marks it begun, durably, and starts it. Again: nothing.
    pub async fn begin(&self) -> io::Result<()> {
        if self.state() != ResetState::Never {
            return Ok(());
        }
        let path = marker(&self.root);
        spawn_blocking(move || root::replace_durably(&path, b"", Access::SECRET)).await.map_err(io::Error::other)??;
        self.state.send_replace(ResetState::Running);
        self.go_on();
        Ok(())
    }

    /// Waits for its end, as long as a caller does.
    pub async fn finished(&self) -> Result<(), Status> {
        let mut state = self.state.subscribe();
        match timeout(ANSWER_WITHIN, state.wait_for(|state| *state == ResetState::Done)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::aborted("the reset goes on: ask again")),
        }
    }

    fn go_on(&self) {
        let (root, systemd, state) = (self.root.clone(), self.systemd.clone(), self.state.clone());
        tokio::spawn(async move {
            tracing::warn!("reset: stopping units and removing what was written");
            loop {
                match work(&root, &systemd).await {
                    Ok(()) => break,
                    Err(why) => tracing::warn!(why, "the reset goes on"),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            state.send_replace(ResetState::Done);
            tracing::warn!("reset: nothing is left; this agent takes nothing more");
        });
    }
}

fn marker(root: &Root) -> PathBuf {
    root.state("reset")
}

async fn work(root: &Root, systemd: &Systemd) -> Result<(), String> {
    update::abandon(root, systemd, |unit| stop(systemd, unit)).await?;
    let ledger = Ledger::load(root).map_err(|e| format!("ledger.json: {e}"))?;
    if !ledger.units.is_empty() {
        // Pods' scopes are in a slice of their own, started by the kubelet and not by us.
        let all = ledger.units.iter().map(String::as_str).chain(["kubepods.slice"]);
        let stops = join_all(all.map(|unit| stop(systemd, unit))).await;
        if let Some(why) = stops.into_iter().find_map(Result::err) {
            return Err(why);
        }
    }
    let copy = (root.clone(), ledger.clone());
    spawn_blocking(move || wipe(&copy.0, &copy.1)).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    if !ledger.units.is_empty() {
        systemd.reload().await.map_err(|e| e.to_string())?;
    }
    // Where there is no systemd there is nothing to disable.
    if let Err(e) = systemd.disable(AGENT_UNIT).await {
        tracing::debug!(%e, "the agent's own unit stays enabled");
    }
    let root = root.clone();
    // Last: until here an agent that starts anew goes on.
    spawn_blocking(move || forget(&root)).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

async fn stop(systemd: &Systemd, unit: &str) -> Result<(), String> {
    systemd.stop(unit).await.map_err(|e| e.to_string())?;
    let ended = timeout(GRACE, stopped(systemd, unit)).await;
    // Also what a unit left behind on purpose: containerd's shims, for example.
    systemd.kill(unit, SIGKILL).await.map_err(|e| e.to_string())?;
    match ended {
        Ok(done) => done.map_err(|e| e.to_string()),
        Err(_) => timeout(GRACE, stopped(systemd, unit))
            .await
            .map_err(|_| format!("{unit} does not end even when killed"))?
            .map_err(|e| e.to_string()),
    }
}

fn wipe(root: &Root, ledger: &Ledger) -> io::Result<()> {
    for unit in &ledger.units {
        root::remove(&root.unit(unit))?;
    }
    for file in &ledger.files {
        root::remove(&root.at(file))?;
    }
    for program in &ledger.programs {
        root::remove(&root.program(program))?;
    }
    unmount_below(root, ledger);
    let mounts = mount_points();
    // Children before parents.
    for directory in ledger.directories.iter().rev() {
        let path = root.at(directory);
        if mounts.iter().any(|mount| mount.starts_with(&path)) {
            return Err(io::Error::other(format!("something is still mounted below {}", path.display())));
        }
        remove_tree(&path)?;
    }
    // The program that runs stays, as its unit and its link do: should it end before all is done, it has to come back.
    let linked = update::linked_copy(root);
    artifacts::remove_copies(root, |_, directory| linked.as_deref() == Some(directory))?;
    if linked.is_none() {
        remove_tree(&root.artifacts())?;
    }
    remove_tree(&root.at("/run/slipway"))?;
    remove_users(&ledger.users, root)
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Volumes of pods are mounted below the kubelet's directory: removing through a mount would remove somebody else's data.
fn unmount_below(root: &Root, ledger: &Ledger) {
    let mut mounts = mount_points();
    mounts.sort_unstable_by(|a, b| b.cmp(a));
    for mount in mounts {
        if ledger.directories.iter().any(|directory| mount.starts_with(root.at(directory)))
            && let Err(e) = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)
        {
            tracing::warn!(mount = %mount.display(), %e, "not unmounted");
        }
    }
}

fn mount_points() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // Octal escapes stand for blanks only; a path with one is compared as it stands and at worst left alone.
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

fn forget(root: &Root) -> io::Result<()> {
    for name in ["plan.json", "ledger.json", "refused.json", "agent.crt", "ca.crt", "agent.key"] {
        root::remove(&root.state(name))?;
    }
    root::remove(&root.identity())?;
    let _ = std::fs::remove_dir(root.at("/etc/slipway"));
    Ok(())
}
