//! What an idle 3+2 cluster costs: memory and processor time of our programs, requests to the management API.

use super::plane::{Plane, Shape};
use super::{Publish, machine};
use crate::{build, run};
use anyhow::{Context, Result};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Program, most MiB that is promised.
const MEMORY: [(&str, f64); 3] = [("slipway-operator", 30.0), ("slipway-agent", 12.0), ("slipway-local", 15.0)];

/// Arguments of `cargo xtask bench footprint`.
#[derive(Args)]
pub struct Footprint {
    /// How long to look.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How long to let the cluster settle first.
    #[arg(long, default_value_t = 30)]
    settle: u64,
    /// Measures the development build instead of the released one.
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    publish: Publish,
}

#[derive(serde::Serialize)]
struct Process {
    name: String,
    rss_kib: u64,
    cpu_ticks: u64,
}

impl Footprint {
    /// Measures and publishes.
    pub fn run(self) -> Result<()> {
        let plane = Plane::up(if self.dev { build::Profile::Dev } else { build::Profile::Dist })?;
        plane.create("bench", Shape { control_planes: 3, workers: 2 })?;
        run::must(&mut plane.slipway(&["wait", "bench", "--for", "condition=Ready", "--timeout", "120s"]))?;
        // The look needs a stretch of time in which nothing happens: there is no condition to wait for.
        std::thread::sleep(Duration::from_secs(self.settle));
        let (before, requests_before) = (processes()?, requests(&plane)?);
        std::thread::sleep(Duration::from_secs(self.seconds));
        let (after, requests_after) = (processes()?, requests(&plane)?);
        let ticks_per_second = 100.0;
        let mut table = String::from("| what | measured | promised |\n|---|---|---|\n");
        for (name, most) in MEMORY {
            let rss = after.values().filter(|p| p.name == name).map(|p| p.rss_kib).max().with_context(|| format!("no {name} runs"))?;
            let mib = rss as f64 / 1024.0;
            writeln!(table, "| {name}, resident memory (largest) | {mib:.1} MiB | ≤ {most} MiB: {} |", verdict(mib <= most))?;
        }
        let spent = |name: &str| -> f64 {
            let ticks = after
                .iter()
                .filter(|(_, p)| p.name == name)
                .map(|(pid, p)| p.cpu_ticks.saturating_sub(before.get(pid).map_or(0, |b| b.cpu_ticks)));
            ticks.max().unwrap_or(0) as f64 / ticks_per_second / self.seconds as f64 * 100.0
        };
        for (name, most) in [("slipway-operator", Some(1.0)), ("slipway-agent", None), ("slipway-local", None)] {
            let cpu = spent(name);
            let promise = most.map_or(String::new(), |most| format!("≤ {most} %: {}", verdict(cpu <= most)));
            writeln!(table, "| {name}, processor time (largest) | {cpu:.2} % of a core | {promise} |")?;
        }
        let per_minute = (requests_after - requests_before) / self.seconds as f64 * 60.0;
        writeln!(table, "| management API requests beside leases | {per_minute:.1} a minute | ≤ 10: {} |", verdict(per_minute <= 10.0))?;
        writeln!(
            table,
            "\nAn idle 3+2 cluster on {}, {} build, over {} s, `cargo xtask bench footprint`.",
            machine(),
            if self.dev { "development" } else { "released" },
            self.seconds
        )?;
        let all = serde_json::json!({ "processes": after, "requestsPerMinute": per_minute });
        drop(plane);
        self.publish.publish("footprint", &table, &all)
    }
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "not kept" }
}

/// Our processes by pid.
fn processes() -> Result<BTreeMap<u32, Process>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at.
        let Ok(arguments) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let program = arguments.split(|b| *b == 0).next().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default().to_owned();
        if !MEMORY.iter().any(|(of, _)| *of == name) {
            continue;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let rss_kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<u64> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        let cpu_ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        found.insert(pid, Process { name, rss_kib, cpu_ticks });
    }
    Ok(found)
}

/// Requests so far for what only the operator asks for: Slipway's kinds, Secrets, ConfigMaps and events.
fn requests(plane: &Plane) -> Result<f64> {
    let text = run::output(&mut plane.kubectl(&["get", "--raw", "/metrics"]))?;
    let ours = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && (line.contains("group=\"slipway.dev\"")
                || ["secrets", "configmaps", "events"].iter().any(|r| line.contains(&format!("resource=\"{r}\""))))
            && !line.contains("verb=\"WATCH\"")
    };
    Ok(text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
