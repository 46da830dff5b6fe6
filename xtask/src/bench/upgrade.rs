//! A 3+2 cluster upgraded in place: seconds from the change of the spec to all Nodes new and Ready, and what a client sees meanwhile that asks ten times a
//! second through the load balancer, with a new connection each time and without any retry. Artifacts are in the store beforehand.

use super::failover::Seen;
use super::{Publish, machine, median};
use crate::build;
use crate::trial::{self, Other};
use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const NODES: &str = "all Nodes new and Ready";
/// Kubernetes only, compared with other ways: most seconds, largest ratio, longest gap.
const PROMISE: (f64, f64, f64) = (45.0, 1.5, 0.5);
/// With etcd's minor version: most seconds, longest gap.
const PROMISE_ETCD: (f64, f64) = (90.0, 1.0);

/// Arguments of `cargo xtask bench upgrade`.
#[derive(Args)]
pub struct Upgrade {
    /// Clusters that are upgraded in each shape, and runs of every other command.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Kubernetes version before.
    #[arg(long, default_value = "v1.36.4")]
    from: String,
    /// Kubernetes version after.
    #[arg(long, default_value = "v1.37.2")]
    to: String,
    /// etcd's version before, and in the first shape after as well.
    #[arg(long, default_value = "v3.6.14")]
    etcd_from: String,
    /// etcd's version after, in the second shape.
    #[arg(long, default_value = "v3.7.3")]
    etcd_to: String,
    /// Leaves the second shape out.
    #[arg(long)]
    hold_etcd: bool,
    /// Another way to upgrade the same cluster, etcd left alone, `NAME=COMMAND`: a shell command that makes a cluster, upgrades it under the same client,
    /// takes it away, and prints last a line of JSON: {"times": {"all Nodes new and Ready": 26.1, …}, "read": {"failed": 0, "longest gap s": 0.3}, "write": {…}}.
    #[arg(long)]
    versus: Vec<Other>,
    /// Measures the development build instead of the released one.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Deserialize, Serialize)]
struct Round {
    times: BTreeMap<String, f64>,
    read: Seen,
    write: Seen,
    failures: Vec<String>,
    skew_looks: usize,
}

/// What is compared.
#[derive(Default)]
struct Sum {
    seconds: Vec<f64>,
    failed: usize,
    read: f64,
    write: f64,
}

impl Sum {
    fn add(&mut self, seconds: f64, failed: usize, read: f64, write: f64) {
        self.seconds.push(seconds);
        self.failed += failed;
        self.read = self.read.max(read);
        self.write = self.write.max(write);
    }

    fn gap(&self) -> f64 {
        self.read.max(self.write)
    }

    fn line(&self, what: &str, who: &str, ratio: &str, promise: &str) -> String {
        let all = self.seconds.iter().map(|s| format!("{s:.1}")).collect::<Vec<_>>().join(", ");
        format!(
            "| {what} | {who} | {:.1} s | {all} | {} | {:.2} / {:.2} s | {ratio} | {promise} |\n",
            median(&self.seconds),
            self.failed,
            self.read,
            self.write
        )
    }
}

impl Upgrade {
    /// Measures and publishes.
    pub fn run(self) -> Result<()> {
        let held = format!("{} → {}, etcd held", self.from, self.to);
        let both = format!("{} → {}, etcd {} → {}", self.from, self.to, self.etcd_from, self.etcd_to);
        let mut table = String::from(
            "| upgrade | who | median | all rounds | failed requests | longest gap reading / writing | Slipway's ratio to it | promised |\n|---|---|---|---|---|---|---|---|\n",
        );
        let (ours, rounds) = self.ours(&self.etcd_from)?;
        let (most, most_ratio, most_gap) = PROMISE;
        let kept = median(&ours.seconds) <= most && ours.failed == 0 && ours.gap() < most_gap;
        table += &ours.line(&held, "Slipway", "", &format!("≤ {most} s, 0 failed, gap < {most_gap} s: {}", verdict(kept)));
        let mut all = serde_json::Map::from_iter([(held.clone(), serde_json::to_value(rounds)?)]);
        for other in &self.versus {
            let mut theirs = Sum::default();
            for round in 1..=self.rounds {
                let found = other.once()?;
                let last = found.last().context("nothing printed")?;
                let number = |path: &str| last.pointer(path).and_then(Value::as_f64);
                let seconds = number(&format!("/times/{NODES}")).with_context(|| format!("{}: no \"{NODES}\" in {last}", other.name))?;
                let failed = number("/read/failed").unwrap_or(f64::NAN) + number("/write/failed").unwrap_or(f64::NAN);
                println!("round {round}: {} {seconds:.1} s, {failed} failed", other.name);
                let gap = |kind: &str| number(&format!("/{kind}/longest gap s")).unwrap_or(f64::NAN);
                theirs.add(seconds, failed as usize, gap("read"), gap("write"));
            }
            let ratio = median(&ours.seconds) / median(&theirs.seconds);
            let promise = format!("≤ {most_ratio}: {}", verdict(ratio <= most_ratio));
            table += &theirs.line(&held, &other.name, &format!("{ratio:.2}"), &promise);
            all.insert(other.name.clone(), serde_json::json!({ "seconds": theirs.seconds, "failed": theirs.failed }));
        }
        if !self.hold_etcd {
            let (ours, rounds) = self.ours(&self.etcd_to)?;
            let (most, most_gap) = PROMISE_ETCD;
            let kept = median(&ours.seconds) <= most && ours.failed == 0 && ours.gap() < most_gap;
            table += &ours.line(&both, "Slipway", "", &format!("≤ {most} s, 0 failed, gap < {most_gap} s: {}", verdict(kept)));
            all.insert(both, serde_json::to_value(rounds)?);
        }
        writeln!(
            table,
            "\n3 control planes and 2 workers on {}, {} build, {} rounds, `cargo xtask bench upgrade{}`. Seconds until all Nodes run the new version and are Ready; no request is repeated.",
            machine(),
            if self.dev { "development" } else { "released" },
            self.rounds,
            if self.versus.is_empty() { "" } else { " --versus …" }
        )?;
        self.publish.publish("upgrade", &table, &Value::Object(all))
    }

    fn ours(&self, etcd: &str) -> Result<(Sum, Vec<Round>)> {
        let profile = if self.dev { build::Profile::Dev } else { build::Profile::Dist };
        let rounds = self.rounds.to_string();
        let args = ["--rounds", &rounds, "--from", &self.from, "--to", &self.to, "--etcd-from", &self.etcd_from, "--etcd-to", etcd];
        let (rounds, _logs): (Vec<Round>, _) = trial::run(profile, "upgrade", &args.map(str::to_owned))?;
        let mut sum = Sum::default();
        for round in &rounds {
            let seconds = round.times.get(NODES).copied().with_context(|| format!("a round without {NODES:?}"))?;
            sum.add(seconds, round.read.failed + round.write.failed, round.read.longest_gap, round.write.longest_gap);
        }
        Ok((sum, rounds))
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "not kept" }
}
