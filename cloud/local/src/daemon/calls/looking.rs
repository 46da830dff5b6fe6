//! What only looks: the daemon itself, changes, journals, consoles.

use super::host_error;
use crate::daemon::Daemon;
use crate::host;
use crate::records::Kind;
use crate::wire::Status;
use slipway_cloud_api::CloudError;
use std::time::Duration;

/// Longest wait for a change in one call.
const CHANGES_MAX: Duration = Duration::from_secs(300);
/// Most lines of a journal, and bytes of a console.
const LINES_MAX: u32 = 10_000;
const CONSOLE_MAX: u64 = 1 << 20;

impl Daemon {
    /// What there is to say about this daemon.
    pub fn status(&self) -> Status {
        let world = self.world();
        let balancers = world.machines.values().filter(|m| matches!(m.record.kind, Kind::Balancer { .. })).count();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.layout.name.clone(),
            range: self.layout.range,
            endpoint: format!("https://{}", self.endpoint),
            pid: std::process::id(),
            networks: world.networks.len(),
            load_balancers: balancers,
            instances: world.machines.len() - balancers,
        }
    }

    /// Waits for a change of a cluster's after `since`, at most so long; gives the newest revision.
    pub async fn changes(&self, uid: &str, since: u64, at_most: Duration, start: u64) -> u64 {
        let mut news = self.changed.subscribe();
        let wait = async {
            while self.revision(uid, start) == since {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        // Running out of time is an answer, too.
        let _ = tokio::time::timeout(at_most.min(CHANGES_MAX), wait).await;
        self.revision(uid, start)
    }

    /// The last lines of a running instance's journal.
    pub async fn journal(&self, uid: &str, id: &str, unit: Option<&str>, lines: u32) -> Result<String, CloudError> {
        let call = format!("read the journal of {id}");
        let pid = {
            let world = self.world();
            world.machines.get(id).filter(|m| m.record.cluster.uid == uid).and_then(|m| m.pid)
        };
        let Some(pid) = pid else { return Err(CloudError::wait(&call, "it does not run; its journal is in memory")) };
        if unit.is_some_and(|u| !u.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)) || u.starts_with('-')) {
            return Err(CloudError::terminal(&call, "the unit's name has characters that no unit's has"));
        }
        let directory = format!("--directory=/proc/{pid}/root/run/log/journal");
        let lines = format!("--lines={}", lines.min(LINES_MAX));
        let mut args = vec![directory, "--quiet".into(), "--no-pager".into(), "--output=short-precise".into(), lines];
        args.extend(unit.map(|u| format!("--unit={u}")));
        host::run("journalctl", &args, "").await.map_err(host_error(&call))
    }

    /// The end of an instance's console.
    pub async fn console(&self, uid: &str, id: &str) -> Result<String, CloudError> {
        use std::io::{Read, Seek, SeekFrom};
        let call = format!("read the console of {id}");
        if !self.belongs(id, uid) {
            return Err(CloudError::terminal(&call, "the cluster has no such instance"));
        }
        let path = self.layout.machine(id).join("console.log");
        let read = host::blocking(move || {
            let mut text = Vec::new();
            let Ok(mut console) = std::fs::File::open(&path) else { return Ok(text) };
            let length = host::file("reading", &path, console.metadata())?.len();
            host::file("reading", &path, console.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_MAX))))?;
            host::file("reading", &path, console.take(CONSOLE_MAX).read_to_end(&mut text))?;
            Ok(text)
        });
        read.await.map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(host_error(&call))
    }
}
