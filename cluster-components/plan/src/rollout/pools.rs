//! Pools: as many machines at once as each allows to be away, side by side with other pools.

use super::spare::{Spare, Work};
use super::well::{ill, is_settled};
use super::{control_plane, node, replace, serving, skew, tell, undo};
use crate::draft::Draft;
use crate::{MachineRecord, Reason, maintenance, pools, reconfigure};
use slipway_model::{Amount, MachineVersions, Pool};

/// Brings every pool a step further.
pub(super) fn roll(draft: &mut Draft<'_>) {
    let records = draft.observed.pools.known().map(Vec::as_slice);
    for pool in &draft.spec.pools {
        let members: Vec<&MachineRecord> = draft.workers().filter(|m| m.pool == pool.name && !draft.is_taken(&m.name)).collect();
        let Some(wanted) = pools::wanted(pool, records) else { continue };
        let (outdated, others): (Vec<&MachineRecord>, Vec<&MachineRecord>) = members.iter().partition(|m| replace::is_outdated(draft, m));
        let behind: Vec<&MachineRecord> = others.into_iter().filter(|m| m.versions != pool.versions).collect();
        let all: Vec<&MachineRecord> = outdated.iter().chain(&behind).copied().collect();
        if all.is_empty() || replace::refused(draft, pool.allow, &members) {
            continue;
        }
        match (may_roll(draft, pool, &all), outdated.is_empty()) {
            (Turn::Now, true) => in_place(draft, pool, wanted, &members, &behind, change),
            (Turn::Now, false) => replace::workers(draft, pool, wanted, &members),
            (Turn::Soon, true) => in_place(draft, pool, wanted, &members, &behind, empty),
            (Turn::Soon, false) | (Turn::Later, _) => {}
        }
    }
}

/// When a pool may be changed.
enum Turn {
    Now,
    /// As soon as the last API server has followed: the Nodes that come first may be emptied meanwhile.
    Soon,
    Later,
}

/// Whether a pool may be changed now, or what it waits for.
fn may_roll(draft: &mut Draft<'_>, pool: &Pool, behind: &[&MachineRecord]) -> Turn {
    let since = draft.observed.cluster.upgrade.as_ref().map_or(draft.observed.cluster.created, |u| u.since);
    let names = behind.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
    if !control_plane_is_ahead(draft, pool) {
        let what = format!("the control plane, which goes before {names} of pool {}", pool.name);
        draft.wait(Reason::VersionSkew, what, since);
        let soon = control_plane_is_nearly_ahead(draft, pool) && maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_ok();
        return if soon { Turn::Soon } else { Turn::Later };
    }
    if !maintenance::may_disturb(draft, &format!("{names} of pool {} are upgraded then", pool.name)) {
        return Turn::Later;
    }
    draft.wait(Reason::Upgrading, format!("{names} of pool {} to run {}", pool.name, pool.versions), since);
    if draft.nodes().is_some() { Turn::Now } else { Turn::Later }
}

/// Whether the control plane has come so far that kubelets may follow. An upgrade that is about to begin begins there, preflight first.
pub(super) fn control_plane_is_ahead(draft: &Draft<'_>, pool: &Pool) -> bool {
    let target = draft.spec.control_plane.versions;
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    let begun = planes.iter().all(|m| m.versions == target) || draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.to == target);
    begun && (control_plane::is_back(&planes, &target) || api_servers_bear(draft, &pool.versions))
}

/// Whether every API server was told to be new enough for a pool's kubelets, and the last one is on its way.
fn control_plane_is_nearly_ahead(draft: &Draft<'_>, pool: &Pool) -> bool {
    let target = draft.spec.control_plane.versions;
    let planes: Vec<&MachineRecord> = serving(draft).collect();
    let told = |m: &&MachineRecord| m.versions.control_plane.is_some_and(|v| v.api_server >= pool.versions.node.kubelet);
    let comes = |m: &&MachineRecord| is_settled(draft, m) || super::is_in_step(draft, m);
    let begun = draft.observed.cluster.upgrade.as_ref().is_some_and(|u| u.to == target);
    begun && !control_plane::is_back(&planes, &target) && planes.iter().all(|m| told(m) && comes(m))
}

/// Whether every API server is at least as new as a kubelet to come, patch included, and runs what it was told.
pub(super) fn api_servers_bear(draft: &Draft<'_>, versions: &MachineVersions) -> bool {
    serving(draft).all(|m| {
        let told = m.versions.control_plane.is_some_and(|v| v.api_server >= versions.node.kubelet);
        let before = m.changed.as_ref().and_then(|c| c.from.control_plane).is_none_or(|v| v.api_server >= versions.node.kubelet);
        told && (before || is_settled(draft, m))
    })
}

