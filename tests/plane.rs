//! One management plane for one test: brought up by `slipway up`, taken down by `slipway down` however the test ends.

use crate::Process;
use crate::api::Api;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// How long it ran.
    pub took: Duration,
}

/// A management plane and its clusters.
pub struct Plane {
    bin: PathBuf,
    state: PathBuf,
    name: String,
    range: Slot,
}

/// How many ranges there are for tests.
const SLOTS: u32 = 16;

/// A range of addresses that no other test of this host uses, for as long as it is held.
struct Slot {
    range: String,
    _lock: Flock<File>,
}

impl Slot {
    /// The first that is free, from `wanted` on.
    fn take(wanted: u32) -> Result<Self> {
        for slot in (0..SLOTS).map(|n| (wanted + n) % SLOTS) {
            let path = std::env::temp_dir().join(format!("slipway-e2e-range-{slot}.lock"));
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("cannot open {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { range: format!("198.19.{}.0/20", slot * (256 / SLOTS)), _lock: lock }),
                Err((_, Errno::EWOULDBLOCK)) => {}
                Err((_, error)) => bail!("cannot lock {}: {error}", path.display()),
            }
        }
        bail!("all {SLOTS} ranges of addresses for tests are in use: other tests run on this host; wait for their end")
    }
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Plane {
    /// Names and paths for a plane; nothing is started. They depend on this process's id: several checkouts may test at once.
    pub fn reserve() -> Result<Self> {
        let bin = std::env::var_os("SLIPWAY_BIN").map(PathBuf::from);
        let bin = bin.context("SLIPWAY_BIN does not say where Slipway's programs are: run the suites by `cargo xtask test --only e2e`")?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let state = std::env::temp_dir().join(format!("slipway-e2e-{pid}-{number}"));
        let range = Slot::take(pid.wrapping_mul(7).wrapping_add(number) % SLOTS)?;
        Ok(Self { bin, state, name: format!("e{:x}{number:x}", pid & 0xfff), range })
    }

    /// `slipway up` without a cluster.
    pub fn up() -> Result<Self> {
        let plane = Self::reserve()?;
        let finished = plane.slipway(&["up", "--no-check"])?.must("slipway up")?;
        println!("      management plane: {:.1} s", finished.took.as_secs_f64());
        Ok(plane)
    }

    /// Where it keeps its things.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What its namespaces, links and cgroups begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Slipway's programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A `slipway` that speaks of this plane; not started.
    #[must_use]
    pub fn slipway_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("slipway"));
        command.args(args).env("SLIPWAY_STATE", &self.state).env("SLIPWAY_NAME", &self.name).env("SLIPWAY_RANGE", &self.range.range);
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// Runs `slipway`.
    pub fn slipway(&self, args: &[&str]) -> Result<Finished> {
        finish(&mut self.slipway_command(args))
    }

