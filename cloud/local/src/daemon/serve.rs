//! Start of the daemon: lock, settings, host settings, core, API. And the tiny parent that starts it again.

use super::{Daemon, World, faults, server};
use crate::host::{self, HostError};
use crate::layout::Layout;
use crate::leftovers;
use crate::machine;
use crate::network;
use crate::records::{self, Store};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

/// inotify instances and watches that five kubelets and five systemds on one kernel need; the usual 128 instances are used up by one.
pub(crate) const SYSCTLS: &[(&str, u64)] = &[("fs.inotify.max_user_instances", 8192), ("fs.inotify.max_user_watches", 1_048_576)];

/// What `serve` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// State directory.
    pub state: PathBuf,
    /// Artifact store.
    pub store: PathBuf,
    /// Prefix.
    pub name: String,
    /// Range.
    pub range: ipnet::Ipv4Net,
    /// Where to listen; the host's end of the core link where nothing is said.
    pub address: Option<SocketAddr>,
}

/// Times to try the lock, 20 ms apart.
const LOCK_TRIES: u32 = 100;

/// Another daemon has this state.
pub const EXIT_TAKEN: u8 = 3;

/// Takes the lock of a state directory, waiting a little: threads of a killed daemon, and a program that it was just starting, may hold it
/// for some milliseconds more. It is held as long as the file is open; children do not inherit it.
pub async fn lock(state: &Path) -> Result<Option<File>, HostError> {
    host::file("creating", state, std::fs::create_dir_all(state))?;
    let path = state.join("lock");
    let file = host::file("opening", &path, std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path))?;
    for _ in 0..LOCK_TRIES {
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => return Ok(Some(file)),
            Err(fs4::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(fs4::TryLockError::Error(why)) => return Err(HostError::File { what: "locking", path, why }),
        }
    }
    Ok(None)
}

/// Runs the daemon until SIGTERM. `Ok(false)`: another one has this state.
pub async fn serve(options: Options) -> Result<bool, HostError> {
    let wanted = Layout::new(&options.state, &options.store, &options.name, options.range)?;
    if !wanted.store.is_dir() {
        return Err(HostError::Refused(format!(
            "--store {}: there is no such directory; `slipway artifacts fetch` makes it",
            wanted.store.display()
        )));
    }
    let Some(_lock) = lock(&wanted.state).await? else { return Ok(false) };
    let pid = wanted.state.join("daemon.pid");
    host::write(&pid, std::process::id().to_string().as_bytes(), 0o644)?;
    let layout = settle(wanted)?;
    let store = Store::open(&layout)?;
    for (stray, words) in leftovers::processes_of(&layout.state) {
        // Not the parent, and not a removal: that one ends us in a moment.
        let alive = words.first().is_some_and(|w| w.ends_with("slipway-local"));
        if !alive {
            tracing::warn!(pid = stray, "killing what a killed daemon left: {}", words.join(" "));
            kill_and_wait(stray).await;
        }
    }
    raise_limits(&store).await?;
    let pki = crate::tls::Authority::open(&layout.state.join("pki"))?;
    pki.ensure_admin()?;
    let endpoint = options.address.unwrap_or_else(|| (layout.host_address(), crate::wire::DEFAULT_PORT).into());
    let SocketAddr::V4(v4) = endpoint else { return Err(HostError::Refused(format!("--address {endpoint}: an IPv4 address is needed"))) };
    let tls = pki.server(*v4.ip())?;
    // Revisions of this start differ from those of any other: clients compare for equality.
    let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| u64::try_from(d.as_micros()).unwrap_or(1));
    let world = World { counters: store.counters_or_new()?, revision: start, ..World::default() };
    let daemon = Arc::new(Daemon {
        host_boot: super::host_boot()?,
        layout: layout.clone(),
        endpoint,
        store,
        pki,
        world: Mutex::new(world),
        writer: tokio::sync::Mutex::default(),
        changed: tokio::sync::watch::Sender::new(start),
        faults: faults::Injector::default(),
    });
    daemon.resume().await?;
    let listener = listen(endpoint).await?;
    let text = format!("https://{endpoint}\n");
    host::write_durable(&layout.state.join("endpoint"), text.as_bytes())?;
    let trash = layout.clone();
    tokio::spawn(host::blocking(move || machine::empty_trash(&trash)));
    tracing::info!(%endpoint, range = %layout.range, name = layout.name, "serving");
    tokio::select! {
        () = server::serve(daemon, listener, tls, start) => {}
        () = terminated() => tracing::info!("told to stop; machines go on"),
    }
    // A pid file that nobody's is would only mislead.
    let _ = std::fs::remove_file(pid);
    Ok(true)
}

