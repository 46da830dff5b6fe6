//! Workers that failed: who has, and how many may be replaced at once.
//!
//! A worker has failed when it is [dead](crate::dead), or when a Node condition of its pool's health check has lasted too long. Its record is deleted,
//! which makes its pool one short, which makes a new machine at once. Brakes, from the widest to the narrowest: most workers look dead, most machines of a
//! zone do, the cluster replaces a fifth of its workers at once, a zone a fifth of its machines, a pool as many as its health check says.

use crate::dead::{Death, death, silent_since};
use crate::draft::Draft;
use crate::zones::Zones;
use crate::{Action, InstanceState, MachineRecord, NodeFacts, Reason, Removal, departure, maintenance};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{NodeConditionLimit, PoolName};
use std::collections::BTreeMap;

/// Replaces workers that failed, a few at a time.
pub(crate) fn workers(draft: &mut Draft<'_>) {
    if draft.machines().is_none() || draft.cloud().is_none() {
        return;
    }
    let workers: Vec<&MachineRecord> = draft.workers().collect();
    let dead: Vec<(&MachineRecord, Death)> = workers.iter().filter_map(|m| death(draft, m).map(|d| (*m, d))).collect();
    let most = (workers.len() * 2 / 5).max(1);
    let brake = dead.len() > most;
    let mut zones = Zones::of(draft);
    let mut budget = Budget::of(draft, &workers);
    for (machine, death) in &dead {
        if brake {
            let what = format!(
                "most workers to be back: {} of {} look dead at once, which is more likely a fault of what connects them",
                dead.len(),
                workers.len()
            );
            draft.wait_on(&machine.name, Reason::TooManyMachinesLost, what, death.since);
        } else if !zones.hold(draft, machine, death.since) {
            replace(draft, &mut budget, &mut zones, machine, Reason::MachineDead, death);
        }
    }
    for machine in workers.iter().filter(|m| dead.iter().all(|(d, _)| d.name != m.name)) {
        if let Some((since, because)) = failing(draft, machine) {
            let death = Death { since, because: "a Node condition of its pool's health check has lasted too long", why: Removal::Outdated };
            if replace(draft, &mut budget, &mut zones, machine, Reason::NodeUnhealthy, &death) {
                draft.wait_after(&machine.name, Reason::NodeUnhealthy, "it to be replaced", since, &because);
            }
        }
    }
    power_on(draft, &workers, most);
}

/// Takes a failed worker away if that many may be; says whether.
fn replace(
    draft: &mut Draft<'_>,
    budget: &mut Budget,
    zones: &mut Zones<'_>,
    machine: &MachineRecord,
    reason: Reason,
    death: &Death,
) -> bool {
    if !maintenance::may_heal(draft, &format!("{} has failed and is replaced then", machine.name)) {
        return false;
    }
    let may = budget.bears(&machine.pool) && zones.take(draft, machine);
    if may {
        budget.take(&machine.pool);
        draft.take_away_because(machine, death.why, death.because);
        draft.wait_on(&machine.name, reason, "it to be replaced", death.since);
    } else {
        draft.wait_on(&machine.name, Reason::ReplacingOthersFirst, "its replacement", death.since);
    }
    may
}

/// How many more may be replaced now.
struct Budget {
    cluster: usize,
    pools: BTreeMap<PoolName, usize>,
}

impl Budget {
    fn of(draft: &mut Draft<'_>, workers: &[&MachineRecord]) -> Self {
        let leaves = |m: &&MachineRecord| !m.is_control_plane() && m.deleting.is_some() && !departure::is_set_aside(draft, m);
        let leaving: Vec<&MachineRecord> = draft.records().iter().filter(leaves).collect();
        let leaving: Vec<&MachineRecord> = leaving.into_iter().filter(|m| has_failed(draft, m)).collect();
        let pools = draft.spec.pools.iter().map(|pool| {
            let size = workers.iter().filter(|m| m.pool == pool.name).count();
            let most = pool.health.max_replacing.rounded_up(u32::try_from(size).unwrap_or(u32::MAX));
            let under_way = leaving.iter().filter(|m| m.pool == pool.name).count();
            (pool.name.clone(), usize::try_from(most).unwrap_or(usize::MAX).saturating_sub(under_way))
        });
        Self { cluster: (1 + workers.len() / 5).saturating_sub(leaving.len()), pools: pools.collect() }
    }

    fn bears(&self, pool: &PoolName) -> bool {
        self.cluster > 0 && self.pools.get(pool).is_some_and(|left| *left > 0)
    }

    fn take(&mut self, pool: &PoolName) {
        self.cluster = self.cluster.saturating_sub(1);
        if let Some(left) = self.pools.get_mut(pool) {
            *left = left.saturating_sub(1);
        }
    }
}

fn has_failed(draft: &mut Draft<'_>, machine: &MachineRecord) -> bool {
    death(draft, machine).is_some() || failing(draft, machine).is_some()
}

/// Since when a Node condition says that a machine has failed, and which. Asks for another look when only time is missing.
fn failing(draft: &mut Draft<'_>, machine: &MachineRecord) -> Option<(Timestamp, String)> {
    let pool = draft.spec.pools.iter().find(|p| p.name == machine.pool)?;
    let node = draft.node(&machine.name)?;
    for limit in &pool.health.node_conditions {
        let Some(since) = holds_since(node, limit) else { continue };
        let due = since.saturating_add(SignedDuration::from_secs(i64::from(limit.seconds))).unwrap_or(since);
        if draft.now >= due {
            return Some((since, format!("Node condition {} is {} for more than {} s", limit.kind, limit.status, limit.seconds)));
        }
        draft.look_at(due);
    }
    None
}

/// Since when a Node has a condition. `Ready` is told as Ready or not: `False` and `Unknown` are one.
fn holds_since(node: &NodeFacts, limit: &NodeConditionLimit) -> Option<Timestamp> {
    if limit.kind == "Ready" {
        return ((limit.status == "True") == node.ready).then_some(node.since);
    }
    node.conditions.iter().find(|(kind, status, _)| *kind == limit.kind && *status == limit.status).map(|(.., since)| *since)
}

/// One worker that is off was switched off, or broke: it is replaced when its time is over. Many are off because their host was: they start again.
fn power_on(draft: &mut Draft<'_>, workers: &[&MachineRecord], most: usize) {
    let is_off = |m: &&&MachineRecord| m.claimed && draft.instance(m).is_some_and(|i| i.state == InstanceState::Stopped);
    let off: Vec<&&MachineRecord> = workers.iter().filter(is_off).collect();
    for machine in &off {
        if off.len() > most
            && let Some(instance) = draft.instance(machine)
        {
            draft.start(Action::StartInstance { machine: machine.name.clone(), instance: instance.id.clone() });
        }
        let since = silent_since(draft, machine).unwrap_or(machine.created);
        draft.wait_on(&machine.name, Reason::MachinePoweredOff, "it to be started, or replaced", since);
    }
}