    /// A `kubectl` against the management plane; not started.
    #[must_use]
    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        kubectl(&self.state, &self.state.join("management.kubeconfig"), args)
    }

    /// Runs `kubectl` against the management plane.
    pub fn kubectl(&self, args: &[&str]) -> Result<Finished> {
        finish(&mut self.kubectl_command(args))
    }

    /// Applies YAML to the management plane.
    pub fn apply(&self, yaml: &str) -> Result<Finished> {
        finish_with(&mut self.kubectl_command(&["apply", "--filename", "-"]), yaml)
    }

    /// A Cluster with this many control planes and workers.
    pub fn apply_cluster(&self, name: &str, version: &str, control_planes: u32, workers: u32) -> Result<()> {
        let pools = if workers == 0 { String::new() } else { format!("  pools:\n  - {{ name: workers, replicas: {workers} }}\n") };
        self.apply(&format!(
            "apiVersion: slipway.dev/v1alpha1\nkind: Cluster\nmetadata: {{ name: {name} }}\nspec:\n  kubernetesVersion: {version}\n  provider: {{ local: {{}} }}\n  controlPlane: {{ replicas: {control_planes} }}\n{pools}"
        ))?
        .must("kubectl apply")?;
        Ok(())
    }

    /// An object of the management plane as JSON, or `None` where there is none.
    pub fn object(&self, kind: &str, name: &str) -> Result<Option<Value>> {
        let finished = self.kubectl(&["get", kind, name, "--ignore-not-found", "--output=json"])?.must("kubectl get")?;
        if finished.out.trim().is_empty() { Ok(None) } else { Ok(Some(serde_json::from_str(&finished.out)?)) }
    }

    /// Names of a cluster's Machines of one pool, sorted.
    pub fn machines(&self, cluster: &str, pool: &str) -> Result<Vec<String>> {
        let finished = self.kubectl(&["get", "machines", "--output=json"])?.must("kubectl get machines")?;
        let list: Value = serde_json::from_str(&finished.out)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mine = items.iter().filter(|m| m["spec"]["cluster"] == cluster && m["spec"]["pool"] == pool);
        Ok(mine.filter_map(|m| m["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until the Cluster is Ready. Seconds from the call.
    pub fn wait_ready(&self, cluster: &str, limit: Duration) -> Result<Duration> {
        let started = Instant::now();
        let timeout = format!("{}s", limit.as_secs());
        let finished = self.slipway(&["wait", cluster, "--for", "condition=Ready", "--timeout", &timeout])?;
        if finished.code != 0 {
            let described = self.slipway(&["describe", cluster])?;
            bail!("{cluster} is not Ready after {limit:?}: {}{}\n{}{}", finished.out, finished.err, described.out, described.err);
        }
        println!("      {cluster} Ready: after {:.1} s", started.elapsed().as_secs_f64());
        Ok(started.elapsed())
    }

    /// Writes the cluster's kubeconfig where [`Plane::inside`] looks for it.
    pub fn fetch_kubeconfig(&self, cluster: &str) -> Result<PathBuf> {
        let path = self.state.join(format!("{cluster}.e2e.kubeconfig"));
        self.slipway(&["kubeconfig", cluster, "--path", &path.to_string_lossy()])?.must("slipway kubeconfig")?;
        Ok(path)
    }

    /// A `kubectl` against the cluster itself; not started. Needs [`Plane::fetch_kubeconfig`] first.
    #[must_use]
    pub fn inside_command(&self, cluster: &str, args: &[&str]) -> Command {
        kubectl(&self.state, &self.state.join(format!("{cluster}.e2e.kubeconfig")), args)
    }

    /// Runs `kubectl` against the cluster itself.
    pub fn inside(&self, cluster: &str, args: &[&str]) -> Result<Finished> {
        finish(&mut self.inside_command(cluster, args))
    }

    /// Applies YAML to the cluster itself.
    pub fn apply_inside(&self, cluster: &str, yaml: &str) -> Result<Finished> {
        finish_with(&mut self.inside_command(cluster, &["apply", "--filename", "-"]), yaml)
    }

    /// The management plane's API.
    pub fn api(&self) -> Result<Api> {
        Api::from_kubeconfig(&self.state.join("management.kubeconfig"))
    }

    /// The local cloud's own API.
    pub fn cloud(&self) -> Result<Api> {
        Api::local_cloud(&self.state.join("local"))
    }

    /// `slipway down`, and what is left of the plane on the host afterwards: nothing, one hopes.
    pub fn down(self) -> Result<Vec<String>> {
        self.slipway(&["down", "--force"])?.must("slipway down")?;
        Ok(self.traces())
    }

    /// Everything that runs in machines of this plane's: other checkouts' suites have machines of the same names.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        crate::processes().into_iter().filter(|p| self.holds(p.pid)).collect()
    }

    /// A machine's processes of that name.
    #[must_use]
    pub fn processes_of(&self, machine: &str, name: &str) -> Vec<Process> {
        self.processes().into_iter().filter(|p| p.host == machine && p.name == name).collect()
    }

    /// The one of that name, or the oldest.
    pub fn process_of(&self, machine: &str, name: &str) -> Result<Process> {
        self.processes_of(machine, name).into_iter().next().with_context(|| format!("no {name} runs on {machine}"))
    }

    fn holds(&self, pid: i32) -> bool {
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroups.contains(&format!("{}-", self.name)) || cgroups.contains(&format!("/{}/", self.name))
    }

    /// What is on the host by this plane's name: processes, namespaces, links, mounts, cgroups, files.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let state = self.state.to_string_lossy().into_owned();
        for process in crate::processes() {
            if process.arguments.iter().any(|a| a.contains(&state)) {
                found.push(format!("process {} {}", process.pid, process.arguments.join(" ")));
            }
        }
        let ours = |text: &str| text.starts_with(&format!("{}-", self.name)) || text.starts_with(&format!("{}.", self.name));
        for (what, directory) in [("namespace", "/run/netns"), ("link", "/sys/class/net"), ("runc state", "/run/runc")] {
            let names = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            found.extend(names.filter(|n| ours(n)).map(|n| format!("{what} {n}")));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        found.extend(mounts.lines().filter(|l| l.contains(&state)).map(|l| format!("mount {l}")));
        let cgroups =
            finish(Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-type", "d", "-name", &format!("{}*", self.name)]));
        found.extend(cgroups.map(|f| f.out).unwrap_or_default().lines().map(|l| format!("cgroup {l}")));
        if self.state.exists() {
            found.push(format!("file {state}"));
        }
        found
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        if !self.state.exists() {
            return;
        }
        // A test that passed has taken its plane down itself.
        self.keep_for_a_look();
        if let Err(error) = self.slipway(&["down", "--force"]).and_then(|f| f.must("slipway down")) {
            eprintln!("      {} may not be gone: {error:#}", self.name);
        }
        // Also where `down` was called off: only files of this test's own.
        let _ = std::fs::remove_dir_all(&self.state);
    }
}

impl Plane {
    /// What one wants to know of a test that failed, before everything is taken away.
    fn keep_for_a_look(&self) {
        let get = |args: &[&str]| self.slipway(args).map(|f| f.out + &f.err).unwrap_or_default();
        eprintln!("----- {} when the test failed\n{}", self.name, get(&["get", "clusters"]));
        let clusters = self.kubectl(&["get", "clusters", "--output=name"]).map(|f| f.out).unwrap_or_default();
        for cluster in clusters.lines().filter_map(|l| l.rsplit('/').next()) {
            eprintln!("{}", get(&["describe", cluster]));
        }
        eprintln!("----- last lines of the operator\n{}", get(&["logs", "management-cp-0", "slipway-operator.service", "--lines", "60"]));
    }
}

impl Finished {
    /// Anything but exit code 0 is an error with what was said.
    pub fn must(self, what: &str) -> Result<Self> {
        if self.code != 0 {
            bail!("{what} ended with {}: {}{}", self.code, self.out, self.err);
        }
        Ok(self)
    }
}

fn kubectl(state: &Path, kubeconfig: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(state.join("bin/kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).args(args).stdin(Stdio::null());
    command
}

fn finish(command: &mut Command) -> Result<Finished> {
    let started = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}

fn finish_with(command: &mut Command, input: &str) -> Result<Finished> {
    use std::io::Write;
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    child.stdin.take().context("no pipe")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}
