//! kill -9 of each component.

use super::{Fault, Healed, Trial};
use crate::until;
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(90);

pub(super) const APISERVER: Fault = Fault {
    name: "kill-apiserver",
    what: "kill -9 kube-apiserver",
    gap: Some(1.0),
    heals: "ready again",
    healed: 15.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.control_planes()?.pop().context("no control plane")?.name;
        component(trial, &machine, "kube-apiserver")
    },
};

pub(super) const ETCD_FOLLOWER: Fault = Fault {
    name: "kill-etcd-follower",
    what: "kill -9 etcd follower",
    gap: Some(0.5),
    heals: "back in sync",
    healed: 20.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.etcd_leader()?.1.pop().context("no follower")?.name;
        component(trial, &machine, "etcd")
    },
};

pub(super) const ETCD_LEADER: Fault = Fault {
    name: "kill-etcd-leader",
    what: "kill -9 etcd leader",
    gap: Some(3.0),
    heals: "back in sync",
    healed: 20.0,
    quick: true,
    run: |trial| {
        let machine = trial.cluster.etcd_leader()?.0.name;
        component(trial, &machine, "etcd")
    },
};

pub(super) const CONTROLLER_MANAGER: Fault = Fault {
    name: "kill-controller-manager",
    what: "kill -9 kube-controller-manager leader",
    gap: Some(1.0),
    heals: "a leader again",
    healed: 20.0,
    quick: true,
    run: |trial| leader(trial, "kube-controller-manager"),
};

pub(super) const SCHEDULER: Fault = Fault {
    name: "kill-scheduler",
    what: "kill -9 kube-scheduler leader",
    gap: Some(1.0),
    heals: "a leader again",
    healed: 20.0,
    quick: true,
    run: |trial| leader(trial, "kube-scheduler"),
};

pub(super) const NODE_COMPONENTS: Fault = Fault {
    name: "kill-node-components",
    what: "kill -9 kubelet, containerd, kube-proxy, slipway-agent of a worker, cloud-controller-manager and slipway-agent of a control plane",
    gap: Some(1.0),
    heals: "all run again, Nodes Ready",
    healed: 30.0,
    quick: true,
    run: |trial| {
        let at = Instant::now();
        let control_plane = trial.cluster.control_planes()?.pop().context("no control plane")?.name;
        let worker = trial.cluster.workers()?.pop().context("no worker")?.name;
        let of_worker = ["kubelet", "containerd", "kube-proxy", "slipway-agent"].map(|program| (&worker, program));
        let victims = of_worker.into_iter().chain(["slipway-ccm-local", "slipway-agent"].map(|program| (&control_plane, program)));
        let mut killed = vec![];
        for (machine, program) in victims {
            killed.push((machine, program, trial.cluster.signal(machine, program, Signal::SIGKILL)?));
        }
        until("all of them run again", LIMIT, || {
            killed.iter().try_for_each(|(machine, program, before)| trial.cluster.runs_anew(machine, program, before))
        })?;
        Ok(Healed { seconds: trial.whole(at, LIMIT)?, notes: vec![] })
    },
};

fn component(trial: &Trial<'_>, machine: &str, program: &str) -> Result<Healed> {
    let at = Instant::now();
    let before = trial.cluster.signal(machine, program, Signal::SIGKILL)?;
    until(&format!("{program} on {machine} runs again"), LIMIT, || trial.cluster.runs_anew(machine, program, &before))?;
    Ok(Healed { seconds: trial.whole(at, LIMIT)?, notes: vec![] })
}

fn leader(trial: &Trial<'_>, program: &str) -> Result<Healed> {
    let (machine, identity) = trial.cluster.holder(program)?;
    let at = Instant::now();
    let before = trial.cluster.signal(&machine, program, Signal::SIGKILL)?;
    let now = until(&format!("a {program} leads"), LIMIT, || match trial.cluster.holder(program) {
        Ok((now, other)) if other != identity => Ok(now),
        other => Err(format!("{other:?}")),
    })?;
    let seconds = at.elapsed().as_secs_f64();
    until(&format!("{program} on {machine} runs again"), LIMIT, || trial.cluster.runs_anew(&machine, program, &before))?;
    Ok(Healed { seconds, notes: vec![format!("{now} leads after {machine}")] })
}
