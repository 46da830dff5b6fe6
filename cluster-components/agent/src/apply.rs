//! Makes the accepted plan real: one task, one pass after the other, each safe to cut short anywhere.
//!
//! ```text
//! pass: record ─► users, directories, files ─┬─► per unit: artifacts checked ─► unit file ─► (reload) ─► (gate) ─► start or restart ─► remembered
//!                                            ├─► artifacts no unit names
//!                                            └─► removed units: stop ─► wait ─► delete ─► removed files, programs, copies
//! ```
//! Units do not wait for each other's artifacts: etcd runs while the apiserver's program is still being hashed. Nothing waits for a unit to be
//! up. A pass that met trouble is repeated, with growing pauses; one that did not is repeated when a unit goes down, and each minute for drift.

mod checks;
mod reloads;
mod retire;

pub use retire::stopped;

use crate::accepted::Plan;
use crate::artifacts::Artifacts;
use crate::board::{Board, Troubles};
use crate::fingerprint::fingerprint;
use crate::gate::Gate;
use crate::ledger::{Ledger, Started};
use crate::place::{Failures, place};
use crate::root::{self, Access, Root};
use crate::systemd::{Systemd, SystemdError, object_path};
use crate::units;
use checks::Checks;
use futures::future::{join_all, join3};
use reloads::Reloads;
use slipway_model::{MachinePlan, Unit, UnitState};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// What ends a failing pass's pause at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const DRIFT: Duration = Duration::from_secs(60);
/// A unit that was up for so long may go down again without being suspected.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Makes plans real.
pub struct Applier {
    /// The machine's file system.
    pub root: Root,
    /// systemd.
    pub systemd: Systemd,
    /// Where progress and trouble are put up.
    pub board: Arc<Board>,
    /// Rung when a unit goes down.
    pub down: Arc<Notify>,
    artifacts: Artifacts,
    gate: Arc<Gate>,
    started: Mutex<Started>,
    revivals: Mutex<HashMap<String, Revival>>,
    /// Held by whoever writes files, in a thread that a cut-short pass leaves behind: the next pass must not be overtaken by it.
    pen: Arc<tokio::sync::Mutex<()>>,
    reloads: Reloads,
}

/// How often a unit that went down was started again.
struct Revival {
    last: Instant,
    pause: Duration,
}

/// What stands in the way, by subject.
type Trouble = BTreeMap<String, String>;

impl Applier {
    /// One for this machine.
    #[must_use]
    pub fn new(root: &Root, systemd: &Systemd, board: &Arc<Board>, down: &Arc<Notify>, gate: &Arc<Gate>) -> Self {
        Self {
            root: root.clone(),
            systemd: systemd.clone(),
            board: board.clone(),
            down: down.clone(),
            artifacts: Artifacts::new(root),
            gate: gate.clone(),
            started: Mutex::new(Started::load(root)),
            revivals: Mutex::default(),
            pen: Arc::default(),
            reloads: Reloads::default(),
        }
    }

