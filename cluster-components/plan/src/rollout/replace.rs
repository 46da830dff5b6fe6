//! Machines changed by new ones in their place: the strategy asks for it, or the change is one that only a new machine can bring.
//!
//! | | comes | goes |
//! |---|---|---|
//! | control plane | one more than the spec's replicas, while all are well | the oldest outdated one when the new one has its vote; the leader last |
//! | pool | up to `maxSurge` more, those that are leaving counted | outdated ones, while `wanted - maxUnavailable` are Ready |
//!
//! `InPlaceOnly` refuses the whole group: nothing of it is changed, by replacement or in place.

use super::control_plane::{Readiness, leads, readiness};
use super::spare::{Spare, Work};
use super::well::is_settled;
use super::{birth, pools, revision, serving, target};
use crate::draft::Draft;
use crate::{MachineRecord, Reason, Removal, departure, maintenance, reconfigure};
use slipway_model::{Allow, Pool, PoolName, Strategy};

/// Whether only a new machine can make of it what the spec says.
pub(crate) fn is_outdated(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let strategy = match machine.is_control_plane() {
        true => Some(draft.spec.control_plane.strategy),
        false => draft.spec.pools.iter().find(|p| p.name == machine.pool).map(|p| p.upgrade.strategy),
    };
    let remade = revision(draft, machine).is_some_and(|r| r != machine.revision);
    remade || (strategy == Some(Strategy::Replace) && target(draft, machine).is_some_and(|to| to != machine.versions))
}

/// Whether the group's change is refused, because it needs new machines and none may be replaced. Says so.
pub(super) fn refused(draft: &mut Draft<'_>, allow: Allow, members: &[&MachineRecord]) -> bool {
    let outdated: Vec<&str> = members.iter().filter(|m| is_outdated(draft, m)).map(|m| m.name.as_str()).collect();
    if allow == Allow::Any || outdated.is_empty() {
        return false;
    }
    let what =
        format!("upgrade.allow to be Any, or the change to be taken back: it needs new machines in place of {}", outdated.join(", "));
    draft.wait(Reason::ReplacementRefused, what, draft.observed.cluster.created);
    true
}

// === control planes ===

/// Says how many control planes more than the spec's replicas there are to be meanwhile. Called before they are counted.
pub(crate) fn surge(draft: &mut Draft<'_>) {
    let stopped = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    if !draft.observed.cluster.bootstrapped || stopped || draft.spec.control_plane.allow == Allow::InPlaceOnly {
        return;
    }
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    let leaving = draft.leaving_control_planes().any(|m| !departure::is_set_aside(draft, m));
    let more = planes.len() > usize::try_from(draft.spec.control_plane.replicas).unwrap_or(usize::MAX);
    // The next one comes when the last one has gone; and what came stays until one goes, whatever the hour.
    if leaving || !planes.iter().any(|m| is_outdated(draft, m)) || !is_their_turn(draft) || !is_better(draft) {
        return;
    }
    let open = maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_ok();
    let Some(etcd) = draft.observed.etcd.known() else { return };
    if more || (open && matches!(readiness(draft, &planes, etcd), Readiness::Well)) {
        draft.surge = 1;
    }
}

/// Whether outdated control planes may be replaced now: an upgrade by replacement is recorded; or there is none, and what can be done in place was done.
pub(super) fn is_their_turn(draft: &Draft<'_>) -> bool {
    let wanted = &draft.spec.control_plane;
    let counts = |m: &&MachineRecord| m.is_control_plane() && !departure::is_set_aside(draft, m);
    let done = draft.records().iter().filter(counts).all(|m| m.versions == wanted.versions);
    let begun = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.to == wanted.versions && u.stopped.is_none());
    done || (begun && wanted.strategy == Strategy::Replace)
}

/// Whether a machine that is made now is what the spec wants. If version skew does not allow it, a new machine would be as outdated as the old one.
fn is_better(draft: &Draft<'_>) -> bool {
    let wanted = &draft.spec.control_plane;
    let revised = serving(draft).all(|m| m.versions == wanted.versions);
    revised || birth(draft, &PoolName::control_plane()).0 == wanted.versions
}

/// Takes the next outdated control plane away when its successor has its vote.
pub(super) fn control_planes(draft: &mut Draft<'_>, planes: &[&MachineRecord]) {
    if !is_their_turn(draft) {
        return;
    }
    let mut outdated: Vec<&MachineRecord> = planes.iter().copied().filter(|m| is_outdated(draft, m)).collect();
    if outdated.is_empty() {
        return;
    }
    let names = outdated.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    if !maintenance::may_disturb(draft, &format!("new machines come in place of {names} then")) {
        return;
    }
    let since = draft.observed.cluster.upgrade.as_ref().map_or(draft.observed.cluster.created, |u| u.since);
    if !is_better(draft) {
        let what = format!("pools to go first, before new control planes come in place of {names}");
        return draft.wait(Reason::VersionSkew, what, since);
    }
    draft.wait(Reason::Upgrading, format!("new machines in place of {names}"), since);
    let Some(etcd) = draft.etcd() else { return };
    let more = planes.len() > usize::try_from(draft.spec.control_plane.replicas).unwrap_or(usize::MAX);
    match readiness(draft, planes, etcd) {
        Readiness::Well if more && draft.surge > 0 => {
            outdated.sort_by_key(|m| (leads(etcd, m), m.ordinal));
            let Some(oldest) = outdated.first() else { return };
            let because = format!(
                "{} is the oldest outdated control plane that does not lead etcd (or the last), and its successor has its vote",
                oldest.name
            );
            draft.take_away_because(oldest, Removal::Outdated, because);
        }
        Readiness::Soaking(until) => draft.look_at(until),
        Readiness::Well | Readiness::OneIll(_) | Readiness::Unsettled => {}
    }
}

