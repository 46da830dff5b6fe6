//! A local cloud of a test's own: its names and addresses, a daemon that is removed with all its traces when the test ends, however it ends.

use slipway_cloud_api::{Cloud, CloudError, ClusterKey, Instance, InstanceRequest, InstanceState, Inventory};
use slipway_local::{LocalClient, leftovers};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

static CLOUDS: AtomicU32 = AtomicU32::new(0);

pub struct TestCloud {
    pub name: String,
    pub range: String,
    pub state: PathBuf,
    pub client: LocalClient,
    parent: Child,
    _directory: tempfile::TempDir,
}

pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_slipway-local"))
}

impl TestCloud {
    pub async fn start() -> Self {
        // Tests run at once, and so may other runs and other suites: the process id keeps runs apart, the counter tests; a daemon that finds
        // its addresses in use says so and ends, and the next ones are tried.
        for _ in 0..8 {
            let number = std::process::id() * 16 + CLOUDS.fetch_add(1, Ordering::Relaxed);
            let name = format!("t{:04x}", number & 0xffff);
            let third = (number * 7 % 64) * 4;
            let range = format!("198.19.{third}.0/22");
            let directory = tempfile::Builder::new().prefix("slipway-local-").tempdir().unwrap();
            let state = directory.path().join("state");
            std::fs::create_dir(directory.path().join("store")).unwrap();
            let mut parent = spawn(&state, &name, &range);
            if let Some(client) = connect(&state, &mut parent).await {
                return Self { name, range, state, client, parent, _directory: directory };
            }
        }
        panic!("no addresses are free in 198.19.0.0/16");
    }

    pub fn daemon_pid(&self) -> Option<i32> {
        let pid: i32 = std::fs::read_to_string(self.state.join("daemon.pid")).ok()?.trim().parse().ok()?;
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z")).then_some(pid)
    }

    /// kill -9 of the daemon.
    pub fn kill_daemon(&self) {
        kill(self.daemon_pid().expect("the daemon runs"));
    }

    /// kill -9 of parent and daemon, or a polite end.
    pub fn stop_all(&mut self, signal: nix::sys::signal::Signal) {
        let daemon = self.daemon_pid();
        let parent = nix::unistd::Pid::from_raw(i32::try_from(self.parent.id()).unwrap());
        nix::sys::signal::kill(parent, signal).unwrap();
        self.parent.wait().unwrap();
        if let Some(pid) = daemon.filter(|_| signal == nix::sys::signal::Signal::SIGKILL) {
            kill(pid);
        }
    }

    pub async fn start_again(&mut self) {
        self.parent = spawn(&self.state, &self.name, &self.range);
        self.client = connect(&self.state, &mut self.parent).await.expect("a daemon on its own addresses");
    }

    pub fn remove(&self) -> std::process::Output {
        program().arg("remove").arg("--state").arg(&self.state).output().unwrap()
    }

    /// A file of a machine's disk.
    pub fn disk(&self, id: &str, path: &str) -> PathBuf {
        self.state.join("machines").join(id).join("rootfs").join(path)
    }

    /// Runs a program in a network namespace of ours.
    pub fn within(&self, namespace: &str, args: &[&str]) -> std::process::Output {
        Command::new("ip").args(["netns", "exec", &format!("{}-{namespace}", self.name)]).args(args).output().unwrap()
    }

    pub async fn wait_inventory(&self, cluster: &ClusterKey, what: &str, is: impl Fn(&Inventory) -> bool) -> Inventory {
        let start = Instant::now();
        loop {
            let found = self.client.inventory(cluster).await;
            if let Ok(inventory) = &found
                && is(inventory)
            {
                return inventory.clone();
            }
            assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}: {found:#?}");
            let _ = tokio::time::timeout(Duration::from_millis(500), self.client.changed(cluster, Duration::from_millis(400))).await;
        }
    }

    pub async fn wait_state(&self, cluster: &ClusterKey, id: &str, state: InstanceState) -> Instance {
        let of = |i: &Inventory| i.instances.iter().find(|i| i.id == id).cloned();
        let inventory = self.wait_inventory(cluster, &format!("{id} {state:?}"), |i| of(i).is_some_and(|i| i.state == state)).await;
        of(&inventory).unwrap()
    }
}

impl Drop for TestCloud {
    fn drop(&mut self) {
        let mut removed = self.remove();
        for _ in 0..3 {
            if !removed.status.success() {
                // The directory goes with this value: what is on the host must go before.
                removed = self.remove();
            }
        }
        let _ = self.parent.wait();
        if !std::thread::panicking() {
            assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
            assert_eq!(leftovers(&self.name, &self.state), Vec::<String>::new());
        }
    }
}

fn spawn(state: &Path, name: &str, range: &str) -> Child {
    let store = state.parent().unwrap().join("store");
    let log = std::fs::File::options().create(true).append(true).open(state.parent().unwrap().join("log")).unwrap();
    let mut command = program();
    command.arg("run").arg("--state").arg(state).arg("--store").arg(store).args(["--name", name, "--range", range]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// None where the daemon's parent ended: the addresses are in use.
async fn connect(state: &Path, parent: &mut Child) -> Option<LocalClient> {
    let start = Instant::now();
    loop {
        if let Ok(client) = LocalClient::from_dir(state)
            && client.status().await.is_ok()
        {
            return Some(client);
        }
        if parent.try_wait().unwrap().is_some() {
            return None;
        }
        let log = || std::fs::read_to_string(state.parent().unwrap().join("log")).unwrap_or_default();
        assert!(start.elapsed() < PATIENCE, "the daemon did not answer within {PATIENCE:?}: {}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn kill(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

/// Waits until `found` finds something.
pub async fn wait<T, F: Future<Output = Option<T>>>(what: &str, found: impl Fn() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited for {what} for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn wait_file(path: &Path) -> String {
    wait(&path.display().to_string(), || async { std::fs::read_to_string(path).ok().filter(|t| !t.is_empty()) }).await
}

pub fn cluster(name: &str) -> ClusterKey {
    ClusterKey { uid: format!("uid-{name}"), name: name.parse().unwrap() }
}

pub fn request(cluster: &ClusterKey, name: &str, user_data: &str) -> InstanceRequest {
    InstanceRequest {
        cluster: cluster.clone(),
        name: name.parse().unwrap(),
        machine_uid: format!("uid-{name}"),
        zone: None,
        user_data: format!("#!/bin/sh\nset -eu\n{user_data}\n"),
    }
}

/// Makes an instance and waits until its operating system was started.
pub async fn machine(cloud: &TestCloud, cluster: &ClusterKey, name: &str, user_data: &str) -> Result<Instance, CloudError> {
    let made = cloud.client.create_instance(&request(cluster, name, user_data)).await?;
    Ok(cloud.wait_state(cluster, &made.id, InstanceState::Running).await)
}
