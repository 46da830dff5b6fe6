//! What a unit is started with, as one digest: its text, its files, its programs. When that changes the unit restarts, and only then.

use sha2::{Digest, Sha256};
use slipway_model::{MachinePlan, Unit, UnitState};

/// Digest of everything that a unit of the plan is started with.
#[must_use]
pub fn fingerprint(plan: &MachinePlan, unit: &Unit) -> String {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    part(unit.content.as_bytes());
    part(match unit.state {
        UnitState::Running => b"running",
        UnitState::Present => b"present",
    });
    for file in plan.files.iter().filter(|file| unit.files.contains(&file.path)) {
        part(file.path.as_bytes());
        part(file.owner.as_bytes());
        part(&file.mode.to_be_bytes());
        part(&file.content.0);
    }
    for artifact in plan.artifacts.iter().filter(|artifact| unit.artifacts.contains(&artifact.name)) {
        part(artifact.name.as_bytes());
        part(artifact.sha256.as_bytes());
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use slipway_model::{ArtifactRef, File};

    fn plan() -> MachinePlan {
        let file = |path: &str| File { path: path.into(), mode: 0o644, owner: "root".into(), content: path.into() };
        let unit = |name: &str, file: &str| Unit {
            name: name.into(),
            content: "[Service]".into(),
            state: UnitState::Running,
            files: vec![file.into()],
            artifacts: vec!["etcd".into()],
        };
        MachinePlan {
            files: vec![file("/etc/a"), file("/etc/b")],
            artifacts: vec![ArtifactRef { name: "etcd".into(), sha256: "1".into(), size: 1, sources: vec!["file:///one".into()] }],
            units: vec![unit("a.service", "/etc/a"), unit("b.service", "/etc/b")],
            ..MachinePlan::default()
        }
    }

    fn prints(plan: &MachinePlan) -> Vec<String> {
        plan.units.iter().map(|unit| fingerprint(plan, unit)).collect()
    }

    #[test]
    fn a_changed_file_changes_only_its_units() {
        let (before, mut after) = (plan(), plan());
        after.files[0].content = "other".into();
        let (before, after) = (prints(&before), prints(&after));
        assert_ne!(before[0], after[0]);
        assert_eq!(before[1], after[1]);
    }

    #[test]
    fn mode_owner_program_and_text_count_and_the_source_does_not() {
        let before = prints(&plan());
        let changed = |change: fn(&mut MachinePlan)| {
            let mut plan = plan();
            change(&mut plan);
            prints(&plan)[0] != before[0]
        };
        assert!(changed(|p| p.files[0].mode = 0o600));
        assert!(changed(|p| p.files[0].owner = "etcd".into()));
        assert!(changed(|p| p.artifacts[0].sha256 = "2".into()));
        assert!(changed(|p| p.units[0].content.push('\n')));
        assert!(!changed(|p| p.artifacts[0].sources = vec!["file:///other".into()]));
    }
}
