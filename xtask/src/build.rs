//! Slipway's own programs, where everything else looks for them: target/slipway/bin.

use crate::run;
use anyhow::{Context, Result};
use std::path::PathBuf;

/// How they are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As tests build them.
    Dev,
    /// As they are released.
    Dist,
}

/// Package and program.
pub const PROGRAMS: [(&str, &str); 5] = [
    ("slipway-cli", "slipway"),
    ("slipway-operator", "slipway-operator"),
    ("slipway-agent", "slipway-agent"),
    ("slipway-local", "slipway-local"),
    ("slipway-local", "slipway-ccm-local"),
];

/// What hurts clusters and counts.
const TRIAL: (&str, &str) = ("slipway-tests", "slipway-trial");

/// Builds them all and links them into target/slipway/bin (target/slipway/dist for the released profile).
pub fn programs(profile: Profile) -> Result<PathBuf> {
    these(profile, &PROGRAMS)
}

/// The same, and the program that runs trials.
pub fn with_trial(profile: Profile) -> Result<PathBuf> {
    these(profile, &[PROGRAMS.as_slice(), &[TRIAL]].concat())
}

fn these(profile: Profile, programs: &[(&str, &str)]) -> Result<PathBuf> {
    let mut cargo = run::cargo()?;
    cargo.args(["build", "--locked", "--bins"]);
    for (package, _) in programs {
        cargo.args(["--package", package]);
    }
    if profile == Profile::Dist {
        cargo.args(["--profile", "dist"]);
    }
    run::must(&mut cargo)?;
    let (from, to) = match profile {
        Profile::Dev => ("debug", "bin"),
        Profile::Dist => ("dist", "dist"),
    };
    let from = run::target_dir()?.join(from);
    let to = run::root()?.join("target/slipway").join(to);
    std::fs::create_dir_all(&to)?;
    for (_, program) in programs {
        // A copy under another name, then a rename: a program that runs from there goes on running.
        let part = to.join(format!(".{program}.{}", std::process::id()));
        std::fs::copy(from.join(program), &part).with_context(|| format!("cannot copy {program} into {}", to.display()))?;
        std::fs::rename(&part, to.join(program))?;
    }
    Ok(to)
}
