//! What an action must never do, by name.

use crate::build::now;
use crate::invariants::votes;
use crate::life::{own_build, records};
use slipway_model::{ClusterSpec, DeletionPolicy, Healing, MachineName, MachineVersions, Part};
use slipway_plan::{Action, AgentFacts, EtcdFacts, InstanceState, MachineRecord, Observed, Removal, maintenance_open, what_runs};
use std::collections::BTreeMap;

/// An action that had an effect.
pub struct Moved<'a> {
    pub spec: &'a ClusterSpec,
    pub before: &'a Observed,
    pub after: &'a Observed,
    pub action: &'a Action,
    /// See [`Truth::used`](crate::life::Truth).
    pub used: &'a BTreeMap<String, u32>,
    /// It was planned from a complete view of the world as it is, or after other actions of such a plan.
    pub fresh: bool,
}

/// The invariant that it broke.
pub fn harm(moved: &Moved<'_>) -> Option<&'static str> {
    let living = moved.before.cluster.deleting.is_none();
    let orphaning = !living && moved.spec.deletion_policy == DeletionPolicy::Orphan;
    let removes = matches!(
        moved.action,
        Action::DeleteInstance { .. }
            | Action::DeleteStrayInstance { .. }
            | Action::DeleteLoadBalancer
            | Action::DeleteNetwork
            | Action::DeleteSecrets
    );
    if orphaning && removes {
        return Some("an orphaned cluster keeps everything");
    }
    let of_living =
        || hour(moved).or_else(|| quorum(moved)).or_else(|| spare(moved)).or_else(|| changes(moved)).or_else(|| availability(moved));
    agents(moved)
        .or_else(|| records_and_instances(moved, living))
        .or_else(|| if living && moved.before.cluster.bootstrapped { of_living() } else { None })
}

/// How long a machine's pods are waited for, in seconds: as its pool in the Cluster says, or as was recorded of one that is gone, or five minutes.
fn drain_timeout(spec: &ClusterSpec, world: &Observed, machine: &MachineRecord) -> i64 {
    let from_spec = spec.pools.iter().find(|p| p.name == machine.pool).map(|p| p.drain_timeout_seconds);
    let recorded = || world.pools.known()?.iter().find(|p| p.name == machine.pool)?.drain_timeout_seconds;
    i64::from(from_spec.or_else(recorded).unwrap_or(300))
}

fn record<'a>(world: &'a Observed, name: &MachineName) -> Option<&'a MachineRecord> {
    records(world).iter().find(|m| m.name == *name)
}

fn etcd(world: &Observed) -> &EtcdFacts {
    world.etcd.known().unwrap()
}

