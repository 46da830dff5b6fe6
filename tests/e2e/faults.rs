//! Trouble at run time: a condition says what, on which machine and why; and it heals when the cause goes.

use crate::workload;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slipway_tests::{Plane, until};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

const CLUSTER: &str = "hurt";

#[test]
fn trouble_is_told_and_heals_when_its_cause_goes() {
    trouble().unwrap_or_else(|error| panic!("{error:#}"));
}

fn trouble() -> Result<()> {
    let plane = Plane::up()?;

    println!("    a machine that never boots");
    plane.slipway(&["local", "faults", "--never-boot", "hurt-workers-0"])?.must("slipway local faults")?;
    plane.apply_cluster(CLUSTER, "v1.36.4", 1, 1)?;
    until("the cloud says that it runs", Duration::from_secs(60), || {
        let out = plane.slipway(&["local", "status", "--output", "json"]).map_err(|e| e.to_string())?.out;
        if out.contains("hurt-workers-0") { Ok(()) } else { Err(out) }
    })?;
    told(&plane, "its agent to answer", Duration::from_secs(60))?;
    plane.slipway(&["local", "faults", "--clear"])?.must("slipway local faults")?;
    // It is replaced by itself after ten minutes; who does not want to wait says so.
    plane.kubectl(&["delete", "machine", "hurt-workers-0", "--timeout=60s"])?.must("kubectl delete machine")?;
    plane.wait_ready(CLUSTER, Duration::from_secs(180))?;
    plane.fetch_kubeconfig(CLUSTER)?;
    let machine = plane.machines(CLUSTER, "cp")?[0].clone();

    println!("    a port taken by somebody else");
    let mut thief = take_port(&plane, &machine, "127.0.0.1", 10259, "kube-scheduler")?;
    let told_of_it = told(&plane, "kube-scheduler.service to stay up", Duration::from_secs(60));
    thief.kill()?;
    thief.wait()?;
    told_of_it?;
    until("kube-scheduler runs again, and nobody waits for it", Duration::from_secs(60), || {
        let object = plane.object("cluster", CLUSTER).map_err(|e| e.to_string())?.ok_or("no Cluster")?;
        let waits = object["status"]["waits"].to_string();
        let runs = !plane.processes_of(&machine, "kube-scheduler").is_empty();
        if runs && !waits.contains("kube-scheduler") { Ok(()) } else { Err(format!("runs: {runs}, waits: {waits}")) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(90))?;

    println!("    an altered program is not started");
    altered_program(&plane, &machine)?;
    plane.wait_ready(CLUSTER, Duration::from_secs(90))?;

    println!("    a full disk");
    full_disk(&plane)?;

    println!("    the management API is away for a while");
    let nodes = workload::ready_nodes(&plane, CLUSTER).map_err(anyhow::Error::msg)?;
    let apiserver = plane.process_of("management-cp-0", "kube-apiserver")?;
    kill(Pid::from_raw(apiserver.pid), Signal::SIGSTOP)?;
    let before = plane.process_of(&machine, "kubelet")?.pid;
    std::thread::sleep(Duration::from_secs(15)); // the length of the outage: it is the fault itself, there is nothing to wait for
    let still = workload::ready_nodes(&plane, CLUSTER).map_err(anyhow::Error::msg);
    kill(Pid::from_raw(apiserver.pid), Signal::SIGCONT)?;
    ensure!(still? == nodes, "the cluster changed while its management was away");
    plane.wait_ready(CLUSTER, Duration::from_secs(60))?;
    ensure!(plane.process_of(&machine, "kubelet")?.pid == before, "a kubelet was restarted because the management API had been away");

    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// `slipway describe` names the thing, and the Cluster says that it is not Ready or not up to date because of it.
fn told(plane: &Plane, what: &str, limit: Duration) -> Result<()> {
    until(&format!("{what} is named as the trouble"), limit, || {
        let object = plane.object("cluster", CLUSTER).map_err(|e| e.to_string())?.ok_or("no Cluster")?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let waits = object["status"]["waits"].as_array().cloned().unwrap_or_default();
        let speaks = conditions.iter().filter(|c| c["status"] != "True").chain(&waits).any(|c| c.to_string().contains(what));
        if speaks { Ok(()) } else { Err(format!("{conditions:?} {waits:?}")) }
    })
}

/// Kills the rightful owner and listens in its place, in the machine's network.
fn take_port(plane: &Plane, machine: &str, address: &str, port: u16, owner: &str) -> Result<Child> {
    let process = plane.process_of(machine, owner)?;
    let listen = format!(
        "import socket,time\ns=socket.socket();s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\nwhile True:\n try:\n  s.bind(('{address}',{port}));break\n except OSError: time.sleep(.002)\ns.listen();print('taken',flush=True);time.sleep(300)"
    );
    // Enters the network of another process of the machine: the owner's own is about to end.
    let anchor = plane.process_of(machine, "slipway-agent")?;
    let mut thief = Command::new("nsenter")
        .args(["--net", "--target", &anchor.pid.to_string(), "python3", "-c", &listen])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    kill(Pid::from_raw(process.pid), Signal::SIGKILL)?;
    let mut line = [0; 5];
    std::io::Read::read_exact(thief.stdout.as_mut().context("no pipe")?, &mut line)?;
    Ok(thief)
}

/// A program is replaced by another one where the machine finds it; the machine loses power and comes back: the program is not run, and
/// the agent says so. Then the link is put right.
fn altered_program(plane: &Plane, machine: &str) -> Result<()> {
    let agent = plane.process_of(machine, "slipway-agent")?;
    let link = PathBuf::from(format!("/proc/{}/root/opt/slipway/bin/kube-scheduler", agent.pid));
    let right = std::fs::read_link(&link)?;
    let wrong = PathBuf::from(format!("/proc/{}/root/var/lib/wrong", agent.pid));
    std::fs::write(&wrong, "#!/bin/sh\nexec sleep 1000\n")?;
    ensure!(wrong.metadata()?.uid() == 0);
    std::fs::remove_file(&link)?;
    std::os::unix::fs::symlink("/var/lib/wrong", &link)?;
    let scheduler = plane.process_of(machine, "kube-scheduler")?;
    kill(Pid::from_raw(agent.pid), Signal::SIGKILL)?;
    kill(Pid::from_raw(scheduler.pid), Signal::SIGKILL)?;
    // The agent comes back, verifies, and puts the right one in its place: the end that counts.
    until("the right kube-scheduler runs", Duration::from_secs(60), || {
        let agent = plane.process_of(machine, "slipway-agent").map_err(|e| e.to_string())?;
        let now = std::fs::read_link(format!("/proc/{}/root/opt/slipway/bin/kube-scheduler", agent.pid)).map_err(|e| e.to_string())?;
        let runs = plane
            .processes_of(machine, "kube-scheduler")
            .into_iter()
            .any(|p| std::fs::read_link(format!("/proc/{}/exe", p.pid)).is_ok_and(|e| e.ends_with("kube-scheduler")));
        if now == right && runs { Ok(()) } else { Err(format!("the link says {}, it runs: {runs}", now.display())) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60)).map(drop)
}

/// A worker's disk is full while its configuration changes: the agent cannot keep the new one, says so, outlives its own death, and follows
/// once there is room; then there is no room where the configuration's files are. What runs runs on.
fn full_disk(plane: &Plane) -> Result<()> {
    let machine = plane.machines(CLUSTER, "workers")?.pop().context("no worker")?;
    let kubelet = plane.process_of(&machine, "kubelet")?.pid;
    let agent = plane.process_of(&machine, "slipway-agent")?.pid;

    let ballast = fill(plane, &machine, "/var/lib/slipway/agent")?;
    taint_workers(plane, "first")?;
    let full = ["plan.json", "No space left on device", "free space"];
    told_in_full(plane, &machine, "ActionFailing", &full, |wait| wait["nextTry"].is_string())?;
    kill(Pid::from_raw(agent), Signal::SIGKILL)?;
    until("the agent comes back to a full disk", Duration::from_secs(30), || match plane.process_of(&machine, "slipway-agent") {
        Ok(now) if now.pid != agent => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    told_in_full(plane, &machine, "ActionFailing", &full, |wait| wait["nextTry"].is_string())?;
    ensure!(plane.process_of(&machine, "kubelet")?.pid == kubelet, "a kubelet was started anew because a disk was full");
    free(plane, &machine, &ballast)?;
    healed(plane)?;

    let kubelet = plane.process_of(&machine, "kubelet")?.pid;
    let ballast = fill(plane, &machine, "/etc/kubernetes")?;
    taint_workers(plane, "second")?;
    let full = ["/etc/kubernetes/kubelet.json", "No space left on device", "free space"];
    // The agent tries again by itself, and says how often.
    let again = |wait: &Value| wait["what"].as_str().is_some_and(|what| what.contains("trying again every"));
    told_in_full(plane, &machine, "ConfigurationTroubled", &full, again)?;
    ensure!(plane.process_of(&machine, "kubelet")?.pid == kubelet, "a kubelet was started anew without its configuration");
    free(plane, &machine, &ballast)?;
    healed(plane)
}

/// Gives a directory of a machine a small file system of its own with what was in it, and fills it to the last byte. The path of what fills it.
fn fill(plane: &Plane, machine: &str, directory: &str) -> Result<String> {
    let ballast = format!("{directory}/ballast");
    inside(
        plane,
        machine,
        &format!(
            "mkdir -p /run/small && mount -t tmpfs -o size=4m,mode=$(stat -c %a {directory}) small /run/small && cp -a {directory}/. /run/small/ && \
             mount --bind /run/small {directory} && umount /run/small && ! dd if=/dev/zero of={ballast} bs=4k status=none 2>/dev/null"
        ),
    )?;
    Ok(ballast)
}

fn free(plane: &Plane, machine: &str, ballast: &str) -> Result<()> {
    inside(plane, machine, &format!("rm {ballast}"))
}

/// A shell's work among a machine's files.
fn inside(plane: &Plane, machine: &str, script: &str) -> Result<()> {
    // PID 1's mounts are the machine's; a unit may have some of its own.
    let init = plane.process_of(machine, "systemd")?.pid.to_string();
    let done = Command::new("nsenter").args(["--mount", "--root", "--target", &init, "sh", "-ec", script]).output()?;
    ensure!(done.status.success(), "in {machine}: {script}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Changes the workers' configuration, and nothing else's.
fn taint_workers(plane: &Plane, value: &str) -> Result<()> {
    let taint = json!({"key": "example.com/disk", "value": value, "effect": "PreferNoSchedule"});
    let patch = json!({"spec": {"pools": [{"name": "workers", "replicas": 1, "taints": [taint]}]}}).to_string();
    plane.kubectl(&["patch", "cluster", CLUSTER, "--type=merge", "--patch", &patch])?.must("kubectl patch")?;
    Ok(())
}

/// A wait of that reason names the machine, since when, the error and the next try; so does the condition.
fn told_in_full(plane: &Plane, machine: &str, reason: &str, words: &[&str], next_try: impl Fn(&Value) -> bool) -> Result<()> {
    until(&format!("{reason} is told of {machine}"), Duration::from_secs(60), || {
        let object = plane.object("cluster", CLUSTER).map_err(|e| e.to_string())?.ok_or("no Cluster")?;
        let has = |text: &str| words.iter().all(|word| text.contains(word));
        let all = |list: &str| object["status"][list].as_array().cloned().unwrap_or_default();
        let wait = all("waits").into_iter().find(|w| w["machine"] == machine && w["reason"] == reason);
        let wait = wait.filter(|w| w["lastError"].as_str().is_some_and(has) && w["since"].is_string() && next_try(w));
        let condition = all("conditions").into_iter().find(|c| c["type"] == "UpToDate" && c["status"] == "False");
        let condition = condition.filter(|c| c["message"].as_str().is_some_and(|m| m.contains(machine) && has(m)));
        if wait.is_some() && condition.is_some() { Ok(()) } else { Err(object["status"].to_string()) }
    })
}

fn healed(plane: &Plane) -> Result<()> {
    let generation = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    until("the workers follow, and nobody waits", Duration::from_secs(90), || {
        let object = plane.object("cluster", CLUSTER).map_err(|e| e.to_string())?.ok_or("no Cluster")?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let up_to_date = conditions.iter().any(|c| c["type"] == "UpToDate" && c["status"] == "True");
        let waits = object["status"]["waits"].as_array().map_or(0, Vec::len);
        if up_to_date && waits == 0 && generation(&object) { Ok(()) } else { Err(object["status"].to_string()) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60)).map(drop)
}
