//! `slipway explain`: what was decided about a cluster or a machine and why, from the decisions that its status keeps, and what is waited for now, with
//! what each reason means and what can be done about it.

use crate::args::{Explain, Global};
use crate::connect::{Management, asked};
use crate::outcome::{Outcome, refused, usage};
use crate::output::print;
use anyhow::Result;
use jiff::Timestamp;
use kube::Api;
use serde::Serialize;
use slipway_crds::{Cluster, Decision, Machine, Wait};
use slipway_plan::Reason;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    object: String,
    decisions: Vec<Decision>,
    waits: Vec<Wait>,
    reasons: Vec<Meaning>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Meaning {
    reason: String,
    meaning: String,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Explain) -> Result<Outcome> {
    let wrong = || usage(format!("{:?}: write cluster/NAME or machine/NAME", args.object));
    let (kind, name) = args.object.split_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
    let management = Management::connect(global).await?;
    let missing =
        || refused(format!("there is no {kind} {name} in namespace {}: `slipway get {kind}s -A` lists them", management.namespace));
    let (decisions, waits) = match kind {
        "cluster" | "clusters" | "cl" => {
            let api: Api<Cluster> = Api::namespaced(management.client.clone(), &management.namespace);
            let cluster = asked("reading the Cluster", WITHIN, api.get_opt(name)).await?.ok_or_else(missing)?;
            let status = cluster.status.unwrap_or_default();
            (status.decisions, status.waits)
        }
        "machine" | "machines" | "ma" => {
            let api: Api<Machine> = Api::namespaced(management.client.clone(), &management.namespace);
            let machine = asked("reading the Machine", WITHIN, api.get_opt(name)).await?.ok_or_else(missing)?;
            let status = machine.status.unwrap_or_default();
            (status.decisions, status.waits)
        }
        _ => return Err(wrong()),
    };
    let explanation = Explanation { object: args.object.clone(), reasons: meanings(&waits), decisions, waits };
    print(global.output, &explanation, || text(&explanation))?;
    Ok(Outcome::Done)
}

/// What the waits' reasons mean, each once.
fn meanings(waits: &[Wait]) -> Vec<Meaning> {
    let reasons: BTreeSet<&str> = waits.iter().map(|w| w.reason.as_str()).collect();
    let known = |text: &str| Reason::ALL.iter().find(|r| r.as_str() == text).copied();
    reasons.into_iter().filter_map(known).map(|r| Meaning { reason: r.as_str().to_owned(), meaning: r.explain().to_owned() }).collect()
}

fn text(explanation: &Explanation) -> String {
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", explanation.object);
    if explanation.decisions.is_empty() {
        let _ = writeln!(out, "\nnothing was done to it that needed a reason");
    } else {
        let _ = writeln!(out, "\nwhat was done, and why");
        for decision in &explanation.decisions {
            let _ = writeln!(out, "  {}  {}\n{:24}because {}", clock(decision.at), decision.what, "", decision.because);
        }
    }
    if !explanation.waits.is_empty() {
        let _ = writeln!(out, "\nwhat is waited for");
        for wait in &explanation.waits {
            let machine = wait.machine.as_ref().map(|m| format!("{m}: ")).unwrap_or_default();
            let since = wait.since.map(|t| format!(" since {}", clock(t))).unwrap_or_default();
            let _ = writeln!(out, "  {machine}{} ({}){since}", wait.what, wait.reason);
            if let Some(error) = &wait.last_error {
                let _ = writeln!(out, "    last error: {error}");
            }
            if let Some(at) = wait.next_try {
                let _ = writeln!(out, "    next try: {}", clock(at));
            }
        }
        let _ = writeln!(out, "\nwhat that means");
        for Meaning { reason, meaning } in &explanation.reasons {
            let _ = writeln!(out, "  {reason}: {meaning}");
        }
    }
    out
}

fn clock(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_decision_has_its_reason_and_each_wait_its_meaning() {
        let at: Timestamp = "2026-11-26T10:00:00Z".parse().unwrap();
        let waits = vec![Wait {
            what: "etcd-0 to be healthy".into(),
            reason: "Soaking".into(),
            machine: Some("demo-cp-0".into()),
            since: Some(at),
            last_error: Some("refused".into()),
            next_try: None,
        }];
        let decisions = vec![Decision { at, what: "exchange etcd".into(), machine: None, because: "it is the first that differs".into() }];
        let explanation = Explanation { object: "cluster/demo".into(), reasons: meanings(&waits), decisions, waits };
        let text = text(&explanation);
        assert!(text.contains("because it is the first that differs"), "{text}");
        assert!(text.contains("demo-cp-0: etcd-0 to be healthy (Soaking) since 2026-11-26 10:00:00Z"), "{text}");
        assert!(text.contains(&format!("Soaking: {}", Reason::Soaking.explain())), "{text}");
    }
}
