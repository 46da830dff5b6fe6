//! The fault table: one cluster is hurt in every way that is known, one after the other, while a prober counts and clients compare and swap. After each the
//! cluster must be whole again, and the clients' history must be one that a single copy of the data could have given.

mod destroy;
mod disk;
mod kill;
mod management;
mod partition;
mod pause;

use super::calm;
use crate::cluster::{Cluster, spec};
use crate::prober::{Prober, Report};
use crate::writers::Writers;
use crate::{Plane, until};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A fault, and what is allowed to follow from it.
pub struct Fault {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    /// Longest gap between two successes that a client may see, in seconds; none where the API is meant to be away.
    pub gap: Option<f64>,
    /// What `healed` is: what must be so again.
    pub heals: &'static str,
    /// Within how many seconds.
    pub healed: f64,
    /// Whether it is of the quick half.
    pub quick: bool,
    run: fn(&Trial<'_>) -> Result<Healed>,
}

/// What a fault is done to.
struct Trial<'a> {
    cluster: &'a Cluster<'a>,
    quick: bool,
}

/// How it ended.
struct Healed {
    seconds: f64,
    notes: Vec<String>,
}

impl Trial<'_> {
    /// How long a fault lasts: a quarter of it where things must be quick.
    fn lasts(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { seconds / 4 } else { seconds })
    }

    /// Waits until the control plane is whole and every Node Ready. Seconds from `at`.
    fn whole(&self, at: Instant, limit: Duration) -> Result<f64> {
        until("everything is whole", limit, || {
            self.cluster.control_plane_whole()?;
            let nodes = self.cluster.nodes().map_err(|e| format!("{e:#}"))?;
            let sick: Vec<_> = nodes.iter().filter(|(_, ready, _)| !ready).map(|(name, ..)| name).collect();
            if sick.is_empty() { Ok(()) } else { Err(format!("Nodes not Ready: {sick:?}")) }
        })?;
        Ok(at.elapsed().as_secs_f64())
    }
}

/// All of them, in the order in which they are done: those that leave the most behind come last.
pub const ALL: &[Fault] = &[
    kill::APISERVER,
    kill::ETCD_FOLLOWER,
    kill::ETCD_LEADER,
    kill::CONTROLLER_MANAGER,
    kill::SCHEDULER,
    kill::NODE_COMPONENTS,
    pause::APISERVER,
    pause::ETCD_LEADER,
    partition::CONTROL_PLANE,
    management::API_AWAY,
    destroy::WORKER,
    destroy::CONTROL_PLANE,
    partition::WORKER,
    disk::FULL,
    management::CLOUD_ERRORS,
    management::OPERATOR_DIES,
    destroy::TWO_CONTROL_PLANES,
];

/// What came of a fault.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Which.
    pub name: &'static str,
    /// What was done.
    pub what: &'static str,
    /// Longest gap that is allowed.
    pub gap_allowed: Option<f64>,
    /// What clients saw.
    #[serde(flatten)]
    pub seen: Report,
    /// Failures, one line each.
    pub failures: Vec<String>,
    /// What must be so again.
    pub heals: &'static str,
    /// Within how many seconds.
    pub healed_allowed: f64,
    /// It was, after so many seconds.
    pub healed: Option<f64>,
    /// Writes that were acknowledged; none is lost, or `wrong` says so.
    pub acknowledged: Option<usize>,
    /// More that was seen.
    pub notes: Vec<String>,
    /// What must not be: a lost write, a stale read, something that did not heal, a rule that was broken.
    pub wrong: Vec<String>,
}

impl Row {
    /// Whether all that is promised was so.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.wrong.is_empty()
            && self.gap_allowed.is_none_or(|allowed| self.seen.longest_gap() <= allowed)
            && self.healed.is_some_and(|healed| healed <= self.healed_allowed)
    }
}

