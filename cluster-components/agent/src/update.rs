//! Another build of the agent in place of this one, which comes back by itself unless the operator reaches the other (docs/adr/0010).
//!
//! ```text
//! Update ─► found, verified, says its version ─► trial recorded ─► slipway-agent-trial.service: the proven build tries the other and decides
//!                                                                       ▲ trial.confirmed
//!           the tried build serves a call of the operator ──────────────┘
//! ```
//! Both builds run this file: the one that runs tells on the board which it is, what is on trial and what did not stay.

mod programs;
mod record;
mod trial;

pub use programs::linked_copy;
pub use trial::trial;

use crate::artifacts::Artifacts;
use crate::board::Board;
use crate::check;
use crate::root::Root;
use crate::systemd::{Systemd, SystemdError};
use record::{Build, Refused, Trial};
use slipway_agent_api::refusal::Refusal;
use slipway_model::ArtifactRef;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tonic::Status;

/// The unit of a trial.
pub const TRIAL_UNIT: &str = "slipway-agent-trial.service";
/// A caller hears within its own deadline how far it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Between two looks at a trial that runs.
const LOOK: Duration = Duration::from_millis(50);
/// Looks between two questions whether the trial's unit is there.
const LOOKS_PER_UNIT: u32 = 20;

/// The agent's own build, and what becomes of another.
pub struct Updates {
    root: Root,
    systemd: Systemd,
    artifacts: Arc<Artifacts>,
    own: watch::Receiver<Option<String>>,
    reached: AtomicBool,
    changed: Notify,
    /// One build is fetched at a time.
    turn: Arc<Mutex<()>>,
}

impl Updates {
    /// Finds out, beside everything else, which build this is, and keeps the board true.
    #[must_use]
    pub fn start(root: &Root, systemd: &Systemd, board: &Arc<Board>) -> Arc<Self> {
        let (found, own) = watch::channel(None);
        let updates = Arc::new(Self {
            root: root.clone(),
            systemd: systemd.clone(),
            artifacts: Arc::new(Artifacts::new(root)),
            own,
            reached: AtomicBool::new(false),
            changed: Notify::new(),
            turn: Arc::default(),
        });
        // Before anybody can ask: a build on trial must not seem to be on none for a moment.
        updates.tell(board);
        let (own, put_up) = (updates.clone(), board.clone());
        tokio::spawn(async move {
            match spawn_blocking(programs::running).await {
                Ok(Ok(sha256)) => {
                    put_up.update(|state| state.agent.get_or_insert_default().sha256.clone_from(&sha256));
                    found.send_replace(Some(sha256.clone()));
                    own.follow(&sha256, &put_up).await;
                }
                Ok(Err(e)) => tracing::warn!(%e, "the agent cannot read its own program: this build has no name, and none can replace it"),
                Err(e) => tracing::warn!(%e, "this build has no name, and none can replace it"),
            }
        });
        updates
    }

    /// The operator was answered over mTLS: a build on trial has shown that it can be reached.
    pub fn reached(&self) {
        if !self.reached.swap(true, SeqCst) {
            self.changed.notify_one();
        }
    }

    // === while a trial runs ===

    /// Puts up what is on trial and what did not stay. The trial that runs.
    fn tell(&self, board: &Board) -> Option<Trial> {
        let (trial, refused) = (Trial::load(&self.root), Refused::load(&self.root).unwrap_or_default());
        // Refused, it is about to be forgotten.
        let open = trial.as_ref().map(|trial| trial.tried.sha256.clone()).filter(|tried| *tried != refused.sha256);
        board.update(|state| {
            let agent = state.agent.get_or_insert_default();
            agent.trial = open.unwrap_or_default();
            (agent.refused, agent.refused_why, agent.refused_since_ms) = (refused.sha256, refused.why, refused.since_ms);
        });
        trial
    }

    /// Keeps the board true; while a trial runs, takes part in it.
    async fn follow(&self, own: &str, board: &Board) {
        let (mut looks, mut confirmed) = (0_u32, false);
        loop {
            let Some(trial) = self.tell(board) else {
                (looks, confirmed) = (0, false);
                self.changed.notified().await;
                continue;
            };
            // The agent is of use as long as it reaches systemd, without which no other build could follow this one.
            if !confirmed && trial.tried.sha256 == own && self.reached.load(SeqCst) && self.systemd.is_connected() {
                match trial.confirm(&self.root) {
                    Ok(()) => confirmed = true,
                    Err(e) => tracing::warn!(%e, "the operator has reached this build, which cannot be written down"),
                }
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_UNIT)
                && let Err(e) = self.keep_going(&trial).await
            {
                tracing::warn!(%e, "the trial of a build of the agent may stand still");
            }
            sleep(LOOK).await;
        }
    }

    /// Starts the trial's unit where it is not: whoever began the trial may have died before.
    async fn keep_going(&self, trial: &Trial) -> Result<(), SystemdError> {
        let rows = self.systemd.list(&[TRIAL_UNIT]).await?;
        let there = rows.iter().any(|row| row.queued || !matches!(row.active.as_str(), "inactive" | "failed"));
        if there || self.root.state("reset").exists() { Ok(()) } else { self.run(trial).await }
    }

