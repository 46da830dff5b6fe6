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
    // Whatever its number: the rules know only that it is a worker more.
    let someone = MachineName::of(&draft.spec.name, pool, u32::MAX);
    let bears = pools::api_servers_bear(draft, &wanted.versions) && skew(draft, &someone, wanted.versions).is_ok() && !stands_still(draft);
    let versions = if bears { wanted.versions } else { peers(draft, pool).unwrap_or(wanted.versions) };
    (versions, wanted.revision.clone())
}

/// The least advanced control plane's, or what is wanted where new machines are how it comes. `None` before there is any.
fn control_plane(draft: &Draft<'_>) -> Option<MachineVersions> {
    let founded = draft.observed.cluster.bootstrapped;
    let oldest = serving(draft).filter(|_| founded).map(|m| m.versions).min();
    let wanted = &draft.spec.control_plane;
    let begun = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.to == wanted.versions && u.stopped.is_none());
    let by_new_ones = founded && begun && wanted.strategy == Strategy::Replace;
    let someone = MachineName::of(&draft.spec.name, &PoolName::control_plane(), u32::MAX);
    if by_new_ones && skew(draft, &someone, wanted.versions).is_ok() { Some(wanted.versions) } else { oldest }
}

/// What the pool's other machines run, the least advanced first; what the control plane's own Nodes do where there are none.
fn peers(draft: &Draft<'_>, pool: &PoolName) -> Option<MachineVersions> {
    let alive = |m: &&MachineRecord| m.pool == *pool && m.deleting.is_none();
    let own = draft.records().iter().filter(alive).map(|m| m.versions).min();
    own.or_else(|| control_plane(draft).map(|v| MachineVersions { control_plane: None, ..v }))
}

fn stands_still(draft: &Draft<'_>) -> bool {
    draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some())
}
