//! What a client sees when one thing of a 3+2 cluster dies: longest gap between two successes, and requests that failed. The client asks ten times a
//! second through the load balancer, with a new connection each time and without any retry. It has one read and one write under way, so a write that is
//! never answered costs it its whole patience; a second writer beside it sends every 100 ms whatever the others do, and says when writes are taken again.

use super::{Publish, machine, median};
use crate::build;
use crate::trial::{self, Other};
use anyhow::{Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What dies; longest gap that is promised: the middle one and the worst of all rounds, in seconds.
const PROMISES: [(&str, f64, f64); 4] = [
    ("kill -9 kube-apiserver", 0.3, 0.6),
    ("kill -9 etcd follower", 0.3, 0.6),
    ("kill -9 etcd leader", 1.0, 2.0),
    ("control-plane machine gone (etcd leader)", 1.0, 2.0),
];

/// How long the client waits for an answer, in seconds: its promises and the comparison with others are for that.
const PATIENCE: f64 = 1.0;

/// Arguments of `cargo xtask bench failover`.
#[derive(Args)]
pub struct Failover {
    /// How often each thing dies.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Only this dies, named as in the table; again for more.
    #[arg(long)]
    only: Vec<String>,
    /// Seconds for which the client with one request under way waits for an answer: what its gap hangs on. Promises are compared with 1 only.
    #[arg(long, default_value_t = PATIENCE)]
    patience: f64,
    /// Another cluster to compare with, `NAME=COMMAND`: a shell command that makes it, lets the same things die under the same client, takes it away
    /// again, and prints for each thing a line of JSON: {"kill -9 kube-apiserver": {"worst gap s": {"read": 1.0, "write": 1.1}, "failed": {"read": [0, 1], "write": [0, 1]}}}.
    #[arg(long)]
    versus: Vec<Other>,
    /// Measures the development build instead of the released one.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Deserialize, Serialize)]
struct Deaths {
    what: String,
    rounds: Vec<Round>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    machine: String,
    read: Seen,
    write: Seen,
    open_loop: Taken,
    failures: Vec<String>,
    healed: f64,
    new_leader: Option<f64>,
}

#[derive(Deserialize, Serialize)]
pub(super) struct Seen {
    pub(super) probes: usize,
    pub(super) failed: usize,
    pub(super) longest_gap: f64,
}

/// What the writer that waits for nobody saw.
#[derive(Deserialize, Serialize)]
struct Taken {
    writes: usize,
    unanswered: usize,
    failed: usize,
    longest_gap: f64,
}

impl Failover {
    /// Measures and publishes.
    pub fn run(self) -> Result<()> {
        let patient = (self.patience - PATIENCE).abs() > f64::EPSILON;
        ensure!(
            self.publish.markdown.is_none() || (!patient && self.only.is_empty()),
            "the published table is of everything that dies and of {PATIENCE} s of patience: leave --markdown or --only and --patience out"
        );
        let profile = if self.dev { build::Profile::Dev } else { build::Profile::Dist };
        let (all, _logs): (Vec<Deaths>, _) = trial::run(profile, "failover", &self.arguments())?;
        let mut table = String::from(
            "| what dies | who | longest gap reading, p50 / worst | writing, p50 / worst | failed requests per round, mean | writes taken again after, p50 / worst | its writes without an answer per round, mean | whole again, p50 / worst | promised of the longest gaps (p50 / worst) |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        let mut others = Vec::new();
        for other in &self.versus {
            others.push((other.name.clone(), other.once()?));
        }
        for deaths in &all {
            line(&mut table, deaths, patient)?;
            for (name, found) in &others {
                for theirs in found.iter().filter_map(|object| object.get(&deaths.what)) {
                    let worst = |kind: &str| theirs.pointer(&format!("/worst gap s/{kind}")).and_then(serde_json::Value::as_f64);
                    let failed = |kind: &str| -> Vec<f64> {
                        let list = theirs.pointer(&format!("/failed/{kind}")).and_then(serde_json::Value::as_array);
                        list.into_iter().flatten().filter_map(serde_json::Value::as_f64).collect()
                    };
                    let (reads, writes) = (failed("read"), failed("write"));
                    let mean = (reads.iter().sum::<f64>() + writes.iter().sum::<f64>()) / reads.len().max(1) as f64;
                    let gap = |kind| worst(kind).map_or("?".to_owned(), |s| format!("– / {s:.2} s"));
                    writeln!(table, "| {} | {name} | {} | {} | {mean:.1} | | | | |", deaths.what, gap("read"), gap("write"))?;
                }
            }
        }
        writeln!(
            table,
            "\n3 control planes and 2 workers on {}, {} build, {} rounds, `cargo xtask bench failover{}`. Longest gaps, failed requests and promises are of a client with one request of a kind under way and {} s of patience{}; \"writes taken again after\" is the longest time between two acknowledgements of a writer beside it that sends one every 100 ms, whatever became of the others. \"Whole again\" is every API server and every etcd member; for the leader of a lease the gap does not say when another leads: {}.",
            machine(),
            if self.dev { "development" } else { "released" },
            self.rounds,
            if self.versus.is_empty() { "" } else { " --versus …" },
            self.patience,
            if patient { " (promised for 1 s, and not compared here)" } else { "" },
            new_leaders(&all),
        )?;
        self.publish.publish("failover", &table, &serde_json::json!({ "slipway": all, "others": others }))
    }

    /// Arguments of the trial.
    fn arguments(&self) -> Vec<String> {
        let mut all = vec!["--rounds".into(), self.rounds.to_string(), "--patience".into(), self.patience.to_string()];
        all.extend(self.only.iter().flat_map(|only| ["--only".into(), only.clone()]));
        all
    }
}

fn line(table: &mut String, deaths: &Deaths, patient: bool) -> Result<()> {
    let all = |value: fn(&Round) -> f64| deaths.rounds.iter().map(value).collect::<Vec<f64>>();
    let (reads, writes, healed) = (all(|r| r.read.longest_gap), all(|r| r.write.longest_gap), all(|r| r.healed));
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let failed = mean(all(|r| (r.read.failed + r.write.failed) as f64));
    let (taken, unanswered) = (all(|r| r.open_loop.longest_gap), mean(all(|r| r.open_loop.unanswered as f64)));
    let both = |values: &[f64], digits: usize| format!("{:.digits$} / {:.digits$} s", median(values), worst(values));
    let promise = PROMISES.iter().find(|(what, ..)| *what == deaths.what && !patient).map_or(String::new(), |(_, middle, most)| {
        let kept = median(&reads).max(median(&writes)) < *middle && worst(&reads).max(worst(&writes)) < *most;
        format!("< {middle} / < {most} s: {}", if kept { "kept" } else { "not kept" })
    });
    writeln!(
        table,
        "| {} | Slipway | {} | {} | {failed:.1} | {} | {unanswered:.1} | {} | {promise} |",
        deaths.what,
        both(&reads, 2),
        both(&writes, 2),
        both(&taken, 2),
        both(&healed, 1)
    )?;
    Ok(())
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

fn new_leaders(all: &[Deaths]) -> String {
    let leaders = all.iter().filter_map(|deaths| {
        let seconds: Vec<f64> = deaths.rounds.iter().filter_map(|r| r.new_leader).collect();
        let name = deaths.what.trim_start_matches("kill -9 ").trim_end_matches(" leader");
        (!seconds.is_empty()).then(|| format!("{name} after {:.1} s, at worst {:.1} s", median(&seconds), worst(&seconds)))
    });
    leaders.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn round(write: f64, taken: f64, unanswered: usize) -> Round {
        let seen = |longest_gap: f64, failed: usize| Seen { probes: 40, failed, longest_gap };
        Round {
            machine: "cp-0".to_owned(),
            read: seen(0.7, 0),
            write: seen(write, 1),
            open_loop: Taken { writes: 40, unanswered, failed: 0, longest_gap: taken },
            failures: vec![],
            healed: 1.5,
            new_leader: None,
        }
    }

    #[test]
    fn promises_are_compared_with_the_client_that_waits_for_each_answer() {
        let deaths = Deaths { what: "kill -9 etcd leader".to_owned(), rounds: vec![round(1.1, 0.6, 2), round(1.2, 0.8, 5)] };
        let mut table = String::new();
        line(&mut table, &deaths, false).unwrap();
        line(&mut table, &deaths, true).unwrap();
        let figures = "| kill -9 etcd leader | Slipway | 0.70 / 0.70 s | 1.15 / 1.20 s | 1.0 | 0.70 / 0.80 s | 3.5 | 1.5 / 1.5 s |";
        assert_eq!(table, format!("{figures} < 1 / < 2 s: not kept |\n{figures}  |\n"));
    }
}
