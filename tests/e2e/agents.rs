//! Agents exchanged as a new release of Slipway does it: by `slipway up` with other programs, the management plane's own first. One machine of a cluster at
//! a time, no unit of any machine restarted; one that fails costs one machine's agent a moment, and the others nothing. And certificates renewed long
//! before they end.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slipway_tests::cluster::{Cluster, spec};
use slipway_tests::{Finished, Plane, programs, until};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const WORKER: &str = "agents-workers-0";
const PLANE: &str = "agents-cp-0";
const MANAGEMENT: &str = "management-cp-0";
/// Renewed after two minutes: within this suite.
const CERTIFICATE_LIFE: &str = "3m";
/// What holds a pod.
const SHIM: &str = "containerd-shim-runc-v2";

#[test]
fn agents_are_exchanged_one_at_a_time_fall_back_and_are_renewed_and_nothing_else_notices() {
    exchanged().unwrap_or_else(|error| panic!("{error:#}"));
}

/// Slipway's programs with an agent of the test's own.
struct Release {
    bin: PathBuf,
    /// Of its agent.
    sha256: String,
    /// It is what is tested, and not the test's own.
    is_tested: bool,
}

impl Release {
    /// The others are links to what is tested.
    fn new(plane: &Plane, name: &str, agent: &[u8]) -> Result<Self> {
        let bin = plane.state().with_extension(format!("bin-{name}"));
        std::fs::create_dir_all(&bin)?;
        for program in ["slipway", "slipway-local", "slipway-ccm-local", "slipway-operator"] {
            symlink(plane.bin().join(program), bin.join(program))?;
        }
        let path = bin.join("slipway-agent");
        std::fs::write(&path, agent)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self { sha256: sha256(&path)?, bin, is_tested: agent == std::fs::read(plane.bin().join("slipway-agent"))? })
    }

    fn up(&self, plane: &Plane) -> Result<Finished> {
        let bin = self.bin.to_string_lossy();
        plane.slipway(&["up", "--no-check", "--bin", &bin, "--agent-certificate-life", CERTIFICATE_LIFE])?.must("slipway up")
    }

    /// Brings it up, and the management machine's agent with it. Another `up` finds nothing to do.
    fn up_everywhere(&self, plane: &Plane) -> Result<()> {
        self.up(plane)?;
        let now = agent(plane, MANAGEMENT)?;
        ensure!(sha256(Path::new(&format!("/proc/{now}/exe")))? == self.sha256, "the management machine's agent is not this release's");
        let again = self.up(plane)?;
        ensure!(again.out.contains("nothing to do") && !again.err.contains("agent"), "once more, `up` says {}{}", again.err, again.out);
        ensure!(agent(plane, MANAGEMENT)? == now, "once more, `up` restarts the management machine's agent");
        Ok(())
    }
}

/// Files of builds that only this test knows: in the store too, where nobody else would remove them.
impl Drop for Release {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.bin);
        if self.is_tested {
            return;
        }
        let store = std::env::var_os("SLIPWAY_STORE").map(PathBuf::from);
        let store = store.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/slipway/store")));
        if let Some(store) = store {
            let _ = std::fs::remove_dir_all(store.join("sha256").join(&self.sha256));
        }
    }
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().next().map(str::to_owned).context("sha256sum says nothing")
}

/// The same program, and another build of it.
fn altered(agent: &[u8], mark: &str) -> Vec<u8> {
    [agent, mark.as_bytes()].concat()
}

/// It can say its version and nothing else.
const ENDS_AT_ONCE: &[u8] = b"#!/bin/sh\nif [ \"$1\" = version ]; then echo 9.9.9; exit 0; fi\necho 'no such luck' >&2\nexit 7\n";

/// What agents say of themselves, by machine.
fn told(cluster: &Cluster<'_>) -> Result<BTreeMap<String, Value>> {
    let name = |m: &Value| m["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(cluster.machine_objects()?.iter().map(|m| (name(m), m["status"]["agent"].clone())).collect())
}

/// What the units of the machines run, and what holds pods: neither agents nor the operator, which another release exchanges. A process that is about to
/// become another program still has the name of who made it.
fn running(plane: &Plane) -> BTreeSet<(String, String, i32)> {
    let ours = |host: &str| [WORKER, PLANE, MANAGEMENT].contains(&host);
    let stays = |name: &str| name == SHIM || programs::of_control_plane().any(|program| program == name);
    let processes = plane.processes().into_iter().filter(|p| ours(&p.host) && stays(&p.name));
    processes.map(|p| (p.host, p.name, p.pid)).collect()
}

/// Which process the agent of a machine is. While a trial runs, whoever decides is another of that name.
fn agent(plane: &Plane, machine: &str) -> Result<i32> {
    until(&format!("the agent of {machine} is one process"), Duration::from_secs(30), || {
        match plane.processes_of(machine, "slipway-agent").as_slice() {
            [one] => Ok(one.pid),
            several => Err(format!("there are {}", several.len())),
        }
    })
}

/// Everything is as it was, but for agents.
struct Undisturbed<'a> {
    cluster: &'a Cluster<'a>,
    before: BTreeSet<(String, String, i32)>,
}

