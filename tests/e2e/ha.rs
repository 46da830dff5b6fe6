//! Three control planes and two workers: made, used, scaled, hurt, deleted.

use crate::workload;
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use slipway_tests::{Plane, processes, programs, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

const CLUSTER: &str = "ha";

#[test]
fn a_highly_available_cluster_lives_its_whole_life() {
    whole_life().unwrap_or_else(|error| panic!("{error:#}"));
}

fn whole_life() -> Result<()> {
    let plane = Plane::up()?;
    plane.apply_cluster(CLUSTER, "v1.36.4", 3, 2)?;
    plane.wait_ready(CLUSTER, Duration::from_secs(180))?;
    plane.fetch_kubeconfig(CLUSTER)?;

    println!("    traffic");
    let servers = workload::start(&plane, CLUSTER, 2)?;
    workload::traffic_flows(&plane, CLUSTER, &servers)?;
    people_reach_into_pods(&plane, &servers[0].pod)?;

    println!("    scale 2 → 4 → 1");
    for workers in [4, 1] {
        scale(&plane, workers)?;
    }

    println!("    kill -9 of every process");
    kill_everything_once(&plane)?;

    println!("    a worker loses power");
    scale(&plane, 2)?;
    power_off_a_worker(&plane)?;
    let servers = workload::start(&plane, CLUSTER, 2)?;
    workload::traffic_flows(&plane, CLUSTER, &servers)?;

    println!("    deletion");
    let started = Instant::now();
    plane.kubectl(&["delete", "cluster", CLUSTER, "--timeout=60s"])?.must("kubectl delete cluster")?;
    println!("      deleted: after {:.1} s", started.elapsed().as_secs_f64());
    ensure!(started.elapsed() < Duration::from_secs(30), "deletion took {:?}", started.elapsed());
    nothing_is_left_of_the_cluster(&plane)?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// exec was used by the traffic already; here: logs, and a port forward.
fn people_reach_into_pods(plane: &Plane, pod: &str) -> Result<()> {
    plane.inside(CLUSTER, &["logs", pod, "--tail=5"])?.must("kubectl logs")?;
    let mut forward = plane.inside_command(CLUSTER, &["port-forward", &format!("pod/{pod}"), ":8080"]).stdout(Stdio::piped()).spawn()?;
    let asked = (|| -> Result<String> {
        let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        // "Forwarding from 127.0.0.1:40123 -> 8080"
        let port: u16 = line.split("127.0.0.1:").nth(1).and_then(|r| r.split(' ').next()).and_then(|p| p.parse().ok()).unwrap_or(0);
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })();
    forward.kill()?;
    forward.wait()?;
    let answer = asked?;
    ensure!(answer.contains(pod), "through the port forward came {answer:?}");
    Ok(())
}

fn scale(plane: &Plane, workers: u32) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"pools":[{{"name":"workers","replicas":{workers}}}]}}}}"#);
    plane.kubectl(&["patch", "cluster", CLUSTER, "--type=merge", "--patch", &patch])?.must("kubectl patch")?;
    until(&format!("{workers} workers"), Duration::from_secs(120), || {
        let ready = workload::ready_nodes(plane, CLUSTER)?.len();
        let machines = plane.machines(CLUSTER, "workers").map_err(|e| e.to_string())?.len();
        if ready == 3 + workers as usize && machines == workers as usize {
            Ok(())
        } else {
            Err(format!("{ready} Nodes Ready, {machines} worker Machines"))
        }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60)).map(drop)
}

/// Every kind of process once. Each is back, as another process, and the cluster Ready, within half a minute.
fn kill_everything_once(plane: &Plane) -> Result<()> {
    let control_plane = plane.machines(CLUSTER, "cp")?[0].clone();
    let worker = plane.machines(CLUSTER, "workers")?[0].clone();
    let agent = programs::AGENT;
    let mut victims: Vec<(String, &str)> = programs::of_control_plane().chain([agent]).map(|name| (control_plane.clone(), name)).collect();
    victims.extend(programs::NODE.into_iter().chain([agent]).map(|name| (worker.clone(), name)));
    victims.extend(["etcd", "kube-apiserver", "slipway-operator", agent].map(|name| ("management-cp-0".to_owned(), name)));
    for (machine, name) in victims {
        let running = |name: &str| -> Vec<i32> { plane.processes_of(&machine, name).into_iter().map(|p| p.pid).collect() };
        let before = running(name);
        ensure!(!before.is_empty(), "no {name} runs on {machine}");
        before.iter().try_for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL))?;
        until(&format!("{name} on {machine}"), Duration::from_secs(30), || {
            let after = running(name);
            if !after.is_empty() && after.iter().all(|pid| !before.contains(pid)) { Ok(()) } else { Err("no new process".to_owned()) }
        })?;
    }
    // The daemon itself has a parent that starts it again.
    let daemons = || -> Vec<i32> {
        let state = plane.state().to_string_lossy().into_owned();
        processes()
            .into_iter()
            .filter(|p| {
                p.name == "slipway-local"
                    && p.arguments.get(1).is_some_and(|a| a == "serve")
                    && p.arguments.iter().any(|a| a.contains(&state))
            })
            .map(|p| p.pid)
            .collect()
    };
    let before = daemons();
    ensure!(!before.is_empty(), "no daemon runs");
    before.iter().try_for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL))?;
    until("slipway-local", Duration::from_secs(20), || {
        if daemons().iter().any(|pid| !before.contains(pid)) { Ok(()) } else { Err("not started again".to_owned()) }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60))?;
    until("five minus one Nodes", Duration::from_secs(60), || match workload::ready_nodes(plane, CLUSTER)?.len() {
        4 => Ok(()),
        n => Err(format!("{n} Ready")),
    })
}

fn power_off_a_worker(plane: &Plane) -> Result<()> {
    let before = plane.machines(CLUSTER, "workers")?;
    let victim = before[0].clone();
    plane.slipway(&["local", "power-off", &victim])?.must("slipway local power-off")?;
    until(&format!("{victim} replaced"), Duration::from_secs(150), || {
        let now = plane.machines(CLUSTER, "workers").map_err(|e| e.to_string())?;
        let ready = workload::ready_nodes(plane, CLUSTER)?;
        if !now.contains(&victim) && now.len() == 2 && now.iter().all(|m| ready.contains(m)) {
            Ok(())
        } else {
            Err(format!("Machines {now:?}, Ready {ready:?}"))
        }
    })?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60)).map(drop)
}

/// No record, no Secret, and on the host only what the management plane needs.
fn nothing_is_left_of_the_cluster(plane: &Plane) -> Result<()> {
    let left =
        plane.kubectl(&["get", "machines,nodepools,secrets", "--selector=slipway.dev/cluster=ha", "--output=name"])?.must("kubectl get")?;
    ensure!(left.out.trim().is_empty(), "objects left: {}", left.out);
    until("the host is clean", Duration::from_secs(10), || {
        let machines: Vec<String> =
            plane.processes().into_iter().filter(|p| p.host.starts_with("ha-")).map(|p| format!("{} on {}", p.name, p.host)).collect();
        if machines.is_empty() { Ok(()) } else { Err(format!("still run: {machines:?}")) }
    })
}
