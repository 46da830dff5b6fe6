//! What two builds of the agent tell each other about a trial, and what outlives it.
//!
//! ```text
//! /run/slipway/trial.json       which build is tried and which one decides: written before anything is begun, removed after everything is done
//! /run/slipway/trial.confirmed  sha256 of a build that the operator has reached
//! /run/systemd/system/slipway-agent.service.d/50-trial.conf   the tried build as the agent's program, in this boot only
//! refused.json in /var/lib/slipway/agent (and /run/slipway)   the build that was tried last and did not stay, and why
//! ```
//! Builds of different ages read these: fields may be added, never changed.

use crate::board::now_ms;
use crate::check::AGENT_UNIT;
use crate::root::{self, Access, Root};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the operator has to reach a build on trial.
const DEADLINE_SECONDS: u64 = 60;
/// Another number of seconds for that; for tests.
const DEADLINE_VARIABLE: &str = "SLIPWAY_TRIAL_SECONDS";

/// A build of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its digest.
    pub sha256: String,
    /// Where its verified program is.
    pub program: PathBuf,
}

/// A trial that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The build that may become the agent.
    pub tried: Build,
    /// The build that is the agent, and decides.
    pub proven: Build,
    deadline_seconds: u64,
}

/// A build that did not stay. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its digest.
    pub sha256: String,
    /// What was wrong with it.
    pub why: String,
    /// Since when that is known, milliseconds since 1970.
    pub since_ms: i64,
}

impl Trial {
    /// One that has yet to begin.
    #[must_use]
    pub fn new(tried: Build, proven: Build) -> Self {
        let wanted = std::env::var(DEADLINE_VARIABLE).ok().and_then(|seconds| seconds.parse().ok());
        Self { tried, proven, deadline_seconds: wanted.unwrap_or(DEADLINE_SECONDS) }
    }

    /// The one that runs. A damaged record is none: the build that decides reads it before it disturbs anything.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        json(&root.boot("trial.json"))
    }

    /// Records it, with no word of an earlier one left. From here on it is begun, whoever dies.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        root::remove(&confirmation(root))?;
        root::replace(&root.boot("trial.json"), &serde_json::to_vec(self)?, Access::SECRET)
    }

    /// Forgets it: the last thing that is done.
    pub fn end(root: &Root) -> io::Result<()> {
        root::remove(&confirmation(root))?;
        root::remove(&root.boot("trial.json"))
    }

    /// How long the operator has to reach the tried build.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds)
    }

    /// Says, as the tried build, that the operator has reached it.
    pub fn confirm(&self, root: &Root) -> io::Result<()> {
        root::replace(&confirmation(root), self.tried.sha256.as_bytes(), Access::SECRET)
    }

    /// Whether the tried build has said so.
    #[must_use]
    pub fn confirmed(&self, root: &Root) -> bool {
        root::read(&confirmation(root)).ok().flatten().is_some_and(|said| said == self.tried.sha256.as_bytes())
    }

    /// Makes the tried build the agent's program from its next start on, in this boot. systemd has to read it.
    pub fn put_in(&self, root: &Root) -> io::Result<()> {
        let text = format!("[Service]\nExecStart=\nExecStart={} run\n", self.tried.program.display());
        root::replace(&drop_in(root), text.as_bytes(), Access::PUBLIC)
    }
}

/// Undoes [`Trial::put_in`]. systemd has to read that.
pub fn take_out(root: &Root) -> io::Result<()> {
    let path = drop_in(root);
    root::remove(&path)?;
    // Drop-ins of others may be there.
    let _ = path.parent().map(std::fs::remove_dir);
    Ok(())
}

/// Whether anything of a trial is there.
#[must_use]
pub fn is_there(root: &Root) -> bool {
    root.boot("trial.json").exists() || drop_in(root).exists()
}

fn confirmation(root: &Root) -> PathBuf {
    root.boot("trial.confirmed")
}

fn drop_in(root: &Root) -> PathBuf {
    root.unit(&format!("{AGENT_UNIT}.d")).join("50-trial.conf")
}

