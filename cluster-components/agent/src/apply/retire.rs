//! What earlier plans have left and the current one does not name: stopped, then removed. The ledger knows it.

use super::{Applier, Trouble};
use crate::accepted::Plan;
use crate::artifacts::Artifacts;
use crate::ledger::Ledger;
use crate::root;
use crate::systemd::{Systemd, SystemdError};
use futures::future::join_all;
use slipway_model::MachinePlan;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Longer than any unit's TimeoutStopSec should be.
const STOP_WITHIN: Duration = Duration::from_secs(120);

impl Applier {
    /// Stops units that the plan does not name any more, then deletes their files.
    pub(super) async fn remove_units(&self, plan: &MachinePlan, written: &Ledger) -> Trouble {
        let gone: Vec<&String> = written.units.iter().filter(|name| !plan.units.iter().any(|unit| unit.name == **name)).collect();
        let stopped = join_all(gone.iter().map(|name| async move {
            let stop = async {
                self.systemd.stop(name).await?;
                stopped(&self.systemd, name).await
            };
            let done = match timeout(STOP_WITHIN, stop).await {
                Ok(done) => done.map_err(|e| e.to_string()),
                Err(_) => Err(format!("still stopping after {} s", STOP_WITHIN.as_secs())),
            };
            // Only now: a unit whose file is gone forgets how it wants to be stopped.
            let done = done.and_then(|()| root::remove(&self.root.unit(name)).map_err(|e| e.to_string()));
            if let (Ok(()), Ok(mut started)) = (&done, self.started.lock()) {
                let _ = started.set(&self.root, name, None);
            }
            Some(((*name).clone(), done.err()?))
        }))
        .await;
        let mut trouble: Trouble = stopped.into_iter().flatten().collect();
        if !gone.is_empty()
            && trouble.is_empty()
            && let Err(e) = self.reloads.reload(&self.systemd).await
        {
            trouble.insert("reload".into(), e.to_string());
        }
        trouble
    }

    /// Removes files, programs and copies that no plan names any more, and forgets them.
    pub(super) async fn tidy(&self, plan: &Arc<Plan>, written: Ledger) -> Result<(), String> {
        let now = Ledger::of(&plan.plan, &self.root, &written);
        if now == written {
            return Ok(());
        }
        let pen = self.pen.clone().lock_owned().await;
        let root = self.root.clone();
        let work = move || {
            let _pen = pen;
            for file in written.files.difference(&now.files) {
                root::remove(&root.at(file))?;
            }
            for program in written.programs.difference(&now.programs) {
                root::remove(&root.program(program))?;
            }
            for directory in written.directories.iter().rev().filter(|directory| !now.directories.contains(*directory)) {
                // What others have put in, data above all, stays until a reset.
                let _ = std::fs::remove_dir(root.at(directory));
            }
            // Users stay: files of theirs may.
            let now = Ledger { users: written.users, ..now };
            Artifacts::new(&root).prune(|sha256| now.artifacts.contains(sha256))?;
            now.save(&root)
        };
        spawn_blocking(work).await.map_err(|e| e.to_string())?.map_err(|e: std::io::Error| root::words(&e))
    }
}

/// Waits until a unit runs no more.
pub async fn stopped(systemd: &Systemd, name: &str) -> Result<(), SystemdError> {
    loop {
        let rows = systemd.list(&[name]).await?;
        if rows.iter().all(|row| !row.queued && matches!(row.active.as_str(), "inactive" | "failed")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
