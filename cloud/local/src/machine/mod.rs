//! Machines: systemd containers run by runc, each with its own network, mount, PID, UTS, IPC and cgroup namespaces.
//!
//! runc only starts them. Looking, killing and removing is done here, by PID and cgroup: that works on what a killed runc left, too, and
//! takes milliseconds.

pub mod cgroups;
pub mod image;
pub mod spec;

use crate::host::{self, HostError};
use crate::layout::Layout;
use crate::network;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long the processes of a killed machine may take to vanish.
const DEATH: Duration = Duration::from_secs(5);
/// How long runc may take to start PID 1.
const START: Duration = Duration::from_secs(30);

/// What is needed to boot a machine.
#[derive(Debug, Clone)]
pub struct Boot<'a> {
    /// Instance or load balancer id.
    pub id: &'a str,
    /// Host name.
    pub hostname: &'a str,
    /// Number of its network.
    pub network: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Which boot this is.
    pub boot: u64,
    /// Whether it sees the store.
    pub store: bool,
    /// Fault: it never gets up.
    pub never_boot: bool,
}

/// A running PID 1.
#[derive(Debug)]
pub struct Running {
    /// On the host.
    pub pid: i32,
    /// Which boot it is of.
    pub boot: u64,
    /// Becomes readable when it dies.
    pub pidfd: OwnedFd,
}

#[derive(Deserialize)]
struct RuncState {
    init_process_pid: i32,
    init_process_start: u64,
}

#[derive(Deserialize)]
struct Bundle {
    annotations: std::collections::BTreeMap<String, String>,
}

/// A machine's PID 1, where it is alive. A container that runc made and did not get to start counts as dead.
pub fn find(layout: &Layout, id: &str) -> Option<Running> {
    let directory = layout.runc().join(layout.container(id));
    if directory.join("exec.fifo").exists() {
        return None;
    }
    let state: RuncState = serde_json::from_slice(&std::fs::read(directory.join("state.json")).ok()?).ok()?;
    let pidfd = pidfd_open(rustix::process::Pid::from_raw(state.init_process_pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after opening: the number may have gone to another process since.
    if started(state.init_process_pid)? != state.init_process_start {
        return None;
    }
    let bundle: Option<Bundle> = std::fs::read(layout.machine(id).join("config.json")).ok().and_then(|b| serde_json::from_slice(&b).ok());
    let boot = bundle.and_then(|b| b.annotations.get("slipway.dev/boot")?.parse().ok()).unwrap_or(0);
    Some(Running { pid: state.init_process_pid, boot, pidfd })
}

/// When a process started, in clock ticks since the host's boot; none for the dead and for zombies.
pub fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, ')' included: fields are counted from the last one. The first is the state, field 3 of the file.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Boots a machine that is not running; its disk must have been written. Returns when PID 1 has been started.
pub async fn boot(layout: &Layout, machine: &Boot<'_>) -> Result<Running, HostError> {
    let directory = layout.machine(machine.id);
    let container = layout.container(machine.id);
    let cgroup = format!("{}/{}", layout.cgroup(), machine.id);
    network::plug(layout, machine.network, machine.id, machine.address).await?;
    let status = host::file("reading", Path::new("/proc/self/status"), std::fs::read_to_string("/proc/self/status"))?;
    let binds: &[_] = if machine.store { &[(layout.store.as_path(), "/opt/slipway/store")] } else { &[] };
    let spec = spec::Spec {
        container: &container,
        hostname: machine.hostname,
        cgroup: &cgroup,
        binds,
        boot: machine.boot,
        never_boot: machine.never_boot,
    };
    let config = spec::render(&spec, &spec::capabilities(&status), |path| Path::new(path).exists());
    host::write(&directory.join("config.json"), config.to_string().as_bytes(), 0o600)?;
    let console = directory.join("console.log");
    let log = host::file("creating", &console, std::fs::File::create(&console))?;
    let also = host::file("opening", &console, log.try_clone())?;
    let mut runc = tokio::process::Command::new("runc");
    runc.arg("--root").arg(layout.runc()).args(["run", "--detach", "--bundle"]).arg(&directory).arg(&container);
    runc.stdin(Stdio::null()).stdout(log).stderr(also).kill_on_drop(true);
    let mut child = runc.spawn().map_err(|why| HostError::NoProgram { program: "runc".into(), why })?;
    let ended = tokio::time::timeout(START, child.wait()).await;
    let said = || std::fs::read_to_string(&console).unwrap_or_default().trim().to_owned();
    match ended {
        Ok(Ok(code)) if code.success() => {}
        Ok(Ok(code)) => return Err(HostError::Failed { command: format!("runc run {container}"), output: format!("{code}: {}", said()) }),
        Ok(Err(why)) => return Err(HostError::NoProgram { program: "runc".into(), why }),
        Err(_) => return Err(HostError::Waited(format!("runc did not start {container} within {START:?}: {}", said()))),
    }
    find(layout, machine.id).ok_or_else(|| HostError::Waited(format!("PID 1 of {container} died at once: {}", said())))
}

/// Pulls the plug: all processes die, the disk stays. Also cleans up after a boot that was broken off.
pub async fn power_off(layout: &Layout, id: &str, network: u32) -> Result<(), HostError> {
    let cgroup = format!("{}/{id}", layout.cgroup());
    if let Some(running) = find(layout, id) {
        // The kernel kills everything in its PID namespace with it.
        let _ = pidfd_send_signal(&running.pidfd, Signal::KILL);
    }
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        cgroups::kill(&cgroup);
        if cgroups::processes(&cgroup).is_empty() && cgroups::remove(&cgroup).is_ok() {
            break;
        }
        if start.elapsed() > DEATH {
            let left = cgroups::processes(&cgroup);
            cgroups::remove(&cgroup)?;
            return Err(HostError::Waited(format!("processes {left:?} of {id} are still there {DEATH:?} after SIGKILL")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    host::remove_tree(&layout.runc().join(layout.container(id)))?;
    network::unplug(layout, network, id).await
}

/// Moves a machine's disk out of the way, in no time, and tells where to: to be removed in peace.
pub fn discard_disk(layout: &Layout, id: &str) -> Result<PathBuf, HostError> {
    let (disk, trash) = (layout.machine(id), layout.trash());
    host::file("creating", &trash, std::fs::create_dir_all(&trash))?;
    let discarded = trash.join(id);
    match std::fs::rename(&disk, &discarded) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        moved => host::file("moving", &disk, moved)?,
    }
    Ok(discarded)
}

/// Removes what an earlier daemon discarded and did not come to remove. The directory itself stays: others are moving disks into it.
pub fn empty_trash(layout: &Layout) -> Result<(), HostError> {
    for entry in std::fs::read_dir(layout.trash()).into_iter().flatten().flatten() {
        host::remove_tree(&entry.path())?;
    }
    Ok(())
}
