//! Processes that stop and go on later, as on an overloaded host: what they believe is old by then.

use super::{Fault, Healed, Trial};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

pub(super) const APISERVER: Fault = Fault {
    name: "stop-apiserver",
    what: "SIGSTOP kube-apiserver for 30 s (a quarter of it in the quick half)",
    gap: Some(5.0),
    heals: "whole after SIGCONT",
    healed: 20.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.control_planes()?.pop().context("no control plane")?.name;
        paused(trial, &machine, "kube-apiserver")
    },
};

pub(super) const ETCD_LEADER: Fault = Fault {
    name: "stop-etcd-leader",
    what: "SIGSTOP etcd leader for 30 s",
    gap: Some(5.0),
    heals: "whole after SIGCONT",
    healed: 20.0,
    quick: false,
    run: |trial| {
        let machine = trial.cluster.etcd_leader()?.0.name;
        paused(trial, &machine, "etcd")
    },
};

fn paused(trial: &Trial<'_>, machine: &str, program: &str) -> Result<Healed> {
    trial.cluster.signal(machine, program, Signal::SIGSTOP)?;
    std::thread::sleep(trial.lasts(30)); // the fault itself
    trial.cluster.signal(machine, program, Signal::SIGCONT)?;
    let at = Instant::now();
    Ok(Healed { seconds: trial.whole(at, Duration::from_secs(90))?, notes: vec![] })
}