impl<'a> Undisturbed<'a> {
    /// From when everything runs that shall run.
    fn new(cluster: &'a Cluster<'a>) -> Result<Self> {
        until("CoreDNS runs", Duration::from_secs(120), || {
            let path = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";
            let answer = cluster.api().request("GET", path, None, Duration::from_secs(5)).map_err(|e| format!("{e:?}"))?;
            let (wanted, there) = (&answer.body["spec"]["replicas"], &answer.body["status"]["availableReplicas"]);
            if wanted.is_u64() && wanted == there { Ok(()) } else { Err(format!("{there} of {wanted}")) }
        })?;
        let mut before = BTreeSet::new();
        until("what runs stays the same", Duration::from_secs(60), || {
            let last = std::mem::replace(&mut before, running(cluster.plane()));
            if last == before { Ok(()) } else { Err(format!("{} and {} processes", last.len(), before.len())) }
        })?;
        for (machine, program) in
            [(WORKER, "kubelet"), (PLANE, "etcd"), (PLANE, "kube-apiserver"), (MANAGEMENT, "etcd"), (MANAGEMENT, "kube-apiserver")]
        {
            ensure!(before.iter().any(|(host, name, _)| name == program && host == machine), "no {program} on {machine}: {before:?}");
        }
        // CoreDNS goes to whichever Node is there first.
        ensure!(before.iter().any(|(_, name, _)| name == SHIM), "nothing holds a pod: {before:?}");
        Ok(Self { cluster, before })
    }

    /// Nodes are Ready and pods may come to them; and no more than one agent is on trial.
    fn look(&self) -> Result<()> {
        let nodes = self.cluster.nodes()?;
        ensure!(nodes.len() == 2 && nodes.iter().all(|(_, ready, _)| *ready), "Nodes are not Ready: {nodes:?}");
        let trials: Vec<String> = told(self.cluster)?.into_iter().filter(|(_, a)| !a["trial"].is_null()).map(|(m, _)| m).collect();
        ensure!(trials.len() <= 1, "agents of {trials:?} are on trial at once");
        Ok(())
    }

    fn end(&self) -> Result<()> {
        self.look()?;
        // Nothing that has gone comes back with its number.
        until("everything runs that ran, and nothing else", Duration::from_secs(10), || {
            let now = running(self.cluster.plane());
            let told = || format!("gone: {:?}; new: {:?}", self.before.difference(&now), now.difference(&self.before));
            if now == self.before { Ok(()) } else { Err(told()) }
        })
    }

    /// Waits until agents say what `holds`, and looks whether anything else notices meanwhile.
    fn until(&self, what: &str, holds: impl Fn(&BTreeMap<String, Value>) -> bool) -> Result<()> {
        let mut disturbed = None;
        until(what, Duration::from_secs(180), || {
            disturbed = disturbed.take().or_else(|| self.look().err());
            let told = told(self.cluster).map_err(|e| format!("{e:#}"))?;
            if disturbed.is_some() || holds(&told) { Ok(()) } else { Err(format!("{told:?}")) }
        })?;
        disturbed.map_or_else(|| self.end(), Err)
    }
}

fn all_are(told: &BTreeMap<String, Value>, build: &str) -> bool {
    told.len() == 2 && told.values().all(|a| a["build"] == build && a["trial"].is_null() && a["refused"].is_null())
}

