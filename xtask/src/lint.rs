//! What no compiler checks: formatting, which crate may know which, generated files.

use crate::{generate, run};
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Who may depend on whom, transitive edges included. A new arrow is a decision: it is made here, with its reason in the commit.
const ARROWS: [(&str, &[&str]); 14] = [
    ("slipway-model", &[]),
    ("slipway-plan", &["slipway-model"]),
    ("slipway-components", &["slipway-model"]),
    ("slipway-pki", &["slipway-model"]),
    ("slipway-artifacts", &["slipway-model"]),
    ("slipway-agent-api", &["slipway-model"]),
    ("slipway-agent", &["slipway-model", "slipway-agent-api"]),
    ("slipway-crds", &["slipway-model"]),
    ("slipway-cloud-api", &["slipway-model"]),
    ("slipway-local", &["slipway-model", "slipway-cloud-api"]),
    (
        "slipway-operator",
        &[
            "slipway-model",
            "slipway-plan",
            "slipway-components",
            "slipway-pki",
            "slipway-artifacts",
            "slipway-agent-api",
            "slipway-crds",
            "slipway-cloud-api",
            "slipway-local",
        ],
    ),
    (
        "slipway-cli",
        &[
            "slipway-model",
            "slipway-plan",
            "slipway-components",
            "slipway-pki",
            "slipway-artifacts",
            "slipway-agent-api",
            "slipway-crds",
            "slipway-cloud-api",
            "slipway-local",
            "slipway-operator",
        ],
    ),
    ("slipway-tests", &["slipway-crds"]),
    ("xtask", &[]),
];

/// What the planner must never see: a clock, a network, a runtime, randomness.
const PURE: (&str, &[&str]) = ("slipway-plan", &["tokio", "kube", "k8s-openapi", "reqwest", "tonic", "rand", "hyper"]);

/// Everything.
pub fn run() -> Result<()> {
    run::must(run::cargo()?.args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    arrows()?;
    generate::run(true)
}

fn arrows() -> Result<()> {
    let text = run::output(run::cargo()?.args(["metadata", "--locked", "--format-version", "1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata.get("packages").and_then(|p| p.as_array()).context("cargo metadata names no packages")?;
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let name = package.get("name").and_then(|n| n.as_str()).context("a package without a name")?;
        let dependencies = package.get("dependencies").and_then(|d| d.as_array()).into_iter().flatten();
        let normal = dependencies.filter(|d| d.get("kind").is_none_or(serde_json::Value::is_null));
        found.insert(name, normal.filter_map(|d| d.get("name")?.as_str()).collect());
    }
    let mut wrong = Vec::new();
    for (name, dependencies) in &found {
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| crate_name == name) else {
            wrong.push(format!("{name} is new: say in xtask/src/lint.rs whom it may know"));
            continue;
        };
        for dependency in dependencies.iter().filter(|d| found.contains_key(**d) && !allowed.contains(d)) {
            wrong.push(format!("{name} → {dependency} is no arrow of ours"));
        }
        if *name == PURE.0 {
            for dependency in dependencies.iter().filter(|d| PURE.1.contains(d)) {
                wrong.push(format!("{name} must stay pure and cannot depend on {dependency}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}