/// Makes a cluster of three control planes and two workers and hurts it: in all ways, in the quick ones, or in those that are named.
pub fn run(only: &[String], quick: bool, logs: &Path) -> Result<Vec<Row>> {
    for name in only {
        ensure!(
            ALL.iter().any(|f| f.name == name),
            "there is no fault {name}: {}",
            ALL.iter().map(|f| f.name).collect::<Vec<_>>().join(", ")
        );
    }
    let plane = Plane::up()?;
    let mut spec = spec("v1.36.4", 3, 2);
    spec["componentVersions"] = json!({"etcd": "v3.6.14"});
    // Longer than the longest partition: what is only cut off must not be replaced.
    spec["pools"][0]["healthCheck"] = json!({"agentSilentSeconds": 600});
    let cluster = Cluster::create(&plane, "trial", &spec)?;
    let prober = Prober::start(cluster.api())?;
    let trial = Trial { cluster: &cluster, quick };
    let chosen = ALL.iter().filter(|f| if only.is_empty() { !quick || f.quick } else { only.iter().any(|o| o == f.name) });
    let mut rows = vec![];
    for fault in chosen {
        println!("    {}", fault.what);
        let row = once(&trial, &prober, fault, logs).with_context(|| format!("before {}", fault.name))?;
        println!("{}", told(&row));
        rows.push(row);
    }
    prober.finish(Some(&logs.join("probes.jsonl")))?;
    drop(cluster);
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(rows)
}

fn once(trial: &Trial<'_>, prober: &Prober, fault: &Fault, logs: &Path) -> Result<Row> {
    trial.cluster.settle("the cluster", Duration::from_secs(240))?;
    calm(prober)?;
    let writers = Writers::start(fault.name, &trial.cluster.ways_in()?)?;
    let at = Instant::now();
    let outcome = (fault.run)(trial);
    let mut wrong = vec![];
    if fault.gap.is_some()
        && let Err(error) = calm(prober)
    {
        wrong.push(format!("{error:#}"));
    }
    let (seen, failures) = (prober.report(at), prober.failures(at));
    let (healed, notes) = match outcome {
        Ok(Healed { seconds, notes }) => (Some(seconds), notes),
        Err(error) => {
            wrong.push(format!("{error:#}"));
            (None, vec![])
        }
    };
    let history = logs.join(format!("{}.history.jsonl", fault.name));
    // Where the API is meant to be away, its registers cannot be read at the end.
    let acknowledged = if fault.gap.is_some() {
        writers.finish(&history).map_err(|error| wrong.push(format!("{error:#}"))).ok().map(|checked| checked.acknowledged)
    } else {
        None
    };
    if acknowledged == Some(0) {
        wrong.push("no write was acknowledged in all this time".to_owned());
    }
    Ok(Row {
        name: fault.name,
        what: fault.what,
        gap_allowed: fault.gap,
        seen,
        failures,
        heals: fault.heals,
        healed_allowed: fault.healed,
        healed,
        acknowledged,
        notes,
        wrong,
    })
}

/// A row for people.
fn told(row: &Row) -> String {
    let mut lines = vec![format!(
        "      {}: longest gap {:.2} s reading, {:.2} s writing ({}), {} failed; {} after {} (allowed {:.0} s); {} writes acknowledged",
        if row.kept() { "kept" } else { "NOT KEPT" },
        row.seen.read.longest_gap,
        row.seen.write.longest_gap,
        row.gap_allowed.map_or("any".to_owned(), |s| format!("allowed {s} s")),
        row.seen.failed(),
        row.heals,
        row.healed.map_or("never".to_owned(), |s| format!("{s:.1} s")),
        row.healed_allowed,
        row.acknowledged.unwrap_or_default(),
    )];
    lines.extend(row.notes.iter().map(|n| format!("      {n}")));
    lines.extend(row.wrong.iter().map(|w| format!("      WRONG: {w}")));
    lines.extend(row.failures.iter().take(10).map(|f| format!("      {f}")));
    lines.join("\n")
}
