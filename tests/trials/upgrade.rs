//! Upgrading a whole cluster in place while clients count.

use super::calm;
use crate::Plane;
use crate::cluster::{Cluster, spec};
use crate::prober::{Prober, Report};
use crate::skew::SkewWatch;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked at how far things are.
const LOOK: Duration = Duration::from_millis(200);

/// From where to where.
#[derive(Debug, Clone)]
pub struct Way {
    /// Kubernetes version before.
    pub from: String,
    /// Kubernetes version after.
    pub to: String,
    /// etcd's version before.
    pub etcd_from: String,
    /// etcd's version after; the same where it is held.
    pub etcd_to: String,
}

impl Way {
    /// The spec before.
    #[must_use]
    pub fn before(&self, control_planes: u32, workers: u32) -> Value {
        let mut spec = spec(&self.from, control_planes, workers);
        spec["componentVersions"] = json!({"etcd": self.etcd_from});
        spec
    }

    /// What is changed in the spec.
    #[must_use]
    pub fn change(&self) -> Value {
        json!({"kubernetesVersion": self.to, "componentVersions": {"etcd": self.etcd_to}})
    }
}

/// One upgrade.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Seconds from the change of the spec until each was so.
    pub times: BTreeMap<&'static str, f64>,
    /// What clients saw.
    #[serde(flatten)]
    pub seen: Report,
    /// Failures, one line each.
    pub failures: Vec<String>,
    /// How often the versions of what runs were compared.
    pub skew_looks: usize,
}

/// All Nodes run the new kubelet and are Ready: what is compared.
pub const NODES: &str = "all Nodes new and Ready";

/// So many times: a fresh cluster of three control planes and two workers, upgraded.
pub fn run(way: &Way, rounds: usize, logs: &Path) -> Result<Vec<Round>> {
    let plane = Plane::up()?;
    let mut all = vec![];
    for round in 0..rounds {
        let cluster = Cluster::create(&plane, "trial", &way.before(3, 2))?;
        let prober = Prober::start(cluster.api())?;
        calm(&prober)?;
        let seen = once(&cluster, &prober, way).with_context(|| format!("round {}", round + 1))?;
        prober.finish(Some(&logs.join(format!("probes-{round}.jsonl"))))?;
        println!(
            "    round {}: {:?}; longest gap {:.2} s reading, {:.2} s writing, {} failed",
            round + 1,
            seen.times,
            seen.seen.read.longest_gap,
            seen.seen.write.longest_gap,
            seen.seen.failed()
        );
        seen.failures.iter().for_each(|failure| println!("      {failure}"));
        all.push(seen);
        keep_journals(&cluster, logs, round)?;
        cluster.delete()?;
    }
    let operator = plane.slipway(&["logs", "management-cp-0", "slipway-operator.service", "--lines", "100000"])?.must("slipway logs")?;
    std::fs::write(logs.join("operator.log"), operator.out)?;
    plane.down()?;
    Ok(all)
}

/// What served the clients says why a request was slow.
fn keep_journals(cluster: &Cluster<'_>, logs: &Path, round: usize) -> Result<()> {
    for machine in cluster.control_planes()? {
        for unit in ["etcd.service", "kube-apiserver.service"] {
            let journal = cluster.plane().slipway(&["logs", &machine.name, unit, "--lines", "20000"])?.must("slipway logs")?;
            std::fs::write(logs.join(format!("{round}-{}-{unit}.log", machine.name)), journal.out)?;
        }
    }
    Ok(())
}

/// Changes the spec and follows until everything is new and the operator says so.
pub fn once(cluster: &Cluster<'_>, prober: &Prober, way: &Way) -> Result<Round> {
    let skew = SkewWatch::start(cluster)?;
    let at = Instant::now();
    cluster.patch(&way.change())?;
    let times = follow(cluster, way, at)?;
    let seen = prober.report(at);
    let failures = prober.failures(at);
    Ok(Round { times, seen, failures, skew_looks: skew.finish()? })
}

/// When each stage was reached.
fn follow(cluster: &Cluster<'_>, way: &Way, at: Instant) -> Result<BTreeMap<&'static str, f64>> {
    let limit = Duration::from_secs(600);
    let mut times = BTreeMap::new();
    while at.elapsed() < limit {
        let reached = reached(cluster, way);
        for stage in &reached {
            times.entry(*stage).or_insert_with(|| {
                println!("      {stage}: after {:.1} s", at.elapsed().as_secs_f64());
                at.elapsed().as_secs_f64()
            });
        }
        if times.contains_key(NODES) && reached.contains(&SETTLED) {
            return Ok(times);
        }
        std::thread::sleep(LOOK);
    }
    let described = cluster.plane().slipway(&["describe", cluster.name()])?;
    bail!("not upgraded within {limit:?}; reached {times:?}\n{}", described.out)
}

const SETTLED: &str = "the operator says that it is done";

/// Stages that are reached now. What cannot be seen is not reached.
fn reached(cluster: &Cluster<'_>, way: &Way) -> Vec<&'static str> {
    let mut reached = vec![];
    if let Ok(machines) = cluster.control_planes() {
        let new = |m| crate::skew::version_of(&cluster.server(m)).is_some_and(|v| v == way.to);
        if machines.iter().any(new) {
            reached.push("the first API server is new");
        }
        if !machines.is_empty() && machines.iter().all(new) {
            reached.push("all API servers are new");
        }
    }
    if cluster.nodes().is_ok_and(|nodes| !nodes.is_empty() && nodes.iter().all(|(_, ready, version)| *ready && *version == way.to)) {
        reached.push(NODES);
        // Asked last and only then: it must not speak of what was before.
        if cluster.followed().is_ok() {
            reached.push(SETTLED);
        }
    }
    reached
}
