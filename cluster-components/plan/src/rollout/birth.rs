//! What new machines are made to run.
//!
//! A new machine must not be the first step of an upgrade that has not begun (no preflight, no snapshot), nor run ahead of one that has: it is made like the
//! least advanced of its peers and goes on with them. Workers are made with what is wanted as soon as every API server bears it.

use super::{pools, serving, skew};
use crate::MachineRecord;
use crate::draft::Draft;
use slipway_model::{MachineName, MachineVersions, PoolName, Strategy};

/// What new machines of a pool are made to run, and of which revision they are.
pub(crate) fn birth(draft: &Draft<'_>, pool: &PoolName) -> (MachineVersions, String) {
    if pool.is_control_plane() {
        let wanted = &draft.spec.control_plane;
        return (control_plane(draft).unwrap_or(wanted.versions), wanted.revision.clone());
    }
    let Some(wanted) = draft.spec.pools.iter().find(|p| p.name == *pool) else {
        return (MachineVersions { control_plane: None, ..draft.spec.control_plane.versions }, String::new());
    };
    let bears = pools::api_servers_bear(draft, &wanted.versions) && !stands_still(draft);
    let versions = first_that_fits(draft, pool, Some(wanted.versions).filter(|_| bears).into_iter().chain(peers(draft, pool)));
    (versions.unwrap_or(wanted.versions), wanted.revision.clone())
}

/// The first of some versions that go with all that may be running, or else the first.
fn first_that_fits(draft: &Draft<'_>, pool: &PoolName, mut choice: impl Iterator<Item = MachineVersions>) -> Option<MachineVersions> {
    // Whatever its number: the rules know only whether it is a control plane.
    let someone = MachineName::of(&draft.spec.name, pool, u32::MAX);
    let first = choice.next()?;
    let mut all = std::iter::once(first).chain(choice);
    Some(all.find(|v| skew(draft, &someone, *v).is_ok()).unwrap_or(first))
}

/// The least advanced control plane's, or what is wanted where new machines are how it comes. `None` before there is any.
fn control_plane(draft: &Draft<'_>) -> Option<MachineVersions> {
    let wanted = &draft.spec.control_plane;
    if !draft.observed.cluster.bootstrapped {
        return None;
    }
    let begun = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.to == wanted.versions && u.stopped.is_none());
    let by_new_ones = begun && wanted.strategy == Strategy::Replace;
    let choice = Some(wanted.versions).filter(|_| by_new_ones).into_iter().chain(planes(draft));
    first_that_fits(draft, &PoolName::control_plane(), choice)
}

/// What control planes are told, the least advanced first.
fn planes(draft: &Draft<'_>) -> Vec<MachineVersions> {
    let mut told: Vec<MachineVersions> = serving(draft).map(|m| m.versions).collect();
    told.sort();
    told
}

/// What the pool's other machines are told, the least advanced first; then what the control plane's own Nodes are, those that leave last.
fn peers(draft: &Draft<'_>, pool: &PoolName) -> Vec<MachineVersions> {
    let alive = |m: &&MachineRecord| m.pool == *pool && m.deleting.is_none();
    let mut told: Vec<MachineVersions> = draft.records().iter().filter(alive).map(|m| m.versions).collect();
    told.sort();
    let leaving = draft.records().iter().filter(|m| m.is_control_plane() && m.deleting.is_some()).map(|m| m.versions);
    told.extend(planes(draft).into_iter().chain(leaving).map(|v| MachineVersions { control_plane: None, ..v }));
    told
}

fn stands_still(draft: &Draft<'_>) -> bool {
    draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some())
}
