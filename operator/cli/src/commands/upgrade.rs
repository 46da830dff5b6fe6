//! `slipway upgrade`: shows what would be done, asks, changes one field of the Cluster, and watches until every machine runs what the spec says.
//!
//! Exit code 0: done, or nothing to do. 3: refused, nothing was changed. 4: the time was up. 5: the upgrade stopped; the message says where and why.

use super::plan;
use crate::args::{Format, Global, Upgrade};
use crate::connect::{Management, asked};
use crate::file::FIELD_MANAGER;
use crate::observe::Observer;
use crate::outcome::{Outcome, refused, timed_out};
use crate::output::{print, seconds};
use crate::screen::Screen;
use crate::view::{ClusterView, Detail, changes, tree};
use anyhow::{Result, bail};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use slipway_crds::Cluster;
use slipway_plan::{Reason, ToldEnd};
use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(15);

/// Runs the command.
pub async fn run(global: &Global, args: &Upgrade) -> Result<Outcome> {
    let to = super::artifacts::known(&args.to)?.kubernetes;
    let management = Management::connect(global).await?;
    let api: Api<Cluster> = Api::namespaced(management.client.clone(), &management.namespace);
    let patch = json!({"spec": {"kubernetesVersion": to}});
    let tried = |dry_run| PatchParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let what = format!("trying version {to} on Cluster {}", args.name);
    // What the API refuses, it refuses here, in its own words, before anything is changed.
    let wanted = asked(&what, WITHIN, api.patch(&args.name, &tried(true), &Patch::Merge(&patch))).await?;
    let foreseen = plan::foresee(&management, wanted).await?;
    let text = foreseen.to_string();
    if !foreseen.told.changes {
        print(global.output, &json!({"cluster": args.name, "version": to, "changed": false}), || text.clone())?;
        return if foreseen.told.end == ToldEnd::Done {
            Ok(Outcome::Done)
        } else {
            Err(refused(format!("{}: the upgrade would not begin:\n{text}", args.name)))
        };
    }
    if !args.yes {
        confirm(&text)?;
    }
    asked(&format!("setting version {to} on Cluster {}", args.name), WITHIN, api.patch(&args.name, &tried(false), &Patch::Merge(&patch)))
        .await?;
    let took = follow(&management, args).await?;
    if global.output == Format::Text {
        crate::output::say(&format!("{} runs {to} after {}", args.name, seconds(took)))?;
    } else {
        print(global.output, &json!({"cluster": args.name, "version": to, "changed": true, "seconds": took.as_secs_f64()}), String::new)?;
    }
    Ok(Outcome::Done)
}

/// Shows the steps and asks on the terminal.
fn confirm(text: &str) -> Result<()> {
    eprint!("{text}");
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked: say --yes to go on"));
    }
    eprint!("go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused("called off: nothing was changed")) }
}

/// Watches until the cluster is as its spec says, or goes no further.
async fn follow(management: &Management, args: &Upgrade) -> Result<Duration> {
    let screen = Screen::new();
    let started = Instant::now();
    let mut observer = Observer::new(&management.client, Some(&management.namespace)).await?;
    let mut before: Option<ClusterView> = None;
    loop {
        let Some(view) = observer.view(&management.namespace, &args.name) else {
            bail!("{} was deleted while it was being upgraded", args.name);
        };
        screen.show(&tree(&view, Timestamp::now(), Detail::Machines));
        if screen.is_log() {
            changes(before.as_ref(), &view).iter().for_each(|line| screen.note(line));
        }
        let end = state(&view);
        let message = view.condition("UpToDate").map(|c| c.message.clone()).unwrap_or_default();
        before = Some(view);
        match end {
            State::Done => {
                screen.clear();
                return Ok(started.elapsed());
            }
            State::Stopped => {
                screen.clear();
                bail!("the upgrade of {} stopped: {message} (`slipway explain cluster/{}` says more)", args.name, args.name);
            }
            State::Going => {}
        }
        let left = args.timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            screen.clear();
            return Err(timed_out(format!("{}: not done within {}: {message}; it goes on by itself", args.name, seconds(args.timeout))));
        }
        let look = if screen.is_log() { Duration::from_secs(5) } else { Duration::from_millis(200) };
        observer.changed(left.min(look)).await?;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Going,
    Done,
    Stopped,
}

/// Whether everything is as asked for, or nothing more will be done. Conditions of an older spec say nothing.
fn state(view: &ClusterView) -> State {
    let condition = |kind: &str| view.condition(kind).filter(|_| view.current);
    let is = |kind: &str, status: &str| condition(kind).is_some_and(|c| c.status == status);
    let stopped = [Reason::UpgradeStopped, Reason::PreflightFailed, Reason::ReplacementRefused];
    if is("UpToDate", "True") && is("Ready", "True") {
        State::Done
    } else if is("Progressing", "False") && condition("UpToDate").is_some_and(|c| stopped.iter().any(|r| r.as_str() == c.reason)) {
        State::Stopped
    } else {
        State::Going
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::ConditionView;

    fn view(current: bool, conditions: &[(&str, &str, &str)]) -> ClusterView {
        let conditions = conditions
            .iter()
            .map(|(kind, status, reason)| ConditionView {
                kind: (*kind).to_owned(),
                status: (*status).to_owned(),
                reason: (*reason).to_owned(),
                ..ConditionView::default()
            })
            .collect();
        ClusterView { current, conditions, ..ClusterView::default() }
    }

    #[test]
    fn it_is_over_when_all_is_as_the_newest_spec_says_or_nothing_goes_on() {
        let done = [("UpToDate", "True", "RunsTheSpec"), ("Ready", "True", "AllReady")];
        assert_eq!(state(&view(true, &done)), State::Done);
        assert_eq!(state(&view(false, &done)), State::Going);
        let stopped =
            [("UpToDate", "False", "UpgradeStopped"), ("Ready", "False", "UpgradeStopped"), ("Progressing", "False", "UpgradeStopped")];
        assert_eq!(state(&view(true, &stopped)), State::Stopped);
        let going = [("UpToDate", "False", "Upgrading"), ("Ready", "True", "AllReady"), ("Progressing", "True", "Upgrading")];
        assert_eq!(state(&view(true, &going)), State::Going);
    }
}