fn exchanged() -> Result<()> {
    let plane = Plane::reserve()?;
    let program = std::fs::read(plane.bin().join("slipway-agent"))?;
    let first = Release::new(&plane, "first", &program)?;
    first.up(&plane)?;
    let cluster = Cluster::create(&plane, "agents", &spec("v1.36.4", 1, 1))?;
    let undisturbed = Undisturbed::new(&cluster)?;
    undisturbed.until("agents say which build they are", |told| all_are(told, &first.sha256))?;
    let certificates = ends(&cluster)?;

    println!("    shown first");
    let second = Release::new(&plane, "second", &altered(&program, "second"))?;
    cluster.patch(&json!({"maintenance": {"paused": true}}))?;
    let management = agent(&plane, MANAGEMENT)?;
    second.up_everywhere(&plane)?;
    ensure!(agent(&plane, MANAGEMENT)? != management, "the management machine's agent is still process {management}");
    undisturbed.end()?;
    until("agents wait for the end of the pause", Duration::from_secs(60), || {
        let waits = waits(&cluster, "Paused")?;
        if waits.iter().any(|w| w["what"].to_string().contains("are exchanged then")) { Ok(()) } else { Err(format!("{waits:?}")) }
    })?;
    let shown = shown(&plane, &cluster)?;
    let wanted = |machine: &str| format!("let the agent of {machine} try build {:.12}", second.sha256);
    ensure!(shown == [wanted(WORKER), wanted(PLANE)], "the forecast is {shown:?}");

    println!("    another build: one after the other");
    let (worker, control_plane) = (agent(&plane, WORKER)?, agent(&plane, PLANE)?);
    cluster.patch(&json!({"maintenance": null}))?;
    undisturbed.until("all agents are the second build", |told| all_are(told, &second.sha256))?;
    for (machine, before) in [(WORKER, worker), (PLANE, control_plane)] {
        let now = agent(&plane, machine)?;
        ensure!(now != before, "the agent of {machine} is still process {before}");
        ensure!(sha256(Path::new(&format!("/proc/{now}/exe")))? == second.sha256, "the agent of {machine} is another build than it says");
    }
    cluster.settle("the cluster", Duration::from_secs(60))?;

    println!("    a build that ends at once");
    let control_plane = agent(&plane, PLANE)?;
    let broken = Release::new(&plane, "broken", ENDS_AT_ONCE)?;
    management_keeps(&plane, &second, &broken)?;
    undisturbed.until("the worker's agent is what it was", |told| {
        told.get(WORKER).is_some_and(|a| a["refused"]["build"] == broken.sha256.as_str() && a["build"] == second.sha256.as_str())
    })?;
    stands_still(&cluster, &second, &broken)?;
    let worker = agent(&plane, WORKER).context("after the trial")?;
    let operator = plane.process_of("management-cp-0", "slipway-operator")?;
    kill(Pid::from_raw(operator.pid), Signal::SIGKILL)?;
    until("another operator leads", Duration::from_secs(60), || {
        let now = plane.process_of("management-cp-0", "slipway-operator").map_err(|e| e.to_string())?;
        if now.pid == operator.pid { Err("the old one".into()) } else { Ok(()) }
    })?;
    // It has looked at everything when it says what the spec's newest generation is.
    cluster.patch(&json!({"pools": [{"name": "workers", "replicas": 1, "drainTimeoutSeconds": 301}]}))?;
    until("it has looked at the cluster", Duration::from_secs(60), || {
        let object = cluster.object().map_err(|e| format!("{e:#}"))?;
        let (seen, is) = (&object["status"]["observedGeneration"], &object["metadata"]["generation"]);
        if seen == is { Ok(()) } else { Err(format!("{seen} of {is}")) }
    })?;
    stands_still(&cluster, &second, &broken)?;
    for (machine, before) in [(WORKER, worker), (PLANE, control_plane)] {
        ensure!(agent(&plane, machine)? == before, "the agent of {machine} was touched again");
    }
    undisturbed.end()?;

    println!("    a good one again");
    let third = Release::new(&plane, "third", &altered(&program, "third"))?;
    third.up_everywhere(&plane)?;
    undisturbed.until("all agents are the third build", |told| all_are(told, &third.sha256))?;
    cluster.settle("the cluster", Duration::from_secs(60))?;

    println!("    certificates");
    undisturbed.until("certificates are renewed", |told| {
        let ends = |machine: &str| told.get(machine).and_then(|a| a["certificateExpires"].as_str()).map(str::to_owned);
        [WORKER, PLANE].iter().all(|m| ends(m) > certificates.get(*m).cloned())
    })?;
    let logs = plane.slipway(&["logs", WORKER, "kubelet.service", "--lines", "1"])?.must("slipway logs")?;
    ensure!(!logs.out.is_empty(), "a connection made anew reads nothing");
    undisturbed.end()?;

    cluster.delete()?;
    // The store, which is everybody's, names it again.
    first.up(&plane)?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// The management machine's agent tries what does not stay once, and `up` says so each time and goes on.
fn management_keeps(plane: &Plane, kept: &Release, refused: &Release) -> Result<()> {
    let before = agent(plane, MANAGEMENT)?;
    let first = refused.up(plane)?;
    ensure!(first.err.contains("waiting for the end of the trial"), "`up` does not say what it waits for: {}", first.err);
    let now = agent(plane, MANAGEMENT)?;
    ensure!(now != before, "the management machine's agent did not try the build");
    let again = refused.up(plane)?;
    ensure!(agent(plane, MANAGEMENT)? == now, "the management machine's agent tried the same build again");
    ensure!(!again.err.contains("waiting") && again.out.contains("nothing was changed"), "once more, `up` says {}{}", again.err, again.out);
    for said in [first, again].map(|finished| finished.out) {
        let told = said.contains("warning") && said.contains("no such luck") && said.contains(&refused.sha256[..12]);
        ensure!(told, "a build that does not stay is not told of: {said}");
    }
    ensure!(sha256(Path::new(&format!("/proc/{now}/exe")))? == kept.sha256, "the build before did not come back");
    Ok(())
}

/// When certificates end, as they were issued at first: RFC 3339 in UTC sorts like the times it tells.
fn ends(cluster: &Cluster<'_>) -> Result<BTreeMap<String, String>> {
    let told = told(cluster)?;
    let end = |(machine, agent): (String, Value)| Some((machine, agent["certificateExpires"].as_str()?.to_owned()));
    let ends: BTreeMap<String, String> = told.clone().into_iter().filter_map(end).collect();
    ensure!(ends.len() == 2, "agents do not say when their certificates end: {told:?}");
    Ok(ends)
}

fn waits(cluster: &Cluster<'_>, reason: &str) -> Result<Vec<Value>, String> {
    let object = cluster.object().map_err(|e| format!("{e:#}"))?;
    Ok(object["status"]["waits"].as_array().into_iter().flatten().filter(|w| w["reason"] == reason).cloned().collect())
}

/// It is said which machine refused the build and why; the other was left alone.
fn stands_still(cluster: &Cluster<'_>, kept: &Release, refused: &Release) -> Result<()> {
    until("the refusal is told", Duration::from_secs(60), || {
        let (status, reason, message) = cluster.condition("Progressing").map_err(|e| format!("{e:#}"))?;
        let wait = waits(cluster, "AgentUpdateRefused")?;
        let named = wait.len() == 1 && wait[0]["machine"] == WORKER && wait[0]["lastError"].to_string().contains("no such luck");
        let told = (status.as_str(), reason.as_str()) == ("False", "AgentUpdateRefused") && message.contains(WORKER);
        if named && told { Ok(()) } else { Err(format!("{status} {reason}: {message}; {wait:?}")) }
    })?;
    ensure!(cluster.condition("Ready")?.0 == "True", "{:?}", cluster.condition("Ready"));
    let told = told(cluster)?;
    ensure!(told[WORKER]["build"] == kept.sha256.as_str() && told[WORKER]["refused"]["build"] == refused.sha256.as_str(), "{told:?}");
    ensure!(told[PLANE]["build"] == kept.sha256.as_str() && told[PLANE]["refused"].is_null(), "{told:?}");
    Ok(())
}

/// What `slipway plan` says would be done if the cluster were not paused.
fn shown(plane: &Plane, cluster: &Cluster<'_>) -> Result<Vec<String>> {
    let mut spec = cluster.object()?["spec"].clone();
    spec["maintenance"] = json!({"paused": false});
    let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": cluster.name()}, "spec": spec});
    let file = plane.state().join("unpaused.json");
    std::fs::write(&file, object.to_string())?;
    let planned = plane.slipway(&["plan", "--file", &file.to_string_lossy(), "--output", "json"])?;
    ensure!(planned.code == 6, "slipway plan ended with {}: {}{}", planned.code, planned.out, planned.err);
    let rows: Value = serde_json::from_str(&planned.out)?;
    let steps = rows[0]["steps"].as_array().into_iter().flatten().flat_map(|s| s["actions"].as_array().cloned().unwrap_or_default());
    // A certificate may be due in the same minute.
    Ok(steps.filter_map(|a| a.as_str().map(str::to_owned)).filter(|a| !a.starts_with("renew the certificate")).collect())
}