/// Of agents' own builds.
fn agents(moved: &Moved<'_>) -> Option<&'static str> {
    let Moved { before, after, action: Action::UpdateAgent { machine, to, .. }, fresh, .. } = moved else { return None };
    let staying = || records(before).iter().filter(|m| m.claimed && m.deleting.is_none());
    let refused = |m: &MachineRecord| {
        let own = before.agents.get(&m.name).and_then(own_build);
        own.and_then(|b| b.refused.as_ref()).is_some_and(|r| r.sha256 == *to)
    };
    if record(before, machine).is_some_and(refused) {
        return Some("a refused build is never tried again on that machine");
    }
    if *fresh && staying().any(refused) {
        return Some("what one machine refused is tried on no other");
    }
    if *fresh && staying().any(|m| before.agents.get(&m.name).is_none_or(|a| a.heard().is_none())) {
        return Some("no agent is exchanged while another is silent");
    }
    let behind = |m: &&MachineRecord| before.agents.get(&m.name).and_then(own_build).is_some_and(|b| b.sha256 != *to);
    let plane = record(before, machine).is_some_and(MachineRecord::is_control_plane);
    if *fresh && plane && staying().filter(behind).any(|m| !m.is_control_plane()) {
        return Some("workers' agents are exchanged before control planes'");
    }
    // But for the agent itself, and what nobody can see while it is away.
    let rest = |world: &Observed| {
        let mut world = world.clone();
        world.agents.remove(machine);
        (world.machines, world.nodes, world.cloud, world.etcd, world.wanted, world.agents, world.snapshots, world.secrets)
    };
    let told = |world: &Observed| match world.agents.get(machine) {
        Some(AgentFacts::Heard(s) | AgentFacts::Silent { last: Some(s), .. }) => Some((s.accepted.clone(), s.applied.clone())),
        _ => None,
    };
    (rest(before) != rest(after) || told(before) != told(after)).then_some("an agent's exchange rolls, drains and restarts nothing")
}

/// Founding, records, instances, numbers.
fn records_and_instances(moved: &Moved<'_>, living: bool) -> Option<&'static str> {
    let Moved { before, after, used, .. } = moved;
    match moved.action {
        Action::DeleteStrayInstance { machine_uid, machine, .. } => {
            let recorded = records(before).iter().any(|m| m.uid == *machine_uid);
            let member = living && before.cluster.bootstrapped && etcd(before).members.iter().any(|m| m.name == machine.as_str());
            (recorded || member).then_some("an instance with a record or a member is no stray")
        }
        Action::DeleteInstance { machine, .. } if living => {
            let Some(record) = record(before, machine) else { return Some("a living cluster deletes only what is recorded as leaving") };
            if record.kept {
                return Some("a machine that is kept for a look is not deleted");
            }
            let member = before.cluster.bootstrapped && etcd(before).members.iter().any(|m| m.name == machine.as_str());
            if member {
                return Some("a machine is deleted when etcd has no member of it");
            }
            let node = before.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(machine));
            let busy =
                node.is_some_and(|n| n.pods.known().is_some_and(|p| !p.is_empty()) || n.volumes.known().is_some_and(|v| !v.is_empty()));
            let dead = before.agents.get(machine).is_none_or(|a| a.heard().is_none());
            let expired = record.deleting.is_some_and(|at| now().duration_since(at).as_secs() >= drain_timeout(moved.spec, before, record));
            (before.cluster.bootstrapped && busy && !dead && !expired).then_some("drained before deleted, of pods and of volumes")
        }
        Action::DeleteMachine { machine, why: Removal::Dead, .. } if moved.fresh && living => zones(before, machine),
        Action::CreateMachine { machine, pool, ordinal, .. } => {
            let reused = used.get(pool.as_str()).is_some_and(|bits| bits & (1 << ordinal) != 0);
            (reused && record(before, machine).is_none()).then_some("an ordinal is never used twice")
        }
        Action::RecordFounders { .. } if before.cluster.bootstrapped => Some("founded once"),
        Action::ApplyPlan { machine, expected: None, .. } if before.cluster.bootstrapped => {
            let started = |m: &MachineRecord| m.is_control_plane() && used.get("started").is_some_and(|bits| bits & (1 << m.ordinal) != 0);
            record(before, machine).is_some_and(started).then_some("a member's data directory is used once")
        }
        Action::CreateInstance { machine, .. } => record(after, machine).is_none().then_some("record before effect"),
        Action::RecordEndpoint { .. } => {
            (before.cluster.endpoint.is_some() && before.cluster.endpoint != after.cluster.endpoint).then_some("the endpoint never changes")
        }
        _ => None,
    }
}

/// A dead machine is replaced: not in a zone that is lost as a whole, and only a part of a zone at once.
fn zones(before: &Observed, machine: &MachineName) -> Option<&'static str> {
    let works = |m: &MachineRecord| {
        let instance = before.cloud.known().unwrap().instance(m);
        instance.is_some_and(|i| i.state == InstanceState::Running && i.trouble.is_none())
    };
    let zone = |m: &MachineRecord| m.instance.as_ref().and_then(|i| i.zone.clone());
    let lost = record(before, machine).and_then(zone)?;
    let there: Vec<&MachineRecord> = records(before).iter().filter(|m| zone(m).as_ref() == Some(&lost)).collect();
    let dead = |m: &&&MachineRecord| m.instance.is_some() && before.cloud.known().unwrap().instance(m).is_none();
    let vanished = there.iter().filter(dead).count();
    if vanished >= 2 && vanished * 2 > there.len() {
        return Some("nothing is replaced of a zone that vanished at once");
    }
    let replacing = there.iter().filter(|m| m.deleting.is_some() && !m.kept && !works(m)).count();
    let worker = record(before, machine).is_some_and(|m| !m.is_control_plane());
    (worker && replacing > there.len() / 5).then_some("only a part of a zone is replaced at once")
}