// === pools ===

/// How many machines more than wanted a pool is to have meanwhile, while outdated ones are replaced.
pub(crate) fn pool_surge(draft: &Draft<'_>, pool: &Pool, wanted: u32) -> u32 {
    let alive: Vec<&MachineRecord> = draft.workers().filter(|m| m.pool == pool.name).collect();
    let outdated = alive.iter().filter(|m| is_outdated(draft, m)).count();
    let stopped = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    let open = maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_ok();
    let begun = alive.len() > usize::try_from(wanted).unwrap_or(usize::MAX);
    let may = open && !stopped && pool.allow == Allow::Any && pools::control_plane_is_ahead(draft, pool);
    let better = birth(draft, &pool.name).0 == pool.versions;
    if outdated == 0 || !better || !(may || begun) {
        return surge_in_place(draft, pool, wanted);
    }
    pools::surge(pool, wanted).min(u32::try_from(outdated).unwrap_or(u32::MAX))
}

/// A pool that may spare no machine is changed in place beside one that comes for that time, and stays until the last one is done.
fn surge_in_place(draft: &Draft<'_>, pool: &Pool, wanted: u32) -> u32 {
    if pools::may_be_away(pool, wanted) > 0 {
        return 0;
    }
    let alive = || draft.workers().filter(|m| m.pool == pool.name);
    let stopped = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    let behind = || !stopped && pools::control_plane_is_ahead(draft, pool) && alive().any(|m| m.versions != pool.versions);
    let due = maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_ok()
        && (behind() || alive().any(|m| reconfigure::works(draft, m)));
    let begun = alive().count() > usize::try_from(wanted).unwrap_or(usize::MAX);
    let half_done = |m: &MachineRecord| {
        let state = draft.heard(&m.name).filter(|s| s.applied.is_some());
        draft.node(&m.name).is_some_and(|n| n.cordoned.is_some())
            || state.is_some_and(|s| s.applied != s.accepted)
            || (state.is_some() && !is_settled(draft, m) && !reconfigure::awaits(draft, m))
    };
    if due || (begun && alive().any(half_done)) { pools::surge(pool, wanted).min(1) } else { 0 }
}

/// How many machines a pool may have that are not leaving: while outdated ones are replaced, new ones wait until enough of those that leave are gone.
pub(crate) fn most(draft: &Draft<'_>, pool: &Pool, wanted: u32, surge: u32) -> u32 {
    let of_pool = || draft.records().iter().filter(|m| m.pool == pool.name);
    let leaving = of_pool().filter(|m| m.deleting.is_some() && !departure::is_set_aside(draft, m)).count();
    let leaving = if of_pool().any(|m| is_outdated(draft, m)) { u32::try_from(leaving).unwrap_or(u32::MAX) } else { 0 };
    wanted.saturating_add(surge).saturating_sub(leaving)
}

/// Takes outdated machines away, as many as the pool can spare.
pub(super) fn workers(draft: &mut Draft<'_>, pool: &Pool, wanted: u32, members: &[&MachineRecord]) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let floor = wanted.saturating_sub(pools::may_be_away(pool, wanted));
    let mut spare = Spare::of(draft, members, floor);
    let leaves = |m: &&MachineRecord| m.pool == pool.name && m.deleting.is_some() && !departure::is_set_aside(draft, m);
    let leaving = count(draft.records().iter().filter(leaves).count());
    // Even those that are ill go a few at a time: many that are ill at once are more likely cut off than broken.
    let mut slots = pools::may_be_away(pool, wanted).saturating_add(pools::surge(pool, wanted)).saturating_sub(leaving);
    let mut outdated: Vec<(Work, &MachineRecord)> =
        members.iter().filter(|m| is_outdated(draft, m)).map(|m| (Work::of(draft, m), *m)).collect();
    outdated.sort_by_key(|(work, m)| (*work, m.ordinal));
    for (work, machine) in outdated {
        let there = spare.serving;
        if slots == 0 || !spare.take(work) {
            pools::wait_for_turn(draft, machine, pool, floor);
            continue;
        }
        slots = slots.saturating_sub(1);
        let because = match work {
            Work::Well | Work::Ill => {
                format!("a new machine takes its place, and pool {} has {there} machines that work and keeps {floor}", pool.name)
            }
            Work::None => format!("a new machine takes its place, and it does no work: pool {} loses nothing", pool.name),
        };
        draft.take_away_because(machine, Removal::Outdated, because);
    }
}
