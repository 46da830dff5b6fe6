//! From `kubectl apply` to all Nodes Ready, in turn with other commands.

use super::plane::{Plane, Shape};
use super::{Publish, machine, median};
use crate::build;
use anyhow::{Context, Result};
use clap::Args;
use std::fmt::Write as _;
use std::process::Command;

/// Largest ratio to the by-hand floor that is promised, by shape.
const PROMISES: [(&str, f64); 2] = [("3+2", 1.25), ("1+0", 1.6)];

/// Arguments of `cargo xtask bench startup`.
#[derive(Args)]
pub struct Startup {
    /// Rounds; in each, Slipway and every other command run once.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Control planes and workers, `3+2`.
    #[arg(long = "shape", default_values = ["3+2", "1+0"])]
    shapes: Vec<Shape>,
    /// Another way to the same cluster, `NAME=COMMAND`: a shell command in which {control_planes} and {workers} stand for the shape, and whose last
    /// line is JSON with the seconds as "all Nodes Ready".
    #[arg(long)]
    versus: Vec<String>,
    /// What takes it down again, `NAME=COMMAND`.
    #[arg(long)]
    versus_down: Vec<String>,
    /// Measures the development build instead of the released one.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    publish: Publish,
}

struct Contender {
    name: String,
    up: String,
    down: Option<String>,
}

impl Startup {
    /// Measures and publishes.
    pub fn run(self) -> Result<()> {
        let split = |text: &String| {
            text.split_once('=').map(|(n, c)| (n.to_owned(), c.to_owned())).with_context(|| format!("{text:?} is not NAME=COMMAND"))
        };
        let downs = self.versus_down.iter().map(split).collect::<Result<Vec<_>>>()?;
        let others = self.versus.iter().map(split).collect::<Result<Vec<_>>>()?;
        let others: Vec<Contender> = others
            .into_iter()
            .map(|(name, up)| Contender { down: downs.iter().find(|(n, _)| *n == name).map(|(_, c)| c.clone()), name, up })
            .collect();
        let plane = Plane::up(if self.dev { build::Profile::Dev } else { build::Profile::Dist })?;
        let mut table = String::from(
            "| control planes + workers | who | median | all rounds | Slipway's ratio to it | promised |\n|---|---|---|---|---|---|\n",
        );
        let mut all = serde_json::Map::new();
        for shape in &self.shapes {
            let mut ours = Vec::new();
            let mut theirs = vec![Vec::new(); others.len()];
            for round in 1..=self.rounds {
                let name = "bench";
                let seconds = plane.create(name, *shape)?;
                plane.delete(name)?;
                println!("{shape} round {round}: Slipway {seconds:.2} s");
                ours.push(seconds);
                for (other, seconds) in others.iter().zip(&mut theirs) {
                    let took = other.once(*shape)?;
                    println!("{shape} round {round}: {} {took:.2} s", other.name);
                    seconds.push(took);
                }
            }
            let list = |values: &[f64]| values.iter().map(|v| format!("{v:.1}")).collect::<Vec<_>>().join(", ");
            writeln!(table, "| {shape} | Slipway | {:.1} s | {} | | |", median(&ours), list(&ours))?;
            for (other, seconds) in others.iter().zip(&theirs) {
                let ratio = median(&ours) / median(seconds);
                let promise = PROMISES
                    .iter()
                    .find(|(of, _)| *of == shape.to_string())
                    .map_or(String::new(), |(_, most)| format!("≤ {most}: {}", if ratio <= *most { "kept" } else { "not kept" }));
                writeln!(table, "| {shape} | {} | {:.1} s | {} | {ratio:.2} | {promise} |", other.name, median(seconds), list(seconds))?;
            }
            all.insert(
                shape.to_string(),
                serde_json::json!({ "slipway": ours, "others": others.iter().map(|o| &o.name).zip(&theirs).collect::<Vec<_>>() }),
            );
        }
        writeln!(
            table,
            "\n{}, {} build, {} rounds, `cargo xtask bench startup{}`.",
            machine(),
            if self.dev { "development" } else { "released" },
            self.rounds,
            if others.is_empty() { "" } else { " --versus …" }
        )?;
        self.publish.publish("startup", &table, &serde_json::Value::Object(all))
    }
}

impl Contender {
    fn once(&self, shape: Shape) -> Result<f64> {
        let fill = |text: &str| {
            text.replace("{control_planes}", &shape.control_planes.to_string()).replace("{workers}", &shape.workers.to_string())
        };
        let output = Command::new("sh").args(["-c", &fill(&self.up)]).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let seconds =
            text.lines().last().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok()?.get("all Nodes Ready")?.as_f64());
        if let Some(down) = &self.down {
            crate::run::must(Command::new("sh").args(["-c", &fill(down)]))?;
        }
        seconds.with_context(|| {
            format!(
                "{}: the last line was no JSON with \"all Nodes Ready\": {} {}",
                self.name,
                text.trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            )
        })
    }
}