    /// Works for ever on whatever plan is current. Ends when the plans do, which is how a reset stops it.
    pub async fn run(self, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
        let mut troubles = Troubles::default();
        let mut pause = Duration::ZERO;
        loop {
            let Some(plan) = plans.borrow_and_update().clone() else {
                if plans.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let outcome = tokio::select! {
                biased;
                changed = plans.changed() => {
                    if changed.is_err() { return; }
                    pause = Duration::ZERO;
                    continue;
                }
                outcome = self.pass(&plan) => outcome,
            };
            if outcome.is_empty() {
                // What is put up as applied must not stand beside the units as they were before.
                let names: Vec<String> = plan.plan.units.iter().map(|unit| unit.name.clone()).collect();
                if let Err(e) = units::refresh(&self.systemd, &self.board, &names, None, || true).await {
                    tracing::debug!(%e, "units not refreshed");
                }
                self.board.update(|state| {
                    state.applying.clear();
                    state.applied_digest.clone_from(&plan.digest);
                });
                pause = Duration::ZERO;
            } else {
                pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
                self.board.update(|state| state.applying = format!("trying again every {} s", pause.as_secs()));
            }
            for (subject, words) in &outcome {
                tracing::warn!(subject, words, "in the way of the plan");
            }
            troubles.replace(outcome);
            self.board.trouble(&troubles);
            let pause = if troubles.is_empty() { self.next_look() } else { pause };
            tokio::select! {
                changed = plans.changed() => if changed.is_err() { return },
                () = self.down.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// When a unit that is down may be started again, or when to look for drift.
    fn next_look(&self) -> Duration {
        let Ok(revivals) = self.revivals.lock() else { return DRIFT };
        let down = |name: &str| self.board.unit(name).is_some_and(|unit| matches!(unit.active_state.as_str(), "inactive" | "failed"));
        let due = revivals.iter().filter(|(name, _)| down(name)).map(|(_, r)| (r.last + r.pause).saturating_duration_since(Instant::now()));
        due.min().unwrap_or(DRIFT).clamp(Duration::from_millis(200), DRIFT)
    }

    fn say(&self, doing: &str) {
        self.board.update(|state| doing.clone_into(&mut state.applying));
    }

    async fn pass(&self, plan: &Arc<Plan>) -> Trouble {
        // After a pass that met trouble, when the next one comes is worth more than what this one is doing.
        let first = self.board.subscribe().borrow().applied_digest != plan.digest && self.board.is_untroubled();
        if first {
            self.say("writing files");
        }
        let (before, failures) = match self.write(plan).await {
            Ok(done) => done,
            Err(why) => return [("/var/lib/slipway/agent".to_owned(), why)].into(),
        };
        if first {
            self.say("checking programs and starting units");
        }
        let checks = Checks::new(&plan.plan, &self.artifacts);
        let units = join_all(plan.plan.units.iter().map(|unit| self.unit(&plan.plan, unit, &failures, &checks)));
        let rest = join_all(plan.plan.artifacts.iter().map(|artifact| checks.named(&artifact.name)));
        // A unit's own artifacts come first in the queue, because its future is polled first.
        let (units, rest, removed) = join3(units, rest, self.remove_units(&plan.plan, &before)).await;
        let mut trouble: Trouble = failures.into_iter().collect();
        trouble.extend(units.into_iter().filter_map(|(name, done)| Some((name, done.err()?))));
        for (name, done) in rest {
            if let Err(why) = done {
                trouble.insert(format!("artifact {name}"), why);
            }
        }
        trouble.extend(removed);
        if trouble.is_empty()
            && let Err(why) = self.tidy(plan, before).await
        {
            trouble.insert("removing what the plan does not name".into(), why);
        }
        if trouble.is_empty()
            && let Err(e) = self.old_ones_end(&plan.plan).await
        {
            trouble.insert("systemd".into(), e.to_string());
        }
        trouble
    }

    /// Returns when nothing of what ran before runs any more: systemd takes a restart on and carries it out later. Others go by what is said to be applied:
    /// a kubelet may not meet an API server that is older.
    async fn old_ones_end(&self, plan: &MachinePlan) -> Result<(), SystemdError> {
        let names: Vec<&str> = plan.units.iter().map(|unit| unit.name.as_str()).collect();
        while !names.is_empty() {
            let rows = self.systemd.list(&names).await?;
            let Some(ending) = rows.iter().find(|row| row.ending) else { return Ok(()) };
            self.say(&format!("waiting for the old {} to end", ending.name));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Records, then writes users, directories and files. What was written by earlier plans, and what could not be written now.
    async fn write(&self, plan: &Arc<Plan>) -> Result<(Ledger, Failures), String> {
        let pen = self.pen.clone().lock_owned().await;
        let (root, plan) = (self.root.clone(), plan.clone());
        let work = move || {
            let _pen = pen;
            let before = Ledger::load(&root).map_err(|e| format!("ledger.json: {e}"))?;
            let both = before.union(&Ledger::of(&plan.plan, &root, &before));
            if both != before {
                both.save(&root).map_err(|e| format!("ledger.json: {}", root::words(&e)))?;
            }
            Ok((both, place(&plan.plan, &root)))
        };
        spawn_blocking(work).await.map_err(|e| e.to_string())?
    }

    // === one unit ===

    async fn unit(&self, plan: &MachinePlan, unit: &Unit, failures: &Failures, checks: &Checks<'_>) -> (String, Result<(), String>) {
        (unit.name.clone(), self.bring(plan, unit, failures, checks).await)
    }

    async fn bring(&self, plan: &MachinePlan, unit: &Unit, failures: &Failures, checks: &Checks<'_>) -> Result<(), String> {
        if let Some(missing) = unit.files.iter().find(|file| failures.contains_key(*file)) {
            return Err(format!("not started: its file {missing} could not be written"));
        }
        let print = fingerprint(plan, unit);
        let same = self.started.lock().is_ok_and(|started| started.get(&unit.name) == Some(&print));
        if same {
            // After the agent's own restart the board is new, the unit is not.
            self.board.started(&unit.name, &print);
        }
        let revive = same && self.is_down(unit) && self.may_revive(&unit.name) && self.is_down_now(&unit.name).await;
        if same && !revive {
            return Ok(());
        }
        for name in &unit.artifacts {
            checks.ensure(name).await.map_err(|why| format!("not started: {why}"))?;
        }
        let path = self.root.unit(&unit.name);
        let there = root::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        if there.as_deref() != Some(unit.content.as_bytes()) {
            root::replace(&path, unit.content.as_bytes(), Access::PUBLIC)
                .map_err(|e| format!("{}: {}", path.display(), root::words(&e)))?;
        }
        // Units that are ready at the same time write their files before the first is asked for: systemd reads all its directories anew
        // whenever one of them has changed.
        tokio::task::yield_now().await;
        let stale = match there {
            // A unit that systemd has not read yet needs no reload: it is read when it is first asked for.
            None => self.board.unit(&unit.name).is_some_and(|status| status.active_state != "inactive"),
            Some(there) if there != unit.content.as_bytes() => true,
            // Written by a pass that was cut short before it could reload, perhaps.
            Some(_) => self.systemd.property(&object_path(&unit.name), None, "NeedDaemonReload").await.unwrap_or(false),
        };
        if stale {
            self.reloads.reload(&self.systemd).await.map_err(|e| e.to_string())?;
        }
        // All that it starts with is there and checked: only now is the old one disturbed.
        let was_started = self.started.lock().is_ok_and(|started| started.get(&unit.name).is_some());
        let aside = if was_started { self.gate.step_aside(plan, &unit.name).await } else { None };
        self.start(unit, revive).await.map_err(|e| e.to_string())?;
        drop(aside);
        if let Ok(mut started) = self.started.lock() {
            // Should this be lost, the unit is restarted once too often.
            let _ = started.set(&self.root, &unit.name, Some(print.clone()));
        }
        self.board.started(&unit.name, &print);
        tracing::info!(unit = unit.name, revive, "started");
        Ok(())
    }

    async fn start(&self, unit: &Unit, revive: bool) -> Result<(), SystemdError> {
        if revive {
            self.systemd.reset_failed(&unit.name).await?;
        }
        let job = || async {
            match unit.state {
                UnitState::Running => self.systemd.restart(&unit.name).await,
                UnitState::Present => self.systemd.try_restart(&unit.name).await,
            }
        };
        match job().await {
            // systemd knows a directory by its time of change, which on some kernels is too coarse to see two files made in a row.
            Err(SystemdError::Refused { unknown: true, .. }) => {
                self.reloads.reload(&self.systemd).await?;
                job().await
            }
            done => done,
        }
    }

    /// Whether a unit that should run has ended, and systemd does not bring it back. A finished oneshot has done its work.
    fn is_down(&self, unit: &Unit) -> bool {
        let oneshot = unit.content.lines().any(|line| line.trim() == "Type=oneshot");
        unit.state == UnitState::Running
            && self.board.unit(&unit.name).is_some_and(|status| match status.active_state.as_str() {
                "failed" => true,
                "inactive" => !(oneshot && status.result == "success" && status.since_ms > 0),
                _ => false,
            })
    }

    /// The board may be a moment behind, and a unit may have a start queued: asked of systemd itself.
    async fn is_down_now(&self, name: &str) -> bool {
        let rows = self.systemd.list(&[name]).await.unwrap_or_default();
        rows.iter().any(|row| !row.queued && matches!(row.active.as_str(), "inactive" | "failed"))
    }

    /// Starting what always ends again must not become a hobby.
    fn may_revive(&self, name: &str) -> bool {
        let (Ok(mut revivals), now) = (self.revivals.lock(), Instant::now()) else { return false };
        let revival = revivals.entry(name.to_owned()).or_insert(Revival { last: now, pause: Duration::ZERO });
        let since = now.saturating_duration_since(revival.last);
        if since < revival.pause {
            return false;
        }
        let pause = if since > GOOD_RUN { Duration::ZERO } else { revival.pause };
        *revival = Revival { last: now, pause: (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE) };
        true
    }
}
