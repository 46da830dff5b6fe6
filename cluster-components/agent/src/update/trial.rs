//! `slipway-agent trial`: the proven build tries another one as the agent and decides whether it stays. It runs as a unit of its own, because
//! the agent's is what it restarts; and the proven build runs it, because the tried one may be broken in any way.
//!
//! ```text
//! put in ─► reload ─► restart the agent ─┬─ confirmed: link to it ─► take out ─► reload ──────────────────────────────► forget the trial
//!                                        └─ ended too often,
//!                                           or the deadline: note why ─► take out ─► reload ─► restart the agent ─► forget the trial
//! ```
//! Killed anywhere, it is started again by systemd (and should that fail, by whichever build is the agent) and goes on: what was noted or
//! confirmed stands, the rest is safe to repeat. A reboot forgets all of /run, and with it the trial: the link leads to the proven build until
//! the tried one has been confirmed.

use super::programs;
use super::record::{self, Refused, Trial};
use crate::board::now_ms;
use crate::check::AGENT_UNIT;
use crate::root::Root;
use crate::systemd::{Systemd, SystemdError, object_path};
use anyhow::{Context, bail};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A build that ended so often before the operator reached it has had its chance.
const ENDS: u32 = 3;
/// Between two looks. A tried build is the agent from its confirmation on; this only says how soon that is written down.
const LOOK: Duration = Duration::from_millis(50);
const SIGKILL: i32 = 9;
/// Reading the last words of a build that ended.
const WORDS_WITHIN: Duration = Duration::from_secs(2);
/// Characters of them that are told.
const WORDS: usize = 200;

/// What becomes of the tried build.
enum Verdict {
    Stays,
    Refused(String),
}

/// Tries the build of the recorded trial, or goes on with that.
pub async fn trial(root: PathBuf) -> anyhow::Result<()> {
    let root = Root::new(root);
    // A reset has the last word on everything.
    let Some(trial) = Trial::load(&root).filter(|_| !root.state("reset").exists()) else {
        tracing::info!("no build is on trial");
        return Ok(());
    };
    let systemd = Systemd::spawn();
    let noted = Refused::load(&root).filter(|noted| noted.sha256 == trial.tried.sha256);
    let verdict = match noted {
        Some(noted) => Verdict::Refused(noted.why),
        None if trial.confirmed(&root) => Verdict::Stays,
        None => {
            put_in(&root, &systemd, &trial).await?;
            watch(&root, &systemd, &trial).await
        }
    };
    match verdict {
        Verdict::Stays => take_over(&root, &systemd, &trial).await,
        Verdict::Refused(why) => fall_back(&root, &systemd, &trial, &why).await,
    }
}

async fn put_in(root: &Root, systemd: &Systemd, trial: &Trial) -> anyhow::Result<()> {
    tracing::info!(tried = trial.tried.sha256, proven = trial.proven.sha256, "the tried build becomes the agent");
    trial.put_in(root).context("the tried build cannot be put in")?;
    systemd.reload().await?;
    let main: u32 = systemd.property(&object_path(AGENT_UNIT), Some("Service"), "MainPID").await?;
    let tried = trial.tried.program.canonicalize().ok();
    // A trial that goes on after it was killed finds it running, perhaps in the middle of its first call.
    if std::fs::read_link(format!("/proc/{main}/exe")).is_ok_and(|program| Some(program) == tried) {
        return Ok(());
    }
    Ok(systemd.restart(AGENT_UNIT).await?)
}

async fn watch(root: &Root, systemd: &Systemd, trial: &Trial) -> Verdict {
    let (deadline, since) = (Instant::now() + trial.deadline(), now_ms());
    let mut ends = Ends::default();
    loop {
        if trial.confirmed(root) {
            return Verdict::Stays;
        }
        // Without systemd's answer only the clock decides.
        if ends.look(systemd).await.is_ok_and(|ends| ends >= ENDS) {
            return Verdict::Refused(format!(
                "it ended {ENDS} times before the operator reached it{}{}",
                ends.how,
                last_words(since).await
            ));
        }
        if Instant::now() >= deadline {
            return Verdict::Refused(format!("the operator did not reach it within {} s{}", trial.deadline().as_secs(), ends.how));
        }
        sleep(LOOK).await;
    }
}

