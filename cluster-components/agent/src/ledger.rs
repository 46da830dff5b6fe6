//! What the agent has written on this machine, recorded before it is written: so that what a new plan does not name any more is removed, and
//! a reset leaves nothing, whatever happened in between.

use crate::root::{self, Access, Root};
use serde::{Deserialize, Serialize};
use slipway_model::MachinePlan;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Everything written, by its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Files.
    pub files: BTreeSet<String>,
    /// Directories that were not there before.
    pub directories: BTreeSet<String>,
    /// Units.
    pub units: BTreeSet<String>,
    /// Names below /opt/slipway/bin.
    pub programs: BTreeSet<String>,
    /// sha256 of artifacts that may have been copied.
    pub artifacts: BTreeSet<String>,
    /// Users.
    pub users: BTreeSet<String>,
}

impl Ledger {
    /// From the disk.
    pub fn load(root: &Root) -> io::Result<Self> {
        let Some(bytes) = root::read(&root.state("ledger.json"))? else { return Ok(Self::default()) };
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|e| {
            tracing::warn!(%e, "ledger.json is damaged: what earlier plans have left is not removed");
            Self::default()
        }))
    }

    /// To the disk. Not waited for: after a crash of the machine the accepted plan, which is durable, is applied and recorded first of all.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        root::replace(&root.state("ledger.json"), &serde_json::to_vec(self)?, Access::SECRET)
    }

    /// What a plan is going to write. Directories that are there already are not the agent's to remove.
    #[must_use]
    pub fn of(plan: &MachinePlan, root: &Root, known: &Self) -> Self {
        let ours = |path: &String| known.directories.contains(path) || !root.at(path).exists();
        Self {
            files: plan.files.iter().map(|file| file.path.clone()).collect(),
            directories: plan.directories.iter().map(|directory| directory.path.clone()).filter(ours).collect(),
            units: plan.units.iter().map(|unit| unit.name.clone()).collect(),
            programs: plan.artifacts.iter().map(|artifact| artifact.name.clone()).collect(),
            artifacts: plan.artifacts.iter().map(|artifact| artifact.sha256.clone()).collect(),
            users: plan.users.iter().map(|user| user.name.clone()).collect(),
        }
    }

    /// Both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let both = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.union(b).cloned().collect();
        Self {
            files: both(&self.files, &other.files),
            directories: both(&self.directories, &other.directories),
            units: both(&self.units, &other.units),
            programs: both(&self.programs, &other.programs),
            artifacts: both(&self.artifacts, &other.artifacts),
            users: both(&self.users, &other.users),
        }
    }
}

/// The fingerprints with which units were started in this boot. In /run: a reboot forgets them, as it forgets the processes.
#[derive(Debug, Default)]
pub struct Started {
    prints: BTreeMap<String, String>,
}

impl Started {
    /// From this boot.
    #[must_use]
    pub fn load(root: &Root) -> Self {
        let bytes = root::read(&root.boot("started.json")).ok().flatten();
        // Damaged or not, the worst is one restart too many.
        Self { prints: bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default() }
    }

    /// What a unit was started with.
    #[must_use]
    pub fn get(&self, unit: &str) -> Option<&str> {
        self.prints.get(unit).map(String::as_str)
    }

    /// Remembers a start (or, None, a stop).
    pub fn set(&mut self, root: &Root, unit: &str, fingerprint: Option<String>) -> io::Result<()> {
        match fingerprint {
            Some(fingerprint) => self.prints.insert(unit.to_owned(), fingerprint),
            None => self.prints.remove(unit),
        };
        root::replace(&root.boot("started.json"), &serde_json::to_vec(&self.prints)?, Access::SECRET)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_model::Directory;

    #[test]
    fn directories_that_were_there_before_are_not_ours_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.at("/etc/sysctl.d")).unwrap();
        let directory = |path: &str| Directory { path: path.into(), mode: 0o755, owner: "root".into() };
        let plan = MachinePlan { directories: vec![directory("/etc/sysctl.d"), directory("/etc/kubernetes")], ..MachinePlan::default() };
        let first = Ledger::of(&plan, &root, &Ledger::default());
        assert_eq!(first.directories, ["/etc/kubernetes".to_owned()].into());
        std::fs::create_dir_all(root.at("/etc/kubernetes")).unwrap();
        assert_eq!(Ledger::of(&plan, &root, &first), first, "and what was made stays ours");
    }

    #[test]
    fn starts_are_remembered_for_this_boot() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let mut started = Started::load(&root);
        started.set(&root, "a.service", Some("1".into())).unwrap();
        started.set(&root, "b.service", Some("2".into())).unwrap();
        started.set(&root, "b.service", None).unwrap();
        let again = Started::load(&root);
        assert_eq!((again.get("a.service"), again.get("b.service")), (Some("1"), None));
    }
}
