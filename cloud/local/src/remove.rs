//! Removes every trace of a local cloud, whatever state it is in: daemon alive, dead, or killed half-way; records whole or gone.
//!
//! Looks at the host, not at the records: what carries our prefix goes. May be run again.

use crate::daemon::serve::{lock, sysctl_path};
use crate::host::{self, HostError};
use crate::layout::Layout;
use crate::leftovers::{clouds, leftovers, machines, mounts_below, names, processes_of};
use crate::machine::{self, cgroups};
use crate::network::{self, NAMESPACES};
use crate::records::{self, Counters};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long killed processes may take to vanish.
const DEATH: Duration = Duration::from_secs(10);

/// Removes the local cloud of a state directory; tells what was removed. `name` is needed only where the state no longer says it.
pub async fn remove(state: &Path, name: Option<&str>) -> Result<Vec<String>, HostError> {
    let state = std::path::absolute(state).map_err(|why| HostError::File { what: "finding", path: state.into(), why })?;
    let mut said = Vec::new();
    stop_daemon(&state, &mut said).await?;
    if !state.exists() && name.is_none() {
        said.push(format!("{} does not exist: nothing to remove", state.display()));
        return Ok(said);
    }
    let settings = match (records::read::<Layout>(&state.join("config.json")), name) {
        (Ok(Some(layout)), _) => Some(Layout { state: state.clone(), ..layout }),
        // Settings are written before anything is made on the host.
        (Ok(None), None) => None,
        (_, Some(name)) => Some(Layout::new(&state, &state, name, ipnet::Ipv4Net::new_assert([198, 18, 0, 0].into(), 20))?),
        (Err(e), None) => return Err(HostError::Refused(format!("{e} Its prefix is not known: give --name."))),
    };
    let held = if state.exists() { lock(&state).await? } else { None };
    if state.exists() && held.is_none() {
        return Err(HostError::Refused(format!("{} is locked: a slipway-local that could not be stopped is using it", state.display())));
    }
    if let Some(layout) = &settings {
        remove_machines(layout, &mut said).await?;
        remove_network(layout, &mut said).await?;
        put_limits_back(layout, &mut said)?;
    }
    for mount in mounts_below(&state).iter().rev() {
        // Lazily: whatever still holds it must not hold us.
        rustix::mount::unmount(mount.as_str(), rustix::mount::UnmountFlags::DETACH).map_err(|e| HostError::File {
            what: "unmounting",
            path: mount.into(),
            why: e.into(),
        })?;
        said.push(format!("mount {mount}"));
    }
    if state.exists() {
        let directory = state.clone();
        host::blocking(move || host::remove_tree(&directory)).await?;
        said.push(format!("files in {}", state.display()));
    }
    if let Some(layout) = settings {
        let left = leftovers(&layout.name, &state);
        if !left.is_empty() {
            return Err(HostError::Waited(format!("still there: {}; run it again", left.join("; "))));
        }
    }
    Ok(said)
}

/// The parent first: it would start the daemon again.
async fn stop_daemon(state: &Path, said: &mut Vec<String>) -> Result<(), HostError> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let running =
        |verb: &'static str| processes_of(state).into_iter().filter(move |(_, words)| words.iter().any(|w| w == verb)).map(|(pid, _)| pid);
    let pid_file = |name: &str| std::fs::read_to_string(state.join(name)).ok().and_then(|t| t.trim().parse::<i32>().ok());
    // A relative --state is in no command line as we look for it; the pid file knows it then.
    let ours = |pid: &i32| {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        *pid != own && command.trim() == "slipway-local"
    };
    for (verb, file) in [("run", "parent.pid"), ("serve", "daemon.pid")] {
        let all: std::collections::BTreeSet<i32> = running(verb).chain(pid_file(file).filter(ours)).collect();
        for pid in all {
            end(pid, Signal::SIGKILL).await?;
            said.push(format!("process {pid} (slipway-local {verb})"));
        }
    }
    // Programs that the daemon was running would finish what it had begun.
    for (pid, words) in processes_of(state).into_iter().filter(|(_, words)| words.iter().all(|w| w != "remove")) {
        end(pid, Signal::SIGKILL).await?;
        said.push(format!("process {pid} ({})", words.join(" ")));
    }
    Ok(())
}

async fn end(pid: i32, signal: Signal) -> Result<(), HostError> {
    let Some(born) = machine::started(pid) else { return Ok(()) };
    let _ = kill(Pid::from_raw(pid), signal);
    let start = Instant::now();
    while machine::started(pid) == Some(born) {
        if start.elapsed() > DEATH {
            return Err(HostError::Waited(format!("process {pid} is still there {DEATH:?} after {signal}")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn remove_machines(layout: &Layout, said: &mut Vec<String>) -> Result<(), HostError> {
    let ids = machines(layout);
    // All at once: waiting for one to die is waiting for all.
    let network = 0;
    let gone = futures::future::join_all(ids.iter().map(|id| machine::power_off(layout, id, network))).await;
    for (id, gone) in ids.iter().zip(gone) {
        gone?;
        said.push(format!("machine {id}"));
    }
    let cgroup = layout.cgroup();
    if !cgroups::directories(&cgroup).is_empty() {
        cgroups::kill(&cgroup);
        cgroups::remove(&cgroup)?;
        said.push(format!("cgroup {cgroup}"));
    }
    Ok(())
}

async fn remove_network(layout: &Layout, said: &mut Vec<String>) -> Result<(), HostError> {
    let link = layout.host_link();
    if Path::new("/sys/class/net").join(&link).exists() {
        host::run("ip", &["link", "del", &link], "").await?;
        said.push(format!("link {link} and the route over it"));
    }
    for namespace in names(Path::new(NAMESPACES), &format!("{}-", layout.name)) {
        network::remove_namespace(&namespace).await?;
        said.push(format!("network namespace {namespace}"));
    }
    Ok(())
}

/// Limits go back to what they were, unless another local cloud lives on this host and needs them.
fn put_limits_back(layout: &Layout, said: &mut Vec<String>) -> Result<(), HostError> {
    let counters: Counters = records::read(&layout.state.join("counters.json")).unwrap_or_default().unwrap_or_default();
    let others = clouds();
    for (name, value) in &counters.sysctls {
        if !others.is_empty() {
            said.push(format!("{name} stays raised (it was {value}): the local cloud {} needs it", others.join(", ")));
            continue;
        }
        let path = sysctl_path(name);
        host::file("writing", &path, std::fs::write(&path, value))?;
        said.push(format!("{name} is {value} again"));
    }
    Ok(())
}
