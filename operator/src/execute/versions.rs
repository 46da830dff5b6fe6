//! Effects on what machines are told to run, and on the record of an upgrade.

use super::book::record;
use super::records::record_machine;
use super::{EffectError, Scene, checks};
use crate::clock;
use crate::context::Context;
use crate::records;
use slipway_crds::VersionChange;
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
        if spec.versions.controllers != new.controllers {
            spec.programs = records::programs_object(&context.artifacts.programs());
        }
        spec.versions = new.clone();
        spec.changed = Some(VersionChange { from: old.clone(), at: clock::now() });
        Ok(true)
    })
    .await
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