/// How many machines of a pool may be away at once.
pub(super) fn may_be_away(pool: &Pool, wanted: u32) -> u32 {
    let away = pool.upgrade.max_unavailable.rounded_down(wanted);
    // A share of a small pool may be less than one machine; without surge nothing would ever move then.
    if away == 0 && surge(pool, wanted) == 0 { 1 } else { away }
}

/// How many machines more than wanted a pool may have meanwhile.
pub(super) fn surge(pool: &Pool, wanted: u32) -> u32 {
    match pool.upgrade.max_surge {
        Amount::Count(0) | Amount::Percent(0) => 0,
        some => some.rounded_up(wanted),
    }
}

/// Does what is due to as many machines as may be away.
fn in_place(
    draft: &mut Draft<'_>,
    pool: &Pool,
    wanted: u32,
    members: &[&MachineRecord],
    behind: &[&MachineRecord],
    due: fn(&mut Draft<'_>, &MachineRecord, &MachineVersions),
) {
    let floor = wanted.saturating_sub(may_be_away(pool, wanted));
    let mut spare = Spare::of(draft, members, floor);
    // Those that are away already cost nothing: they are finished first.
    let mut by_turn: Vec<(Work, &MachineRecord)> = behind.iter().map(|m| (Work::of(draft, m), *m)).collect();
    by_turn.sort_by_key(|(work, m)| (*work, m.ordinal));
    for (work, machine) in by_turn {
        // On one that has not followed yet nothing is begun.
        if is_settled(draft, machine) && !spare.take(work) {
            wait_for_turn(draft, machine, pool, floor);
            continue;
        }
        due(draft, machine, &pool.versions);
    }
}

/// Of machines that are to be told another configuration without other versions, the first that its pool can spare beside all that this very plan changes:
/// versions and configurations come out of one budget. What is about to lose its certificates cannot wait for that.
pub(crate) fn next_to_reconfigure<'a>(draft: &Draft<'a>, pool: &Pool, candidates: &[&'a MachineRecord]) -> Option<&'a MachineRecord> {
    // Who works is not known without their Nodes.
    if draft.observed.cluster.bootstrapped && draft.observed.nodes.known().is_none() {
        return None;
    }
    let records = draft.observed.pools.known().map(Vec::as_slice);
    // Of a pool whose size is not known nobody can be spared.
    let floor = pools::wanted(pool, records).map_or(u32::MAX, |wanted| wanted.saturating_sub(may_be_away(pool, wanted)));
    let chosen = |m: &MachineRecord| draft.planned().any(|a| a.chooses() && a.machine() == Some(&m.name));
    let members: Vec<&MachineRecord> = draft.workers().filter(|m| m.pool == pool.name && !chosen(m)).collect();
    let spare = Spare::of(draft, &members, floor);
    let mut by_turn: Vec<(Work, &MachineRecord)> = candidates.iter().filter(|m| !chosen(m)).map(|m| (Work::of(draft, m), *m)).collect();
    by_turn.sort_by_key(|(work, m)| (*work, m.ordinal));
    let can_be_spared = |work: Work| {
        let mut left = spare;
        left.take(work)
    };
    by_turn.into_iter().find(|(work, m)| can_be_spared(*work) || reconfigure::presses(draft, m)).map(|(_, m)| m)
}

/// Empties a Node whose turn comes next.
fn empty(draft: &mut Draft<'_>, machine: &MachineRecord, to: &MachineVersions) {
    if is_settled(draft, machine) {
        node::emptied(draft, machine, to);
    }
}

/// The pool keeps so many machines at work, and this one is one of them.
pub(super) fn wait_for_turn(draft: &mut Draft<'_>, machine: &MachineRecord, pool: &Pool, floor: u32) {
    let what = format!("its turn: pool {} keeps {floor} machines", pool.name);
    draft.wait_on(&machine.name, Reason::WaitingForOthers, what, machine.created);
}

/// Empties one machine's Node where its kubelet's minor changes, then tells it.
fn change(draft: &mut Draft<'_>, machine: &MachineRecord, to: &MachineVersions) {
    let since = machine.changed.as_ref().map_or(machine.created, |c| c.at);
    if !is_settled(draft, machine) {
        if let Some(ill) = ill(draft, machine) {
            draft.wait_on(&machine.name, ill.reason, ill.what, ill.since);
        }
        return undo::take_back(draft, machine, to);
    }
    if let Err(violation) = skew(draft, &machine.name, *to) {
        draft.wait_after(&machine.name, Reason::VersionSkew, "others to be changed first", since, &violation.to_string());
        return;
    }
    if node::emptied(draft, machine, to) {
        let because = match node::needs_drain(machine, to) {
            true => "its Node is empty (or its time for that is over), and every API server is new enough".to_owned(),
            false => {
                format!("{} takes over the pods of {}, and every API server is new enough", to.node.kubelet, machine.versions.node.kubelet)
            }
        };
        tell(draft, machine, *to, because);
    }
}
