//! Effects on what machines are told to run, and on the record of an upgrade.

use super::book::record;
use super::records::record_machine;
use super::{EffectError, Scene, checks};
use crate::clock;
use crate::context::Context;
use crate::records;
use slipway_crds::{MachineSpec, Program, VersionChange, Versions};
use slipway_model::{MachineName, MachineVersions};
use slipway_plan::UpgradeRecord;

/// Into the Machine's record; the machine follows by the plan that is rendered from it.
pub async fn set(
    context: &Context,
    scene: &Scene,
    name: &MachineName,
    uid: &str,
    from: &MachineVersions,
    to: &MachineVersions,
) -> Result<(), EffectError> {
    let machines = checks::machines(context, scene).await?;
    let Some(known) = machines.iter().find(|m| m.name == *name && m.uid == uid) else {
        return Err(EffectError::Precondition(format!("{name} is not the machine {uid} any more")));
    };
    if known.versions == *to {
        return Ok(());
    }
    checks::versions_may_change(scene, &machines, name, *to)?;
    let (old, new) = (records::versions_object(from), records::versions_object(to));
    record_machine(context, scene, name, uid, |spec| {
        if spec.versions == new {
            return Ok(false);
        }
        if spec.versions != old {
            return Err(format!("{name} was told other versions meanwhile"));
        }
        let newest = records::programs_object(&context.artifacts.programs());
        let next = programs_with(spec, &new, newest);
        let programs = std::mem::replace(&mut spec.programs, next);
        spec.versions = new.clone();
        spec.changed = Some(VersionChange { from: old.clone(), programs, at: clock::now() });
        Ok(true)
    })
    .await
}

/// Builds of our own programs that a machine runs with `new` versions: what it has while its controllers stay, what it had where they go back, and otherwise
/// the newest.
fn programs_with(spec: &MachineSpec, new: &Versions, newest: Vec<Program>) -> Vec<Program> {
    if spec.versions.controllers == new.controllers {
        return spec.programs.clone();
    }
    let before = spec.changed.as_ref().filter(|c| c.from.controllers == new.controllers && !c.programs.is_empty());
    before.map_or(newest, |c| c.programs.clone())
}

/// Its beginning, its end, that it stands still.
pub async fn record_upgrade(
    context: &Context,
    scene: &Scene,
    from: Option<&UpgradeRecord>,
    to: Option<&UpgradeRecord>,
) -> Result<(), EffectError> {
    record(context, scene, |r| {
        let known = r.upgrade.as_ref().map(records::upgrade).transpose().map_err(|e| e.to_string())?;
        if known.as_ref() == to {
            return Ok(false);
        }
        if known.as_ref() != from {
            return Err("the upgrade is recorded otherwise by now".to_owned());
        }
        r.upgrade = to.map(records::upgrade_object);
        Ok(true)
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::Timestamp;
    use serde_json::json;

    fn versions(kubernetes: &str) -> Versions {
        let versions = json!({
            "etcd": "v3.6.14", "apiServer": kubernetes, "controllers": kubernetes, "kubelet": kubernetes, "containerd": "v2.3.4"
        });
        serde_json::from_value(versions).unwrap()
    }

    fn build(sha256: &str) -> Vec<Program> {
        vec![Program { name: "slipway-ccm-local".into(), sha256: sha256.into(), size: 1 }]
    }

    #[test]
    fn builds_stay_with_the_controllers_come_with_new_ones_and_go_back_with_old_ones() {
        let old = versions("v1.36.4");
        let spec = |changed: Option<(Versions, Vec<Program>)>, now: &str, runs: Vec<Program>| {
            let made = json!({ "cluster": "demo", "pool": "cp", "role": "ControlPlane", "ordinal": 0, "versions": versions(now), "revision": "r" });
            let mut spec: MachineSpec = serde_json::from_value(made).unwrap();
            spec.programs = runs;
            spec.changed = changed.map(|(from, programs)| VersionChange { from, programs, at: Timestamp::UNIX_EPOCH });
            spec
        };
        let of = |spec: &MachineSpec, to: &str| programs_with(spec, &versions(to), build("newest"));
        let untouched = spec(None, "v1.36.4", build("first"));
        assert_eq!(of(&untouched, "v1.36.4"), build("first"), "nothing restarts because Slipway is new");
        assert_eq!(of(&untouched, "v1.37.2"), build("newest"));
        let upgraded = spec(Some((old.clone(), build("first"))), "v1.37.2", build("second"));
        assert_eq!(of(&upgraded, "v1.36.4"), build("first"), "what ran with those versions");
        assert_eq!(of(&upgraded, "v1.37.3"), build("newest"), "forward, whatever it was before");
        let unrecorded = spec(Some((old, vec![])), "v1.37.2", build("second"));
        assert_eq!(of(&unrecorded, "v1.36.4"), build("newest"), "what was before was not recorded then");
    }
}
