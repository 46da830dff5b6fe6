//! Trouble of those who look after the cluster: its management API away, a cloud that fails and forgets, an operator that dies after every effect.

use super::{Fault, Healed, Trial};
use crate::skew::SkewWatch;
use crate::until;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::time::{Duration, Instant};

pub(super) const API_AWAY: Fault = Fault {
    name: "management-away",
    what: "the management API away for 120 s (a quarter of it in the quick half)",
    gap: Some(1.0),
    heals: "followed again, no process changed",
    healed: 60.0,
    quick: false,
    run: api_away,
};

fn api_away(trial: &Trial<'_>) -> Result<Healed> {
    let cluster = trial.cluster;
    let processes = || -> Vec<(String, String, i32)> {
        let ours =
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "containerd", "kube-proxy", "slipway-agent"];
        let all = cluster.plane().processes();
        let mut mine: Vec<_> = all
            .into_iter()
            .filter(|p| p.host.starts_with(cluster.name()) && ours.contains(&p.name.as_str()))
            .map(|p| (p.host, p.name, p.pid))
            .collect();
        mine.sort();
        mine
    };
    let before = processes();
    let apiserver = Pid::from_raw(cluster.process("management-cp-0", "kube-apiserver")?.pid);
    kill(apiserver, Signal::SIGSTOP)?;
    std::thread::sleep(trial.lasts(120)); // the fault itself
    kill(apiserver, Signal::SIGCONT)?;
    let at = Instant::now();
    cluster.settle("the cluster, with its management back,", Duration::from_secs(120))?;
    let seconds = at.elapsed().as_secs_f64();
    let after = processes();
    ensure!(before == after, "processes were {before:?} and are {after:?}");
    Ok(Healed { seconds, notes: vec![format!("{} processes, all the same as before", after.len())] })
}

pub(super) const CLOUD_ERRORS: Fault = Fault {
    name: "cloud-errors",
    what: "30 % of the cloud's calls fail and 30 % of its replies are lost while workers go from 2 to 4 to 2",
    gap: Some(1.0),
    heals: "as many machines as wanted, in the cloud too",
    healed: 240.0,
    quick: false,
    run: cloud_errors,
};

fn cloud_errors(trial: &Trial<'_>) -> Result<Healed> {
    trial.cluster.cloud_faults(&json!({"calls": {"*": {"errorRate": 0.3, "lostReplyRate": 0.3, "delayMs": 100}}}))?;
    let at = Instant::now();
    let resized = [4, 2].into_iter().try_for_each(|workers| resize(trial, workers));
    let seconds = at.elapsed().as_secs_f64();
    trial.cluster.cloud_faults(&json!({}))?;
    resized?;
    Ok(Healed { seconds, notes: vec![] })
}

fn resize(trial: &Trial<'_>, workers: usize) -> Result<()> {
    let cluster = trial.cluster;
    let mut pools = cluster.object()?["spec"]["pools"].clone();
    pools[0]["replicas"] = json!(workers);
    cluster.patch(&json!({ "pools": pools }))?;
    until(&format!("{workers} workers"), Duration::from_secs(240), || {
        cluster.followed()?;
        let (machines, instances) = (cluster.machines().map_err(said)?.len(), instances(trial)?);
        if machines == 3 + workers && instances == machines { Ok(()) } else { Err(format!("{machines} Machines, {instances} instances")) }
    })
}

/// Instances of the cluster in the cloud.
fn instances(trial: &Trial<'_>) -> Result<usize, String> {
    let status = trial.cluster.plane().slipway(&["local", "status", "--output", "json"]).map_err(said)?;
    let value: serde_json::Value = serde_json::from_str(&status.out).map_err(|e| format!("{e}: {}", status.out))?;
    Ok(value["machines"].as_array().into_iter().flatten().filter(|m| m["cluster"] == trial.cluster.name()).count())
}

pub(super) const OPERATOR_DIES: Fault = Fault {
    name: "operator-dies",
    what: "v1.36.4 → v1.37.2 while the operator dies after every effect that it has",
    gap: Some(1.0),
    heals: "upgraded, no version skew at any time",
    healed: 400.0,
    quick: false,
    run: operator_dies,
};

fn operator_dies(trial: &Trial<'_>) -> Result<Healed> {
    let (cluster, plane) = (trial.cluster, trial.cluster.plane());
    let to = "v1.37.2";
    plane.slipway(&["local", "die-after", "1"])?.must("slipway local die-after")?;
    let skew = SkewWatch::start(cluster)?;
    let at = Instant::now();
    cluster.patch(&json!({"kubernetesVersion": to}))?;
    until("all Nodes are new and Ready", Duration::from_secs(600), || {
        let nodes = cluster.nodes().map_err(said)?;
        let old: Vec<_> = nodes.iter().filter(|(_, ready, version)| !ready || version != to).collect();
        if old.is_empty() { Ok(()) } else { Err(format!("{old:?}")) }
    })?;
    let seconds = at.elapsed().as_secs_f64();
    let looks = skew.finish()?;
    let deaths = plane.slipway(&["local", "die-after", "--deaths"])?.must("slipway local die-after")?.out;
    let deaths: u32 = deaths.trim().parse().with_context(|| format!("{deaths:?} is no number of deaths"))?;
    plane.slipway(&["local", "die-after", "0"])?.must("slipway local die-after")?;
    ensure!(deaths >= 10, "the operator died {deaths} times only: an upgrade has more effects");
    cluster.settle("the upgraded cluster", Duration::from_secs(120))?;
    Ok(Healed { seconds, notes: vec![format!("the operator died {deaths} times; versions compared {looks} times")] })
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn said(error: anyhow::Error) -> String {
    format!("{error:#}")
}
