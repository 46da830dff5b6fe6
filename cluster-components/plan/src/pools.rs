//! How many machines each pool has: NodePool records, growing, shrinking, and the numbers machines are named by.

use crate::draft::Draft;
use crate::{Action, MachineRecord, Ordinals, PoolRecord, Reason, Removal, rollout};
use slipway_model::{MachineName, Pool, PoolName};
use std::collections::BTreeSet;

/// Keeps the NodePool records as the Cluster says.
pub(crate) fn records(draft: &mut Draft<'_>) {
    let Some(records) = draft.pools() else { return };
    for pool in &draft.spec.pools {
        match records.iter().find(|r| r.name == pool.name) {
            None => {
                // A record that was deleted behind our back comes back with the size the pool has, not with 1.
                let Some(machines) = draft.machines() else { continue };
                let there = machines.iter().filter(|m| m.pool == pool.name && m.deleting.is_none()).count();
                let replicas = pool.replicas.unwrap_or_else(|| u32::try_from(there).unwrap_or(u32::MAX).max(1));
                draft.start(Action::CreatePool { pool: pool.name.clone(), replicas });
            }
            Some(record) if record.deleting => draft.start(Action::RemovePool { pool: record.name.clone(), uid: record.uid.clone() }),
            Some(record) => {
                if let Some(to) = pool.replicas.filter(|to| *to != record.replicas) {
                    draft.start(Action::SetPoolReplicas { pool: record.name.clone(), uid: record.uid.clone(), from: record.replicas, to });
                }
            }
        }
    }
    // A pool that is gone from the Cluster leaves when its machines have.
    let Some(machines) = draft.machines() else { return };
    for record in records {
        let wanted = draft.spec.pools.iter().any(|p| p.name == record.name);
        if !wanted && machines.iter().all(|m| m.pool != record.name) {
            draft.start(Action::RemovePool { pool: record.name.clone(), uid: record.uid.clone() });
        }
    }
}

/// How many machines a pool wants. `None` while its owner, the NodePool record, is not known or not there.
pub(crate) fn wanted(pool: &Pool, records: Option<&[PoolRecord]>) -> Option<u32> {
    let owner = || records?.iter().find(|r| r.name == pool.name && !r.deleting).map(|r| r.replicas);
    pool.replicas.or_else(owner)
}

/// Makes machines that are missing and takes away those that are too many.
pub(crate) fn sizes(draft: &mut Draft<'_>) {
    let Some(machines) = draft.machines() else { return };
    let records = if draft.spec.pools.iter().any(|p| p.replicas.is_none()) { draft.pools() } else { None };
    for pool in &draft.spec.pools {
        let Some(wanted) = wanted(pool, records) else { continue };
        let there: Vec<&MachineRecord> = machines.iter().filter(|m| m.pool == pool.name && m.deleting.is_none()).collect();
        let count = u32::try_from(there.len()).unwrap_or(u32::MAX);
        let surge = rollout::pool_surge(draft, pool, wanted);
        let most = rollout::most(draft, pool, wanted, surge);
        grow(draft, &pool.name, most.saturating_sub(count));
        shrink(draft, there, count.saturating_sub(wanted.saturating_add(surge)));
    }
    for machine in machines {
        let orphaned = !machine.is_control_plane() && draft.spec.pools.iter().all(|p| p.name != machine.pool);
        if orphaned && machine.deleting.is_none() {
            draft.take_away(machine, Removal::PoolRemoved);
        }
    }
}

/// Records `missing` machines more, and keeps the book of their numbers.
///
/// Numbers are handed out first and used then; those that were handed out and have no record are used before new ones, so that a crash between the two
/// neither skips a number nor makes one machine too many. When nothing is missing the book is settled; and it has to be before a record goes.
pub(crate) fn grow(draft: &mut Draft<'_>, pool: &PoolName, missing: u32) {
    let book = draft.observed.cluster.ordinals.get(pool).copied().unwrap_or_default();
    let taken: BTreeSet<u32> = draft.records().iter().filter(|m| m.pool == *pool).map(|m| m.ordinal).collect();
    let (versions, revision) = rollout::birth(draft, pool);
    let open: Vec<u32> = (book.settled..book.next).filter(|o| !taken.contains(o)).collect();
    let leaving = draft.records().iter().any(|m| m.pool == *pool && m.deleting.is_some() && m.ordinal >= book.settled);
    if leaving || (missing == 0 && book.settled < book.next) {
        draft.start(Action::SetOrdinals { pool: pool.clone(), from: book, to: Ordinals { settled: book.next, next: book.next } });
        return;
    }
    let more = missing.saturating_sub(u32::try_from(open.len()).unwrap_or(u32::MAX));
    if more > 0 {
        draft.start(Action::SetOrdinals {
            pool: pool.clone(),
            from: book,
            to: Ordinals { settled: book.settled, next: book.next.saturating_add(more) },
        });
    }
    for ordinal in open.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)) {
        let machine = MachineName::of(&draft.spec.name, pool, ordinal);
        if !rollout::may_be_born(draft, &machine, versions) {
            continue;
        }
        draft.start(Action::CreateMachine { machine, pool: pool.clone(), ordinal, versions, revision: revision.clone() });
    }
}

/// Whether a machine's number is settled, so that its record may go.
pub(crate) fn settled(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    draft.observed.cluster.ordinals.get(&machine.pool).is_some_and(|book| machine.ordinal < book.settled)
}

/// Takes `surplus` machines away: first those that do no work, then those that a new machine would replace, then the youngest.
fn shrink(draft: &mut Draft<'_>, mut there: Vec<&MachineRecord>, surplus: u32) {
    if surplus == 0 {
        return;
    }
    // Which of them work cannot be told without their Nodes.
    if draft.nodes().is_none() {
        return;
    }
    there.sort_by_key(|m| (draft.node(&m.name).is_some_and(|n| n.ready), !rollout::is_outdated(draft, m), std::cmp::Reverse(m.ordinal)));
    for machine in there.into_iter().take(usize::try_from(surplus).unwrap_or(usize::MAX)) {
        draft.take_away(machine, Removal::ScaleDown);
    }
}

/// Says which pools have no size yet.
pub(crate) fn sizeless(draft: &mut Draft<'_>) {
    let records = draft.observed.pools.known().map(Vec::as_slice);
    for pool in &draft.spec.pools {
        if wanted(pool, records).is_none() && records.is_some() {
            draft.wait(
                Reason::WaitingForPoolSize,
                format!("NodePool {} to say how many machines it wants", pool.name),
                draft.observed.cluster.created,
            );
        }
    }
}