/// The settings of this state: those of the first start. Others are refused, since addresses and names on the host were made of them.
fn settle(wanted: Layout) -> Result<Layout, HostError> {
    let path = wanted.config();
    if let Some(found) = records::read::<Layout>(&path)? {
        if (&found.name, found.range) != (&wanted.name, wanted.range) {
            return Err(HostError::Refused(format!(
                "{} was made with --name {} --range {}: use these, another --state, or `slipway-local remove --state {}` first",
                wanted.state.display(),
                found.name,
                found.range,
                wanted.state.display()
            )));
        }
        if found == wanted {
            return Ok(found);
        }
    } else {
        network::check_range(&wanted)?;
        if network::exists(&wanted.core()) {
            return Err(HostError::Refused(format!(
                "there is a network namespace {} already: another local cloud has --name {}; choose another",
                wanted.core(),
                wanted.name
            )));
        }
    }
    let text = serde_json::to_vec_pretty(&wanted).map_err(|e| HostError::Refused(e.to_string()))?;
    host::write_durable(&path, &text)?;
    Ok(wanted)
}

async fn kill_and_wait(pid: i32) {
    use nix::sys::signal::{Signal, kill};
    let Some(started) = machine::started(pid) else { return };
    let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    for _ in 0..500 {
        if machine::started(pid) != Some(started) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Raises limits of the host's that are too low, and remembers the old values before.
async fn raise_limits(store: &Store) -> Result<(), HostError> {
    let mut counters = store.counters_or_new()?;
    for (name, least) in SYSCTLS {
        let path = sysctl_path(name);
        let found = host::file("reading", &path, std::fs::read_to_string(&path))?;
        if found.trim().parse::<u64>().is_ok_and(|value| value >= *least) {
            continue;
        }
        counters.sysctls.entry((*name).to_owned()).or_insert_with(|| found.trim().to_owned());
        store.put_counters(&counters).await?;
        host::file("writing", &path, std::fs::write(&path, least.to_string()))?;
    }
    Ok(())
}

/// File of a setting under /proc/sys.
pub fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// A new address may take a moment before it can be listened on.
async fn listen(endpoint: SocketAddr) -> Result<TcpListener, HostError> {
    let mut last = None;
    for _ in 0..50 {
        match TcpListener::bind(endpoint).await {
            Ok(listener) => return Ok(listener),
            Err(e) => last = Some(e),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    Err(HostError::Refused(format!("cannot listen on {endpoint}: {why}; choose another with --address")))
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut term), Ok(mut int)) => {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

/// Waits for a child that was told to end; kills it when it does not.
fn end(child: &mut std::process::Child) {
    for _ in 0..500 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The respawning parent: starts `command` again whenever it ends, later each time when it does so at once. Ends on SIGTERM and SIGINT,
/// taking the child along; passes on the child's exit code when that says that a restart is useless. Holds nothing, so that it never dies
/// of anything but a signal.
pub fn supervise(state: &Path, mut command: std::process::Command) -> Result<u8, HostError> {
    use nix::sys::signal::{SigSet, Signal, kill};
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
    let sick = |e: nix::errno::Errno| HostError::Waited(format!("signals: {e}"));
    signals.thread_block().map_err(sick)?;
    command.env(leftovers::STATE_VARIABLE, state);
    host::write(&state.join("parent.pid"), std::process::id().to_string().as_bytes(), 0o644)?;
    let mut pause = Duration::from_millis(50);
    loop {
        let born = std::time::Instant::now();
        let mut child = command.spawn().map_err(|why| HostError::NoProgram { program: "slipway-local".into(), why })?;
        let child_pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let code = loop {
            match signals.wait().map_err(sick)? {
                Signal::SIGCHLD => {
                    if let Ok(Some(status)) = child.try_wait() {
                        break status.code();
                    }
                }
                _ => {
                    let _ = kill(child_pid, Signal::SIGTERM);
                    end(&mut child);
                    let _ = std::fs::remove_file(state.join("parent.pid"));
                    return Ok(0);
                }
            }
        };
        // Taken, or told something that will stay wrong.
        if let Some(code @ (2 | 3)) = code {
            return Ok(u8::try_from(code).unwrap_or(1));
        }
        pause = if born.elapsed() > Duration::from_secs(10) { Duration::from_millis(50) } else { (pause * 2).min(Duration::from_secs(5)) };
        tracing::warn!(?code, "the daemon ended; starting it again in {pause:?}");
        // SIGTERM is blocked, and would be lost to a plain sleep.
        std::thread::sleep(pause);
    }
}
