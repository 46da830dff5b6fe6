//! What is generated and checked in: each generator knows how to compare as well as to write.

use crate::run;
use anyhow::{Result, bail};

/// Package, program, arguments; each understands `--check`.
const GENERATORS: [(&str, &str, &[&str]); 3] = [
    ("slipway-crds", "slipway-crds-gen", &["."]),
    ("slipway-cli", "slipway", &["cli-docs", "docs/reference/cli.md"]),
    ("slipway-plan", "slipway-reasons", &["docs/troubleshooting.md"]),
];

/// Renders everything, or only compares.
pub fn run(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (package, program, args) in GENERATORS {
        let mut cargo = run::cargo()?;
        cargo.args(["run", "--quiet", "--locked", "--package", package, "--bin", program, "--"]).args(args);
        if check {
            cargo.arg("--check");
        }
        if !cargo.status()?.success() {
            stale.push(program);
        }
    }
    if !stale.is_empty() {
        bail!("{} found something to do: run `cargo xtask gen` and look at the difference", stale.join(" and "));
    }
    Ok(())
}
