//! `cargo xtask mutants`: seeds bugs into a copy of the planner, one at a time, and says which of its tests notice.
//!
//! The bugs are listed in `cluster-components/plan/tests/mutants.txt`. A planner's proofs are worth what they catch: a bug that no test notices fails
//! the run, and so does one whose place is not in the code any more.

use crate::run;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The planner, in the repository.
const PLANNER: &str = "cluster-components/plan";
/// The list, beside its tests.
const LIST: &str = "cluster-components/plan/tests/mutants.txt";
/// How long tests go on after the first has noticed.
const A_MOMENT: Duration = Duration::from_secs(4);
/// A bug that makes the tests run for ever is noticed, too.
const LIMIT: Duration = Duration::from_secs(300);

/// Arguments.
#[derive(clap::Args)]
pub struct Mutants {
    /// Only those whose name contains this.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only the K-th of N parts of the list, as K/N.
    #[arg(long, value_name = "K/N")]
    part: Option<String>,
    /// Does not run the tests on the planner as it is before.
    #[arg(long)]
    skip_sound: bool,
    /// Changes nothing and builds nothing: only finds every bug's place in the code.
    #[arg(long)]
    check: bool,
}

/// One seeded bug.
struct Mutant {
    name: String,
    /// Relative to the planner.
    file: PathBuf,
    from: String,
    to: String,
}

