//! `cargo xtask test`: stage after stage, each with a limit of its own, so that a run always ends and always says how.

use crate::run::{self, End};
use crate::{build, host, lint};
use anyhow::{Result, bail};
use clap::Args;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Arguments of `cargo xtask test`.
#[derive(Args)]
pub struct Test {
    /// Only these stages, comma-separated: lint, clippy, unit, artifacts, e2e.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Stage>,
    /// Also what takes longer: the whole exploration of the planner, long random traces, every e2e suite.
    #[arg(long)]
    full: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Stage {
    /// Formatting, arrows, generated files.
    Lint,
    /// Clippy over everything, warnings are errors.
    Clippy,
    /// Programs, and the artifacts of the two Kubernetes versions that are tested.
    Artifacts,
    /// Every crate's own tests, those with real programs included.
    Unit,
    /// Whole clusters.
    E2e,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Lint, Self::Clippy, Self::Artifacts, Self::Unit, Self::E2e];

    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Clippy => "clippy",
            Self::Artifacts => "artifacts",
            Self::Unit => "unit",
            Self::E2e => "e2e",
        }
    }

    /// Twice to four times what was measured on two busy cores with nothing cached.
    fn limit(self) -> Duration {
        Duration::from_secs(
            60 * match self {
                Self::Lint => 15,
                Self::Clippy => 15,
                Self::Artifacts => 40,
                Self::Unit => 20,
                Self::E2e => 35,
            },
        )
    }
}

/// Kubernetes versions that CI builds and runs.
const VERSIONS: [&str; 2] = ["v1.36.4", "v1.37.2"];

impl Test {
    /// Runs the stages and closes with the counts of all test programs together.
    pub fn run(self) -> Result<ExitCode> {
        host::prepare()?;
        let stages: Vec<Stage> = Stage::ALL.into_iter().filter(|s| self.only.is_empty() || self.only.contains(s)).collect();
        let (mut passed, mut failed) = (0, 0);
        let mut table = Vec::new();
        for stage in stages {
            println!("\n=== {} (at most {} min)", stage.name(), stage.limit().as_secs() / 60);
            let started = Instant::now();
            let counts = self.stage(stage).unwrap_or_else(|error| {
                println!("=== {} failed: {error:#}", stage.name());
                Counts { passed: 0, failed: 1 }
            });
            passed += counts.passed;
            failed += counts.failed;
            table.push(format!(
                "{:10} {:6.1} s  {} passed, {} failed",
                stage.name(),
                started.elapsed().as_secs_f64(),
                counts.passed,
                counts.failed
            ));
        }
        println!("\n{}\n{passed} passed, {failed} failed", table.join("\n"));
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn stage(&self, stage: Stage) -> Result<Counts> {
        let limit = stage.limit();
        match stage {
            Stage::Lint => lint::run().map(|()| Counts { passed: 1, failed: 0 }),
            Stage::Clippy => {
                let mut cargo = run::cargo()?;
                cargo.args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
                once(&mut cargo, limit)
            }
            Stage::Artifacts => {
                let bin = build::programs(build::Profile::Dev)?;
                let mut counts = Counts { passed: 0, failed: 0 };
                for version in VERSIONS {
                    let mut slipway = Command::new(bin.join("slipway"));
                    counts.add(once(slipway.args(["artifacts", "fetch", version]), limit)?);
                }
                Ok(counts)
            }
            Stage::Unit => {
                let mut cargo = run::cargo()?;
                cargo.args(["test", "--locked", "--workspace", "--exclude", "slipway-tests", "--no-fail-fast"]);
                if self.full {
                    cargo.env("SLIPWAY_TEST_FULL", "1");
                }
                counted(&mut cargo, limit)
            }
            Stage::E2e => {
                let bin = build::programs(build::Profile::Dev)?;
                let mut cargo = run::cargo()?;
                // The whole workspace, so that dependencies have the features they were built with; one program of tests.
                cargo.args(["test", "--locked", "--workspace", "--test", "e2e", "--no-fail-fast", "--", "--test-threads=1", "--nocapture"]);
                cargo.env("SLIPWAY_BIN", &bin).env("RUST_BACKTRACE", "0");
                if self.full {
                    cargo.env("SLIPWAY_TEST_FULL", "1");
                }
                counted(&mut cargo, if self.full { limit * 4 } else { limit })
            }
        }
    }
}

struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// A program that passes or fails as a whole.
fn once(command: &mut Command, limit: Duration) -> Result<Counts> {
    match run::limited(command, limit)? {
        End::Exited(status) if status.success() => Ok(Counts { passed: 1, failed: 0 }),
        End::Exited(status) => bail!("{command:?} ended with {status}"),
        End::TooLong(after) => bail!("{command:?} was ended after {:.0} s", after.as_secs_f64()),
    }
}

/// A `cargo test`: its closing lines are counted on the way to the terminal.
fn counted(command: &mut Command, limit: Duration) -> Result<Counts> {
    let log = tempfile()?;
    let output = std::fs::File::create(&log)?;
    let follow = Follow::start(&log);
    let end = run::limited(command.stdout(output.try_clone()?).stderr(output), limit);
    let text = follow.stop()?;
    let _ = std::fs::remove_file(&log);
    let mut counts = Counts { passed: 0, failed: 0 };
    for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let number = |what: &str| line.split([';', '.']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok());
        counts.add(Counts { passed: number("passed").unwrap_or(0), failed: number("failed").unwrap_or(0) });
    }
    match end? {
        End::Exited(status) if status.success() && counts.passed > 0 => {}
        End::Exited(status) if status.success() => bail!("{command:?} ran no test"),
        End::Exited(status) => {
            println!("=== {command:?} ended with {status}");
            counts.failed = counts.failed.max(1);
        }
        End::TooLong(after) => {
            println!("=== {command:?} was ended after {:.0} s", after.as_secs_f64());
            counts.failed += 1;
        }
    }
    Ok(counts)
}

fn tempfile() -> Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join(format!("slipway-test-{}.log", std::process::id()));
    std::fs::File::create(&path)?;
    Ok(path)
}

/// Copies a growing file to the terminal, and keeps it.
struct Follow {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: std::thread::JoinHandle<Result<String>>,
}

impl Follow {
    fn start(path: &std::path::Path) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (path, told) = (path.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut file = std::fs::File::open(path)?;
            let mut all = Vec::new();
            loop {
                // Asked before the read: what was written before the end is read after it.
                let last = told.load(std::sync::atomic::Ordering::Acquire);
                let from = all.len();
                file.read_to_end(&mut all)?;
                std::io::stdout().write_all(all.get(from..).unwrap_or_default())?;
                std::io::stdout().flush()?;
                if last {
                    return Ok(String::from_utf8_lossy(&all).into_owned());
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<String> {
        self.stop.store(true, std::sync::atomic::Ordering::Release);
        self.thread.join().unwrap_or_else(|_| bail!("the thread that copies the tests' output ended early"))
    }
}