    async fn run(&self, trial: &Trial) -> Result<(), SystemdError> {
        let program = trial.proven.program.to_string_lossy();
        let what = "Slipway agent: trial of another build";
        self.systemd.start_transient(TRIAL_UNIT, what, &[&program, "trial"]).await
    }

    // === Update ===

    /// Everything up to the trial: whether there is one to begin, of a build that is here, verified, and able to run.
    pub async fn prepare(&self, expected: &str, build: ArtifactRef) -> Result<Option<Trial>, Status> {
        let own = self.own().await?;
        if build.sha256 == own {
            return Ok(None);
        }
        let ready = async {
            let turn = self.turn.clone().lock_owned().await;
            if let Some(Refused { sha256, why, .. }) = Refused::load(&self.root).filter(|refused| refused.sha256 == build.sha256) {
                return Err(Refusal::RefusedBuild { build: sha256, why }.into());
            }
            if self.on_trial(&build.sha256)? {
                return Ok(None);
            }
            if expected != own {
                return Err(Refusal::OtherBuild { current: own, expected: expected.to_owned() }.into());
            }
            let (root, artifacts) = (self.root.clone(), self.artifacts.clone());
            // Fetched to its end even if the caller goes away: who asks again finds it there.
            let fetch = tokio::spawn(async move {
                let _turn = turn;
                fetch(&root, &artifacts, &build, own).await
            });
            fetch.await.map_err(internal)?.map(Some)
        };
        let late = |_| Status::aborted("the build is still being fetched and tried out: ask again");
        let prepared = timeout(ANSWER_WITHIN, ready).await.map_err(late)?;
        // A build may have been refused without a trial.
        self.changed.notify_one();
        prepared
    }

    /// Whether this very build is on trial. Another one is a refusal.
    fn on_trial(&self, sha256: &str) -> Result<bool, Refusal> {
        match Trial::load(&self.root).map(|trial| trial.tried.sha256) {
            Some(tried) if tried != sha256 => Err(Refusal::OnTrial { build: tried }),
            tried => Ok(tried.is_some()),
        }
    }

    /// Begins a trial, one caller at a time. When this returns it goes on, whoever dies.
    pub async fn begin(&self, trial: &Trial) -> Result<(), Status> {
        if self.on_trial(&trial.tried.sha256)? {
            return Ok(());
        }
        let shown = "/run/slipway/trial.json";
        trial.save(&self.root).map_err(|e| internal(format!("{shown}: {e}")))?;
        if let Err(e) = self.run(trial).await {
            Trial::end(&self.root).map_err(|e| internal(format!("{shown}: {e}")))?;
            return Err(internal(format!("the trial cannot begin: {e}")));
        }
        tracing::info!(tried = trial.tried.sha256, proven = trial.proven.sha256, "another build of the agent is tried");
        self.changed.notify_one();
        Ok(())
    }

    /// sha256 of the program that runs.
    async fn own(&self) -> Result<String, Status> {
        let mut own = self.own.clone();
        let own = own.wait_for(Option::is_some).await.ok().and_then(|own| own.clone());
        own.ok_or_else(|| internal("the agent does not know which build it is, as it cannot read its own program: restart it"))
    }
}

/// Finds and verifies the build, and lets it say its version: one that cannot even do that is refused without a trial.
async fn fetch(root: &Root, artifacts: &Artifacts, build: &ArtifactRef, own: String) -> Result<Trial, Status> {
    let program = artifacts.find(build).await.map_err(|why| internal(format!("build {:.12} of the agent: {why}", build.sha256)))?;
    if root.state("reset").exists() {
        // Fetched while everything was wiped.
        programs::sweep(root, |sha256| sha256 == own).map_err(internal)?;
        return Err(Refusal::Reset.into());
    }
    match programs::says_version(&program).await {
        Ok(version) => tracing::info!(build = build.sha256, version, "another build of the agent is here"),
        Err(why) => {
            let refused = Refused::note(root, &build.sha256, &why).map_err(internal)?;
            return Err(Refusal::RefusedBuild { build: refused.sha256, why: refused.why }.into());
        }
    }
    let copy = root.clone();
    let proven = spawn_blocking(move || programs::keep_running(&copy, &own)).await.map_err(internal)?.map_err(internal)?;
    Ok(Trial::new(Build { sha256: build.sha256.clone(), program }, proven))
}

/// A build from a message.
pub fn parse(bytes: &[u8]) -> Result<ArtifactRef, Refusal> {
    let build: ArtifactRef = serde_json::from_slice(bytes).map_err(|e| Refusal::Invalid(format!("the build of the agent: {e}")))?;
    check::build(&build).map_err(Refusal::Invalid)?;
    Ok(build)
}

/// Ends a trial without a decision, for a reset: afterwards nothing of it is left. `stop` stops a unit and waits for that.
pub async fn abandon<F>(root: &Root, systemd: &Systemd, stop: impl FnOnce(&'static str) -> F) -> Result<(), String>
where
    F: Future<Output = Result<(), String>>,
{
    if !record::is_there(root) {
        return Ok(());
    }
    stop(TRIAL_UNIT).await?;
    record::take_out(root).map_err(|e| e.to_string())?;
    systemd.reload().await.map_err(|e| e.to_string())?;
    Trial::end(root).map_err(|e| e.to_string())
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
