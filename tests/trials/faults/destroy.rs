//! Machines that are gone for good, disks and all.

use super::{Fault, Healed, Trial};
use crate::cluster::Cluster;
use crate::until;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(300);

pub(super) const WORKER: Fault = Fault {
    name: "destroy-worker",
    what: "a worker destroyed, its disk too",
    gap: Some(1.0),
    heals: "replaced, Node Ready",
    healed: 60.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.workers()?.pop().context("no worker")?;
        let at = Instant::now();
        trial.cluster.destroy(&machine)?;
        let seconds = until("another worker is Ready", LIMIT, || {
            let (workers, nodes) = (trial.cluster.workers().map_err(said)?, trial.cluster.nodes().map_err(said)?);
            let ready = workers.iter().filter(|w| !w.leaving && nodes.iter().any(|(name, ready, _)| *name == w.name && *ready));
            let gone = !workers.iter().any(|w| w.name == machine.name) && !nodes.iter().any(|(name, ..)| *name == machine.name);
            if gone && ready.count() == 2 { Ok(at.elapsed().as_secs_f64()) } else { Err(format!("{workers:?} {nodes:?}")) }
        })?;
        Ok(Healed { seconds, notes: decided(trial.cluster, &machine.name, seconds)? })
    },
};

pub(super) const CONTROL_PLANE: Fault = Fault {
    name: "destroy-control-plane",
    what: "the etcd leader's machine destroyed, its disk too",
    gap: Some(2.0),
    heals: "replaced, 3/3 whole",
    healed: 120.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.etcd_leader()?.0;
        let at = Instant::now();
        trial.cluster.destroy(&machine)?;
        until("its Machine is gone", LIMIT, || {
            let machines = trial.cluster.control_planes().map_err(said)?;
            if machines.iter().any(|m| m.name == machine.name) { Err(format!("{machines:?}")) } else { Ok(()) }
        })?;
        let seconds = trial.whole(at, LIMIT)?;
        Ok(Healed { seconds, notes: decided(trial.cluster, &machine.name, seconds)? })
    },
};

/// What was decided about a machine, in the Cluster's own words.
fn decided(cluster: &Cluster<'_>, machine: &str, _after: f64) -> Result<Vec<String>> {
    let object = cluster.object()?;
    let all = object["status"]["decisions"].as_array().cloned().unwrap_or_default();
    let mine = all.iter().filter(|d| d["machine"] == machine || d["what"].as_str().is_some_and(|w| w.contains(machine)));
    Ok(mine.map(|d| format!("{} {}: {}", d["at"], d["what"], d["because"])).collect())
}

pub(super) const TWO_CONTROL_PLANES: Fault = Fault {
    name: "destroy-two-control-planes",
    what: "two of three control planes destroyed at once, disks too",
    gap: None,
    heals: "the Cluster says that a restore is needed, and nothing was removed",
    healed: 90.0,
    quick: false,
    run: two_control_planes,
};

fn two_control_planes(trial: &Trial<'_>) -> Result<Healed> {
    let cluster = trial.cluster;
    let before = cluster.control_planes()?;
    let records = cluster.machine_objects()?.len();
    // Both at once, as far as the operator can tell: between the two it would, rightly, begin to replace the first.
    let operator = Pid::from_raw(cluster.process("management-cp-0", "slipway-operator")?.pid);
    kill(operator, Signal::SIGSTOP)?;
    let destroyed: Result<Vec<()>> = before.iter().take(2).map(|machine| cluster.destroy(machine)).collect();
    kill(operator, Signal::SIGCONT)?;
    destroyed?;
    let at = Instant::now();
    let seconds = until("the Cluster says that a restore is needed", Duration::from_secs(120), || {
        let object = cluster.object().map_err(said)?;
        let status = &object["status"];
        let speaks = status["conditions"].to_string().contains("RestoreNeeded") || status["waits"].to_string().contains("RestoreNeeded");
        if speaks { Ok(at.elapsed().as_secs_f64()) } else { Err(status.to_string()) }
    })?;
    // As long again as it took to be told: whatever is destructive would be done by now.
    let until_then = Instant::now() + trial.lasts(60);
    while Instant::now() < until_then {
        let now = cluster.machine_objects()?;
        ensure!(now.len() >= records, "{} Machines are left of {records}", now.len());
        let leaving: Vec<_> =
            now.iter().filter(|m| !m["metadata"]["deletionTimestamp"].is_null()).map(|m| &m["metadata"]["name"]).collect();
        ensure!(leaving.is_empty(), "Machines are being deleted although a quorum is lost: {leaving:?}");
        let last = before.last().context("no control plane")?;
        cluster.process(&last.name, "etcd").context("the last etcd member was stopped")?;
        std::thread::sleep(Duration::from_secs(1)); // between two looks
    }
    Ok(Healed { seconds, notes: vec!["the restore itself is not a part of this fault".to_owned()] })
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn said(error: anyhow::Error) -> String {
    format!("{error:#}")
}
