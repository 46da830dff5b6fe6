//! Trouble at run time: a condition says what, on which machine and why; and it heals when the cause goes.

use crate::workload;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_tests::{Plane, processes_of_machine, until};
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
    let mut thief = take_port(&machine, "127.0.0.1", 10259, "kube-scheduler")?;
    let told_of_it = told(&plane, "kube-scheduler.service to stay up", Duration::from_secs(60));
    thief.kill()?;
    thief.wait()?;
    told_of_it?;
    until("kube-scheduler runs again, and nobody waits for it", Duration::from_secs(60), || {
        let object = plane.object("cluster", CLUSTER).map_err(|e| e.to_string())?.ok_or("no Cluster")?;
        let waits = object["status"]["waits"].to_string();
        let runs = processes_of_machine(&machine, "kube-scheduler").into_iter().any(|p| plane.holds(p.pid));
        if runs && !waits.contains("kube-scheduler") { Ok(()) } else { Err(format!("runs: {runs}, waits: {waits}")) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(90))?;

    println!("    an altered program is not started");
    altered_program(&plane, &machine)?;
    plane.wait_ready(CLUSTER, Duration::from_secs(90))?;

    println!("    the management API is away for a while");
    let nodes = workload::ready_nodes(&plane, CLUSTER).map_err(anyhow::Error::msg)?;
    let apiserver = processes_of_machine("management-cp-0", "kube-apiserver")
        .into_iter()
        .find(|p| plane.holds(p.pid))
        .context("no management kube-apiserver")?;
    kill(Pid::from_raw(apiserver.pid), Signal::SIGSTOP)?;
    let before = started(&machine, "kubelet")?;
    std::thread::sleep(Duration::from_secs(15)); // the length of the outage: it is the fault itself, there is nothing to wait for
    let still = workload::ready_nodes(&plane, CLUSTER).map_err(anyhow::Error::msg);
    kill(Pid::from_raw(apiserver.pid), Signal::SIGCONT)?;
    ensure!(still? == nodes, "the cluster changed while its management was away");
    plane.wait_ready(CLUSTER, Duration::from_secs(60))?;
    ensure!(started(&machine, "kubelet")? == before, "a kubelet was restarted because the management API had been away");

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
fn take_port(machine: &str, address: &str, port: u16, owner: &str) -> Result<Child> {
    let process = processes_of_machine(machine, owner).into_iter().next().with_context(|| format!("no {owner}"))?;
    let listen = format!(
        "import socket,time\ns=socket.socket();s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\nwhile True:\n try:\n  s.bind(('{address}',{port}));break\n except OSError: time.sleep(.002)\ns.listen();print('taken',flush=True);time.sleep(300)"
    );
    // Enters the network of another process of the machine: the owner's own is about to end.
    let anchor = processes_of_machine(machine, "slipway-agent").into_iter().next().context("no agent")?;
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
    let agent = processes_of_machine(machine, "slipway-agent").into_iter().next().context("no agent")?;
    let link = PathBuf::from(format!("/proc/{}/root/opt/slipway/bin/kube-scheduler", agent.pid));
    let right = std::fs::read_link(&link)?;
    let wrong = PathBuf::from(format!("/proc/{}/root/var/lib/wrong", agent.pid));
    std::fs::write(&wrong, "#!/bin/sh\nexec sleep 1000\n")?;
    ensure!(wrong.metadata()?.uid() == 0);
    std::fs::remove_file(&link)?;
    std::os::unix::fs::symlink("/var/lib/wrong", &link)?;
    let scheduler = processes_of_machine(machine, "kube-scheduler").into_iter().next().context("no kube-scheduler")?;
    kill(Pid::from_raw(agent.pid), Signal::SIGKILL)?;
    kill(Pid::from_raw(scheduler.pid), Signal::SIGKILL)?;
    // The agent comes back, verifies, and puts the right one in its place: the end that counts.
    until("the right kube-scheduler runs", Duration::from_secs(60), || {
        let Some(agent) = processes_of_machine(machine, "slipway-agent").into_iter().next() else { return Err("no agent".into()) };
        let now = std::fs::read_link(format!("/proc/{}/root/opt/slipway/bin/kube-scheduler", agent.pid)).map_err(|e| e.to_string())?;
        let runs = processes_of_machine(machine, "kube-scheduler")
            .into_iter()
            .any(|p| std::fs::read_link(format!("/proc/{}/exe", p.pid)).is_ok_and(|e| e.ends_with("kube-scheduler")));
        if now == right && runs { Ok(()) } else { Err(format!("the link says {}, it runs: {runs}", now.display())) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60)).map(drop)
}

fn started(machine: &str, name: &str) -> Result<i32> {
    processes_of_machine(machine, name).into_iter().map(|p| p.pid).next().with_context(|| format!("no {name} on {machine}"))
}
