//! Machines that are well and that nobody reaches.

use super::{Fault, Healed, Trial};
use crate::net::{Cut, inside};
use crate::until;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

pub(super) const CONTROL_PLANE: Fault = Fault {
    name: "partition-control-plane",
    what: "the etcd leader's machine cut off for 60 s (a quarter of it in the quick half)",
    gap: Some(5.0),
    heals: "whole after the cut is healed, same members",
    healed: 30.0,
    quick: true,
    run: control_plane,
};

fn control_plane(trial: &Trial<'_>) -> Result<Healed> {
    let cluster = trial.cluster;
    let (members, (machine, _)) = (cluster.members()?, cluster.etcd_leader()?);
    ensure!(members.len() == 3, "the Cluster's status names {} members", members.len());
    let pid = cluster.process(&machine.name, "systemd")?.pid;
    let cut = Cut::off(pid)?;
    let began = Instant::now();
    let server = cluster.server(&machine);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "minority-"}});
    let mut tried = 0;
    while began.elapsed() < trial.lasts(60) {
        let (server, object) = (server.clone(), object.clone());
        let answer = inside(pid, move || {
            Ok(server.request("POST", "/api/v1/namespaces/default/configmaps", Some(&object), Duration::from_secs(3)))
        })?;
        tried += 1;
        ensure!(!answer.as_ref().is_ok_and(|a| a.status < 300), "the machine that was cut off acknowledged a write: {answer:?}");
    }
    cut.heal()?;
    let at = Instant::now();
    let seconds = trial.whole(at, LIMIT)?;
    until("the operator sees every member answer", LIMIT, || {
        let (status, _, message) = cluster.condition("EtcdHealthy").map_err(|e| format!("{e:#}"))?;
        if status == "True" { Ok(()) } else { Err(message) }
    })?;
    let after = cluster.members()?;
    ensure!(after == members, "etcd's members were {members:?} and are {after:?}");
    Ok(Healed { seconds, notes: vec![format!("{tried} writes tried at {}, none acknowledged", machine.name)] })
}

pub(super) const WORKER: Fault = Fault {
    name: "partition-worker",
    what: "a worker cut off for 120 s, its pool's health check being more patient than that",
    gap: Some(1.0),
    heals: "Node Ready after the cut is healed, same Machine, same pod process",
    healed: 15.0,
    quick: false,
    run: worker,
};

fn worker(trial: &Trial<'_>) -> Result<Healed> {
    let cluster = trial.cluster;
    let machine = cluster.workers()?.pop().context("no worker")?.name;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "steadfast"},
        "spec": {"nodeName": machine, "containers": [{"name": "c", "image": "slipway.dev/test-client:1", "imagePullPolicy": "Never", "args": ["serve", "--port", "8080"]}]},
    });
    cluster.plane().apply_inside(cluster.name(), &pod.to_string())?.must("kubectl apply")?;
    cluster.plane().inside(cluster.name(), &["wait", "pod/steadfast", "--for=condition=Ready", "--timeout=60s"])?.must("kubectl wait")?;
    let containers = || -> Vec<i32> {
        let all = cluster.plane().processes();
        all.into_iter()
            .filter(|p| p.arguments.first().is_some_and(|a| a == "/probe") && p.arguments.iter().any(|a| a == "serve"))
            .map(|p| p.pid)
            .collect()
    };
    let before = containers();
    ensure!(!before.is_empty(), "the pod's process is not seen");
    let began = Instant::now();
    let cut = Cut::off(cluster.process(&machine, "systemd")?.pid)?;
    let node = |ready: bool| {
        let nodes = cluster.nodes().map_err(|e| format!("{e:#}"))?;
        if nodes.iter().any(|(name, is, _)| *name == machine && *is == ready) { Ok(()) } else { Err(format!("{nodes:?}")) }
    };
    until("its Node is not Ready", Duration::from_secs(90), || node(false))?;
    let not_ready = began.elapsed();
    ensure!(not_ready > Duration::from_secs(30), "the Node was given up after {not_ready:?} already");
    std::thread::sleep(trial.lasts(120).saturating_sub(began.elapsed())); // the fault itself
    cut.heal()?;
    let at = Instant::now();
    until("its Node is Ready", LIMIT, || node(true))?;
    let seconds = at.elapsed().as_secs_f64();
    ensure!(cluster.workers()?.iter().any(|m| m.name == machine && !m.leaving), "{machine} was replaced although it was only cut off");
    ensure!(containers() == before, "the pod's process was {before:?} and is {:?}", containers());
    cluster.plane().inside(cluster.name(), &["delete", "pod", "steadfast", "--grace-period=0", "--force"])?.must("kubectl delete pod")?;
    Ok(Healed { seconds, notes: vec![format!("Node NotReady {:.0} s after the cut", not_ready.as_secs_f64())] })
}
