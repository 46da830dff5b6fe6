//! `cargo xtask faults`: a cluster is hurt in every way that is known while clients count and compare and swap; a table of what was measured beside what is
//! allowed. Each run keeps the log of every probe and the history of every register.

use crate::bench::{self, Publish};
use crate::{build, trial};
use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::process::ExitCode;

/// Arguments of `cargo xtask faults`.
#[derive(Args)]
pub struct Faults {
    /// Only these faults, comma-separated.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only the quick half, and what lasts is shortened: what `cargo xtask test` runs too.
    #[arg(long)]
    quick: bool,
    /// With the released build instead of the development one.
    #[arg(long)]
    dist: bool,
    #[command(flatten)]
    publish: Publish,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    what: String,
    gap_allowed: Option<f64>,
    read: Seen,
    write: Seen,
    failures: Vec<String>,
    heals: String,
    healed_allowed: f64,
    healed: Option<f64>,
    acknowledged: Option<usize>,
    notes: Vec<String>,
    wrong: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct Seen {
    probes: usize,
    failed: usize,
    longest_gap: f64,
}

impl Row {
    fn kept(&self) -> bool {
        let gap = self.read.longest_gap.max(self.write.longest_gap);
        self.wrong.is_empty()
            && self.gap_allowed.is_none_or(|allowed| gap <= allowed)
            && self.healed.is_some_and(|healed| healed <= self.healed_allowed)
    }

    fn line(&self) -> String {
        let seconds = |s: Option<f64>| s.map_or("–".to_owned(), |s| format!("{s:.1} s"));
        let gap = if self.gap_allowed.is_some() {
            format!("{:.2} / {:.2} s", self.read.longest_gap, self.write.longest_gap)
        } else {
            "–".to_owned()
        };
        format!(
            "| {} | {} | {gap} | {} | {} | {}: {} | ≤ {:.0} s | {} | {} |\n",
            self.name,
            self.what,
            self.gap_allowed.map_or("–".to_owned(), |s| format!("≤ {s} s")),
            self.read.failed + self.write.failed,
            self.heals,
            seconds(self.healed),
            self.healed_allowed,
            self.acknowledged.map_or("–".to_owned(), |n| format!("{n}, 0 lost")),
            if self.kept() { "kept" } else { "**not kept**" }
        )
    }
}

impl Faults {
    /// Hurts, prints, publishes. Fails where anything was not kept.
    pub fn run(self) -> Result<ExitCode> {
        let mut args = vec![];
        if self.quick {
            args.push("--quick".to_owned());
        }
        args.extend(self.only.iter().flat_map(|name| ["--only".to_owned(), name.clone()]));
        let (rows, logs): (Vec<Row>, _) = trial::run(if self.dist { build::Profile::Dist } else { build::Profile::Dev }, "faults", &args)?;
        let mut table = String::from(
            "| fault | what is done | longest gap reading / writing | allowed | failed requests | healed | within | acknowledged writes | |\n|---|---|---|---|---|---|---|---|---|\n",
        );
        rows.iter().for_each(|row| table += &row.line());
        writeln!(
            table,
            "\n3 control planes and 2 workers on {}, {} build, `cargo xtask faults{}`.",
            bench::machine(),
            if self.dist { "released" } else { "development" },
            if self.quick { " --quick" } else { "" }
        )?;
        self.publish.publish("faults", &table, &serde_json::to_value(&rows)?)?;
        for row in rows.iter().filter(|row| !row.wrong.is_empty()) {
            println!("{}: {}", row.name, row.wrong.join("; "));
        }
        println!("logs: {}", logs.display());
        Ok(if rows.iter().all(Row::kept) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