impl Refused {
    /// The build that was tried last and did not stay.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        noted(root).iter().find_map(|path| json(path))
    }

    /// Notes it. What was noted of the same build before stands. A full disk must not keep a broken build in its place: what cannot be kept
    /// for ever is kept for this boot.
    pub fn note(root: &Root, sha256: &str, why: &str) -> io::Result<Self> {
        if let Some(noted) = Self::load(root).filter(|noted| noted.sha256 == sha256) {
            return Ok(noted);
        }
        let refused = Self { sha256: sha256.to_owned(), why: why.to_owned(), since_ms: now_ms() };
        let (bytes, [boot, disk]) = (serde_json::to_vec(&refused)?, noted(root));
        root::replace(&boot, &bytes, Access::SECRET)?;
        if let Err(e) = root::replace_durably(&disk, &bytes, Access::SECRET) {
            tracing::warn!(path = %disk.display(), why = root::words(&e), "a reboot will forget that this build was refused");
        }
        Ok(refused)
    }

    /// Another build has stayed.
    pub fn forget(root: &Root) -> io::Result<()> {
        noted(root).iter().try_for_each(|path| root::remove(path))
    }
}

/// The later word first.
fn noted(root: &Root) -> [PathBuf; 2] {
    [root.boot("refused.json"), root.state("refused.json")]
}

fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = root::read(path).ok().flatten()?;
    serde_json::from_slice(&bytes).map_err(|e| tracing::warn!(path = %path.display(), %e, "damaged, and taken for none")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn trial(digit: &str) -> Trial {
        let build = |sha256: String| Build { program: format!("/opt/{sha256}").into(), sha256 };
        Trial::new(build(digit.repeat(64)), build("0".repeat(64)))
    }

    #[test]
    fn a_confirmation_counts_for_the_build_that_gave_it_and_for_its_own_trial() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let (one, two) = (trial("1"), trial("2"));
        one.save(&root).unwrap();
        assert!(!one.confirmed(&root));
        one.confirm(&root).unwrap();
        assert!(one.confirmed(&root) && !two.confirmed(&root));
        one.save(&root).unwrap();
        assert!(!one.confirmed(&root), "a second trial begins without the word of the first");
        assert_eq!(Trial::load(&root), Some(one));
        Trial::end(&root).unwrap();
        assert_eq!(Trial::load(&root), None);
    }

    #[test]
    fn what_was_put_in_is_taken_out_without_a_trace_and_what_others_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        trial("1").put_in(&root).unwrap();
        assert!(is_there(&root));
        take_out(&root).unwrap();
        take_out(&root).unwrap();
        let directory = root.unit("slipway-agent.service.d");
        assert!(!is_there(&root) && !directory.exists());
        trial("1").put_in(&root).unwrap();
        root::replace(&directory.join("90-other.conf"), b"", Access::PUBLIC).unwrap();
        take_out(&root).unwrap();
        assert!(directory.join("90-other.conf").exists());
    }

    #[test]
    fn the_first_reason_for_a_refusal_stands_until_another_build_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(Refused::load(&root), None);
        let first = Refused::note(&root, "1", "deaf").unwrap();
        assert_eq!(Refused::note(&root, "1", "mute").unwrap(), first);
        assert_eq!(Refused::note(&root, "2", "mute").unwrap().why, "mute");
        assert_eq!(Refused::load(&root).unwrap().sha256, "2");
        std::fs::remove_dir_all(root.boot("")).unwrap();
        assert_eq!(Refused::load(&root).unwrap().sha256, "2", "a reboot does not forget it");
        Refused::forget(&root).unwrap();
        assert_eq!(Refused::load(&root), None);
    }

    #[test]
    fn what_cannot_be_kept_on_the_disk_is_told_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root::replace(&root.at("/var/lib/slipway"), b"a file where a directory should be", Access::PUBLIC).unwrap();
        Refused::note(&root, "1", "deaf").unwrap();
        assert_eq!(Refused::load(&root).unwrap().why, "deaf");
    }

    #[test]
    fn a_record_of_a_later_build_is_read_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut value = serde_json::to_value(trial("1")).unwrap();
        value.as_object_mut().unwrap().insert("since".into(), 7.into());
        root::replace(&root.boot("trial.json"), value.to_string().as_bytes(), Access::SECRET).unwrap();
        assert_eq!(Trial::load(&root), Some(trial("1")));
        root::replace(&root.boot("trial.json"), b"{", Access::SECRET).unwrap();
        assert_eq!(Trial::load(&root), None);
    }
}