/// How often the agent's program has ended during the trial, and how it did last.
#[derive(Default)]
struct Ends {
    restarts: Option<u32>,
    count: u32,
    how: String,
}

impl Ends {
    async fn look(&mut self, systemd: &Systemd) -> Result<u32, SystemdError> {
        let (unit, kind) = (object_path(AGENT_UNIT), Some("Service"));
        let status = async || systemd.property::<i32>(&unit, kind, "ExecMainStatus").await;
        // Both are wiped at the next start, a moment later: what was asked around that belongs to different lives.
        let before = status().await?;
        let result: String = systemd.property(&unit, kind, "Result").await?;
        if result != "success" && status().await? == before {
            self.how = format!(" (systemd says {result}, status {before})");
        }
        Ok(self.so_far(systemd.property(&unit, kind, "NRestarts").await?))
    }

    /// From systemd's count of restarts, which begins anew when somebody else restarts the unit, as the trial does.
    fn so_far(&mut self, restarts: u32) -> u32 {
        let last = self.restarts.replace(restarts).unwrap_or(restarts);
        self.count += restarts.saturating_sub(last);
        self.count
    }
}

/// What the agent's program said last, for people.
async fn last_words(since_ms: i64) -> String {
    let since = format!("--since=@{}.{:03}", since_ms / 1000, since_ms % 1000);
    let mut journal = tokio::process::Command::new("journalctl");
    journal.args(["--no-pager", "--quiet", "--output=cat", "--lines=1", &since, &format!("_SYSTEMD_UNIT={AGENT_UNIT}")]);
    let said = timeout(WORDS_WITHIN, journal.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).output()).await;
    let said = said.ok().and_then(Result::ok).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if said.is_empty() { said } else { format!("; its last words: {}", said.chars().take(WORDS).collect::<String>()) }
}

async fn take_over(root: &Root, systemd: &Systemd, trial: &Trial) -> anyhow::Result<()> {
    programs::link(root, &trial.tried).context("the link to the agent's program cannot be moved")?;
    Refused::forget(root).context("refused.json cannot be removed")?;
    record::take_out(root)?;
    systemd.reload().await?;
    // The one before it stays, for whoever has to go back by hand.
    programs::sweep(root, |sha256| sha256 == trial.tried.sha256 || sha256 == trial.proven.sha256)?;
    Trial::end(root)?;
    tracing::info!(build = trial.tried.sha256, "the operator has reached the tried build: it is the agent from now on");
    Ok(())
}

async fn fall_back(root: &Root, systemd: &Systemd, trial: &Trial, why: &str) -> anyhow::Result<()> {
    tracing::warn!(tried = trial.tried.sha256, why, "the tried build does not stay");
    if !trial.proven.program.exists() {
        bail!("{}: the program of the proven build is gone, so there is nothing to go back to", trial.proven.program.display());
    }
    Refused::note(root, &trial.tried.sha256, why).context("refused.json cannot be written")?;
    record::take_out(root)?;
    systemd.reload().await?;
    // A build that does not listen to the operator may not listen to systemd, either; and what it left behind would stay, as the agent's unit
    // stops nothing but its main process. An agent may be killed at any moment.
    systemd.kill(AGENT_UNIT, SIGKILL).await?;
    systemd.restart(AGENT_UNIT).await?;
    programs::sweep(root, |sha256| sha256 != trial.tried.sha256)?;
    Trial::end(root)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_over_systemds_own_resets() {
        let mut ends = Ends::default();
        let seen: Vec<u32> = [2, 2, 0, 0, 1, 1, 2, 3].into_iter().map(|restarts| ends.so_far(restarts)).collect();
        assert_eq!(seen, [0, 0, 0, 0, 1, 1, 2, 3]);
        let mut never_reset = Ends::default();
        assert_eq!([4, 4, 5, 6, 7].map(|restarts| never_reset.so_far(restarts)), [0, 0, 1, 2, 3]);
    }
}