/// Whoever had a quorum has one after everything that we do. One member alone cannot be changed without a pause.
fn quorum(moved: &Moved<'_>) -> Option<&'static str> {
    let holds = |world: &Observed| {
        let (all, answering) = votes(etcd(world));
        answering > all / 2
    };
    let alone = votes(etcd(moved.before)).0 == 1 && votes(etcd(moved.after)).0 == 1;
    (holds(moved.before) && !holds(moved.after) && !alone).then_some("quorum is never endangered by what we do")
}

/// While a voter is down, no other is taken whose loss would leave no spare.
fn spare(moved: &Moved<'_>) -> Option<&'static str> {
    let (before, after) = (etcd(moved.before), etcd(moved.after));
    let lost = before.voters().filter(|m| m.status.known().is_some()).find(|m| {
        let now = after.voters().find(|n| n.id == m.id);
        now.is_none_or(|n| n.status.known().is_none())
    })?;
    let another_is_down = before.voters().any(|m| m.id != lost.id && m.status.known().is_none());
    let (all, answering) = votes(after);
    (moved.fresh && another_is_down && answering <= all / 2 + 1).then_some("the last spare is not taken while another member is down")
}

pub const BEFORE_A_SNAPSHOT: &str = "nothing is upgraded before a snapshot is complete and the upgrade recorded";

/// Who is told another kubelet, or begins to follow, has been emptied before, unless its time for that is over.
fn kubelet(moved: &Moved<'_>, machine: &MachineName, to: &MachineVersions) -> Option<&'static str> {
    let Moved { before, spec, fresh, .. } = moved;
    let node = before.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(machine))?;
    let patience = record(before, machine).map_or(0, |m| drain_timeout(spec, before, m));
    let expired = node.cordoned.is_some_and(|at| now().duration_since(at).as_secs() >= patience);
    let empty = node.unschedulable && node.pods.known().is_some_and(Vec::is_empty);
    let other = what_runs(before, machine).iter().any(|v| v.node.kubelet.minor != to.node.kubelet.minor);
    // What failed goes back as it is: its pods may not even be evictable.
    let undoing = before.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    (*fresh && other && !empty && !expired && !undoing).then_some("a kubelet's minor changes on an empty Node")
}

/// Versions, retirement and addons.
fn changes(moved: &Moved<'_>) -> Option<&'static str> {
    let Moved { before, after, spec, .. } = moved;
    match moved.action {
        Action::SetVersions { machine, from, to, .. } => {
            let plane = record(before, machine).is_some_and(MachineRecord::is_control_plane);
            let safe = before
                .cluster
                .upgrade
                .as_ref()
                .is_some_and(|u| before.snapshots.known().unwrap().iter().any(|s| s.name == u.snapshot && s.completed.is_some()));
            if plane && !safe {
                return Some(BEFORE_A_SNAPSHOT);
            }
            // Going back from what failed is not put off for it.
            let failed = before.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
            let leads = etcd(before).leader().is_some_and(|l| l.name == machine.as_str());
            let heirs = etcd(before).voters().filter(|m| m.status.known().is_some()).count() > 1;
            if moved.fresh && !failed && from.differs(Part::Etcd, to) && leads && heirs {
                return Some("leadership is handed over before a leader's etcd is exchanged");
            }
            kubelet(moved, machine, to)
        }
        Action::ApplyPlan { machine, expected: Some(_), .. } => record(before, machine).and_then(|m| kubelet(moved, machine, &m.versions)),
        Action::Retire { machine, .. } => {
            let balancer = before.cloud.known().unwrap().load_balancer.as_ref();
            let uid = record(before, machine).map(|m| m.uid.clone()).unwrap_or_default();
            let id = before.cloud.known().unwrap().of(&uid).map(|i| i.id.clone()).unwrap_or_default();
            balancer.is_some_and(|b| b.targets.contains(&id)).then_some("no client is sent to an API server that is told to stop")
        }
        Action::ApplyAddons { .. } => {
            let new = spec.control_plane.versions.control_plane.map(|v| v.api_server);
            let works = |m: &MachineRecord| {
                after.cloud.known().unwrap().instance(m).is_some_and(|i| i.state == InstanceState::Running && i.trouble.is_none())
            };
            let serving = records(after).iter().filter(|m| m.is_control_plane() && m.deleting.is_none() && works(m));
            let all_new = serving.flat_map(|m| what_runs(after, &m.name)).all(|v| v.control_plane.map(|c| c.api_server) >= new);
            // The first ones are better a minor ahead than not there.
            let first = before.addons.known() == Some(&None);
            (moved.fresh && !all_new && !first).then_some("addons follow the API servers")
        }
        _ => None,
    }
}

/// Outside of every window, or paused, nothing that disturbs is begun. What is undone because it failed is no beginning.
fn hour(moved: &Moved<'_>) -> Option<&'static str> {
    let Moved { spec, before, action, fresh: true, .. } = moved else { return None };
    maintenance_open(&spec.maintenance, crate::build::now()).err()?;
    let stopped = before.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    let votes = |m: &MachineRecord| etcd(before).voters().any(|v| v.name == m.name.as_str() && v.status.known().is_some());
    let serves = |m: &MachineRecord| {
        votes(m) || before.nodes.known().unwrap().iter().any(|n| n.ready && !n.unschedulable && n.machine.as_ref() == Some(&m.name))
    };
    let begins = match action {
        Action::SetVersions { .. } => !stopped,
        Action::ApplyPlan { machine, expected: Some(_), .. } => !stopped && reconfigures(spec, before, machine),
        Action::IssueCertificates { machine, .. } => {
            before.secrets.known().unwrap().of(machine).certificates == slipway_plan::Certificates::Due
        }
        Action::Cordon { returns, .. } => *returns,
        Action::RecordUpgrade { from, to } => from.is_none() && to.is_some(),
        Action::DeleteMachine { machine, why: Removal::Outdated, .. } => record(before, machine).is_some_and(serves),
        Action::DeleteMachine { machine, why: Removal::ScaleDown, .. } => {
            record(before, machine).is_some_and(|m| m.is_control_plane() && votes(m))
        }
        _ => false,
    };
    if begins {
        return Some("nothing disruptive is begun outside a window or while paused");
    }
    let heals = matches!(action, Action::DeleteMachine { why: Removal::Dead, .. });
    (heals && spec.maintenance.healing == Healing::InWindows).then_some("where healing waits for windows, nothing is replaced outside them")
}

/// Whether a machine that does all that it was told, and was told no versions, is told something else.
fn reconfigures(spec: &ClusterSpec, world: &Observed, machine: &MachineName) -> bool {
    let (Some(record), Some(state)) = (record(world, machine), world.agents.get(machine).and_then(AgentFacts::heard)) else { return false };
    let follows = what_runs(world, machine) != [record.versions];
    let patience = jiff::SignedDuration::from_secs(i64::from(spec.pace.step_timeout_seconds));
    let in_step = record.changed.as_ref().is_some_and(|c| crate::build::now() < c.at + patience);
    let node = world.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(machine));
    let ill = state.applied != state.accepted || state.probes.values().any(|p| !p.healthy) || node.is_none_or(|n| !n.ready);
    let pressing = world.secrets.known().unwrap().of(machine).pressing;
    !follows && !in_step && !ill && !pressing && !record.retiring
}

/// Workers that do their work stay enough, whatever is changed of them, but for what their owner takes away.
fn availability(moved: &Moved<'_>) -> Option<&'static str> {
    let machine = match moved.action {
        Action::Cordon { machine, returns: true, .. } => machine,
        // What failed goes back whatever else is away.
        Action::SetVersions { machine, .. } if moved.before.cluster.upgrade.as_ref().is_none_or(|u| u.stopped.is_none()) => machine,
        Action::DeleteMachine { machine, why: Removal::Outdated, .. } => machine,
        // What is about to lose its certificates cannot wait for others.
        Action::ApplyPlan { machine, expected: Some(_), .. } if !moved.before.secrets.known().unwrap().of(machine).pressing => machine,
        _ => return None,
    };
    let pool = record(moved.before, machine).and_then(|m| moved.spec.pools.iter().find(|p| p.name == m.pool))?;
    let wanted = pool.replicas?;
    let floor = wanted.saturating_sub(pool.upgrade.max_unavailable.rounded_down(wanted));
    let works = |world: &Observed, m: &MachineRecord| {
        let node = world.nodes.known().unwrap().iter().find(|n| n.machine.as_ref() == Some(&m.name));
        let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
        let runs = world.cloud.known().unwrap().instance(m).is_some_and(|i| i.state == InstanceState::Running && i.trouble.is_none());
        // Told versions, or making real what it was given.
        let changing = state.is_some_and(|s| s.applied != s.accepted) || what_runs(world, &m.name).iter().any(|v| *v != m.versions);
        m.deleting.is_none() && runs && !changing && node.is_some_and(|n| n.ready && !n.unschedulable)
    };
    let count = |world: &Observed| records(world).iter().filter(|m| m.pool == pool.name && works(world, m)).count();
    let (before, after) = (count(moved.before), count(moved.after));
    (moved.fresh && after < before && after < floor as usize).then_some("no more of a pool are away than it allows")
}