impl Mutants {
    /// Prints a table; fails where a bug survives.
    pub fn run(&self) -> Result<ExitCode> {
        let root = run::root()?;
        let all = parse(&fs::read_to_string(root.join(LIST)).with_context(|| format!("cannot read {LIST}"))?)?;
        for mutant in &all {
            mutated(&root.join(PLANNER), mutant)?;
        }
        let chosen = self.chosen(all)?;
        if self.check {
            println!("{} bugs have their place in the code", chosen.len());
            return Ok(ExitCode::SUCCESS);
        }
        let scratch = run::target_dir()?.join("mutants");
        let copy = scratch.join("repository");
        copy_tracked(&root, &copy)?;
        let sound = if self.skip_sound { Verdict::Survives } else { tested(&copy, &scratch)? };
        if sound != Verdict::Survives {
            bail!("the planner's own tests do not pass before anything is changed: {sound}");
        }
        let mut survivors = 0;
        for mutant in &chosen {
            let started = Instant::now();
            let path = copy.join(PLANNER).join(&mutant.file);
            let before = fs::read_to_string(&path)?;
            fs::write(&path, mutated(&copy.join(PLANNER), mutant)?)?;
            let verdict = tested(&copy, &scratch);
            fs::write(&path, before)?;
            let verdict = verdict.with_context(|| mutant.name.clone())?;
            survivors += u32::from(verdict == Verdict::Survives);
            println!("| {} | `{}` | {verdict} | {:.0} s |", mutant.name, mutant.file.display(), started.elapsed().as_secs_f64());
        }
        println!("\n{} bugs, {survivors} not noticed", chosen.len());
        Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn chosen(&self, mut all: Vec<Mutant>) -> Result<Vec<Mutant>> {
        if let Some(part) = &self.part {
            let number = |text: &str| text.parse::<usize>().with_context(|| format!("--part {part}: write it as 1/3"));
            let (k, n) = part.split_once('/').with_context(|| format!("--part {part}: write it as 1/3"))?;
            let (k, n) = (number(k)?, number(n)?);
            if k == 0 || k > n {
                bail!("--part {part}: there is no such part; parts are 1/{n} to {n}/{n}");
            }
            all = all.into_iter().enumerate().filter(|(at, _)| at % n == k - 1).map(|(_, mutant)| mutant).collect();
        }
        all.retain(|m| self.only.is_empty() || self.only.iter().any(|only| m.name.contains(only.as_str())));
        if all.is_empty() {
            bail!("no such bug in {LIST}");
        }
        Ok(all)
    }
}

/// Reads `# name`, `file: path`, `- a piece of a line` and `+ what stands there instead`.
fn parse(text: &str) -> Result<Vec<Mutant>> {
    let mut all: Vec<Mutant> = vec![];
    for (number, line) in text.lines().enumerate() {
        let at = || format!("{LIST}, line {}", number + 1);
        if let Some(name) = line.strip_prefix("# ") {
            all.push(Mutant { name: name.trim().into(), file: PathBuf::new(), from: String::new(), to: String::new() });
            continue;
        }
        if line.trim().is_empty() || line.starts_with("//") {
            continue;
        }
        let mutant = all.last_mut().with_context(|| format!("{}: a bug begins with `# name`", at()))?;
        match (line.strip_prefix("file: "), line.strip_prefix("- "), line.strip_prefix('+')) {
            (Some(file), ..) => mutant.file = file.trim().into(),
            (_, Some(old), _) => mutant.from = old.trim().into(),
            (_, _, Some(new)) => mutant.to = new.trim().into(),
            _ => bail!("{}: {line:?} is neither `# name`, `file: `, `-` nor `+`", at()),
        }
    }
    Ok(all)
}

/// The file with the bug in it.
fn mutated(planner: &Path, mutant: &Mutant) -> Result<String> {
    let path = planner.join(&mutant.file);
    let text = fs::read_to_string(&path).with_context(|| format!("{}: cannot read {}", mutant.name, path.display()))?;
    match text.matches(&mutant.from).count() {
        1 if !mutant.from.is_empty() => Ok(text.replacen(&mutant.from, &mutant.to, 1)),
        count => bail!("{}: its line is {count} times in {}; it has to be there once", mutant.name, mutant.file.display()),
    }
}

/// Everything that is in the repository or is about to be, as it is now.
fn copy_tracked(root: &Path, copy: &Path) -> Result<()> {
    let listed = run::output(std::process::Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for file in listed.split('\0').filter(|f| !f.is_empty()) {
        let (from, to) = (root.join(file), copy.join(file));
        // Deleted and not committed yet.
        if !from.is_file() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        // What is the same stays as old as it was, or everything would be built again.
        let same = to.exists() && fs::read(&from)? == fs::read(&to)?;
        if !same {
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// What the planner's tests say.
#[derive(PartialEq, Eq)]
enum Verdict {
    Survives,
    /// By these tests.
    Caught(Vec<String>),
    /// They did not end.
    Endless,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Survives => f.write_str("**nobody**"),
            Self::Endless => f.write_str("tests that do not end any more"),
            Self::Caught(by) => {
                // Explorations first: they know nothing of the bug they find.
                let mut by: Vec<&str> = by.iter().map(String::as_str).collect();
                by.sort_by_key(|name| (!name.starts_with("explore"), *name));
                let named = by.iter().take(2).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                match by.len().saturating_sub(2) {
                    0 => f.write_str(&named),
                    more => write!(f, "{named} and {more} more"),
                }
            }
        }
    }
}

/// Runs the planner's tests until one fails, and a moment longer: most bugs are noticed by many.
fn tested(copy: &Path, scratch: &Path) -> Result<Verdict> {
    let log = scratch.join("tests.log");
    let output = File::create(&log)?;
    let mut cargo = run::cargo()?;
    cargo.current_dir(copy).env("CARGO_TARGET_DIR", scratch.join("target")).env("RUST_BACKTRACE", "0").env("INSTA_UPDATE", "no");
    cargo.args(["test", "--locked", "-p", "slipway-plan", "--lib", "--test", "it", "--no-fail-fast"]);
    let mut child = cargo.stdout(output.try_clone()?).stderr(output).process_group(0).spawn().context("cannot start cargo")?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let (started, mut noticed) = (Instant::now(), None);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if noticed.is_none() && !failed(&fs::read_to_string(&log)?).is_empty() {
            noticed = Some(Instant::now());
        }
        if started.elapsed() > LIMIT || noticed.is_some_and(|at: Instant| at.elapsed() > A_MOMENT) {
            let _ = killpg(group, Signal::SIGKILL);
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    let caught = failed(&fs::read_to_string(&log)?);
    match status {
        Some(status) if status.success() => Ok(Verdict::Survives),
        Some(status) if caught.is_empty() => bail!("it does not build ({status}); see {}", log.display()),
        None if caught.is_empty() => Ok(Verdict::Endless),
        Some(_) | None => Ok(Verdict::Caught(caught)),
    }
}

/// Tests that failed, by name.
fn failed(log: &str) -> Vec<String> {
    log.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::parse;

    #[test]
    fn a_list_is_read() {
        let list = parse("// what it is\n\n# flip it\nfile: src/a.rs\n- a < b\n+ a > b\n\n# drop it\nfile: src/b.rs\n- a();\n+\n").unwrap();
        let of = |at: usize| list.get(at).map(|m| (m.name.as_str(), m.from.as_str(), m.to.as_str())).unwrap();
        assert_eq!((of(0), of(1)), (("flip it", "a < b", "a > b"), ("drop it", "a();", "")));
        assert!(parse("- too early\n").is_err());
        assert!(parse("# a\nwhat\n").is_err());
    }
}
