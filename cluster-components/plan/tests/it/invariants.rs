//! What must hold in a cluster's life, by name: at every moment, and at rest. What an action must never do is in `harms`.

use crate::build::now;
use crate::life::{hash, own_build, records, thorough};
use slipway_model::{ClusterSpec, DeletionPolicy, Healing, MachineName};
use slipway_plan::{
    Action, AgentFacts, Closed, ConditionType, EtcdFacts, Fact, InstanceState, MachineRecord, Observed, Plan, Reason, Running, Status,
    maintenance_open, plan, seen, simulate, skew_violations, what_runs,
};

use crate::forecasts::is_what_is_done;
pub use crate::harms::{Moved, harm};

/// What holds at every moment.
pub fn always(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    let cloud = world.cloud.known().unwrap();
    for (position, instance) in cloud.instances.iter().enumerate() {
        if cloud.instances.iter().skip(position + 1).any(|other| other.machine_uid == instance.machine_uid) {
            return Some("at most one instance per Machine");
        }
    }
    if world.is_over() && spec.deletion_policy == DeletionPolicy::Delete {
        let clean = cloud.is_empty()
            && records(world).is_empty()
            && world.pools.known().unwrap().is_empty()
            && world.secrets.known().unwrap().is_empty();
        if !clean {
            return Some("nothing is left of a deleted cluster");
        }
    }
    if trials(world) > 1 {
        return Some("never two agents on trial");
    }
    let of_the_control_plane = one_founding(world).or_else(|| membership(world)).or_else(|| skew(world)).or_else(|| one_at_a_time(world));
    if of_the_control_plane.is_some() {
        return of_the_control_plane;
    }
    let plan = plan(spec, &seen(world), now());
    // The dearest ones, on every third world where time is short.
    let sampled = thorough() || hash(world).is_multiple_of(3);
    let dear = || unseen_is_untouched(spec, world).or_else(|| actions_are_independent(spec, world, &plan));
    let unseen = if sampled { dear() } else { None };
    let dearest = hash(world).is_multiple_of(if thorough() { 10 } else { 100 }) && goes_well(world);
    // In a forecast the clock goes on; in these lives it stands, and all else becomes older: windows would open in the one and not in the others.
    if dearest && spec.maintenance.windows.is_empty() && !is_what_is_done(spec, world) {
        return Some("what is shown is what is done");
    }
    unseen.or_else(|| every_wait_has_a_reason(spec, world, &plan)).or_else(|| nothing_is_refused(spec, world, &plan))
}

/// Nothing is lost, silent or in trouble: what comes can be foreseen.
fn goes_well(world: &Observed) -> bool {
    let instances = &world.cloud.known().unwrap().instances;
    let well = |a: &AgentFacts| match a {
        AgentFacts::Heard(state) => state.trouble.is_none(),
        AgentFacts::Answering => true,
        AgentFacts::Silent { .. } => false,
    };
    instances.iter().all(|i| i.trouble.is_none() && i.state != InstanceState::Stopped) && world.agents.values().all(well)
}

/// Two sets of founders never know of a plan at the same time, and no control plane is told one that is neither founder nor expected by etcd.
fn one_founding(world: &Observed) -> Option<&'static str> {
    let cloud = world.cloud.known().unwrap();
    let told = |name: &MachineName| match world.agents.get(name) {
        Some(AgentFacts::Heard(s)) => s.accepted.is_some(),
        Some(AgentFacts::Silent { last: Some(s), .. }) => {
            s.accepted.is_some() && cloud.instances.iter().any(|i| i.machine == *name && i.state != InstanceState::Deleting)
        }
        _ => false,
    };
    let stranger =
        |m: &MachineRecord| m.is_control_plane() && told(&m.name) && !world.cluster.founders.contains(&m.name) && m.join.is_none();
    records(world).iter().any(stranger).then_some("one founding set at a time, and nobody else unasked")
}

/// etcd's own order.
fn membership(world: &Observed) -> Option<&'static str> {
    let etcd = world.etcd.known().unwrap();
    if etcd.members.iter().filter(|m| m.learner).count() > 1 {
        return Some("one learner at a time");
    }
    if world.cluster.bootstrapped && world.cluster.deleting.is_none() && etcd.voters().count() == 0 {
        return Some("etcd keeps a voter");
    }
    None
}

/// What runs goes together at every moment: what was made real, what is being made real, and every mixture of the two.
fn skew(world: &Observed) -> Option<&'static str> {
    let runs = |name: &MachineName| {
        world
            .cloud
            .known()
            .unwrap()
            .instances
            .iter()
            .any(|i| i.machine == *name && i.state == InstanceState::Running && i.trouble.is_none())
    };
    let running =
        |m: &MachineRecord| Running { machine: m.name.clone(), versions: what_runs(world, &m.name).into_iter().collect(), before: None };
    let all: Vec<Running> = records(world).iter().filter(|m| runs(&m.name)).map(running).collect();
    (!skew_violations(&all).is_empty()).then_some("version skew is never violated")
}

/// Of the machines that serve, one at most is being changed because we said so.
fn one_at_a_time(world: &Observed) -> Option<&'static str> {
    if !world.cluster.bootstrapped || world.cluster.deleting.is_some() {
        return None;
    }
    let etcd = world.etcd.known().unwrap();
    let votes = |m: &MachineRecord| etcd.voters().any(|v| v.name == m.name.as_str());
    let changing = |m: &&MachineRecord| {
        let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
        votes(m) && state.is_some_and(|s| s.applied.is_some() && s.applied != s.accepted)
    };
    (records(world).iter().filter(changing).count() > 1).then_some("at most one control plane is voluntarily down")
}

/// How many machines that stay have a build of their agent on trial.
fn trials(world: &Observed) -> usize {
    let tries = |m: &&MachineRecord| world.agents.get(&m.name).and_then(own_build).is_some_and(|b| b.trial.is_some());
    records(world).iter().filter(|m| m.deleting.is_none()).filter(tries).count()
}

/// Whether every agent that can be exchanged is the build that new machines get.
fn agents_are_right(world: &Observed) -> bool {
    let Some(wanted) = &world.wanted_agent else { return true };
    let builds = records(world).iter().filter_map(|m| world.agents.get(&m.name).and_then(own_build));
    builds.into_iter().all(|b| b.sha256 == *wanted && b.trial.is_none())
}

/// Voters, and how many of them answer.
pub fn votes(etcd: &EtcdFacts) -> (usize, usize) {
    (etcd.voters().count(), etcd.voters().filter(|m| m.status.known().is_some()).count())
}

/// Reasons that only a person can remove: the cluster may stand still with them.
fn is_told_stop(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ControlPlaneMachineLost
            | Reason::TooManyMachinesLost
            | Reason::ZoneLost
            | Reason::RestoreNeeded
            | Reason::UpgradeStopped
            | Reason::PreflightFailed
            | Reason::ReplacementRefused
            | Reason::KeptForInspection
            | Reason::ConfigurationTroubled
            | Reason::AgentUpdateRefused
    )
}

/// Whether a world at rest is what the spec says, or is stuck for a reason that only a person can remove.
pub fn at_rest(spec: &ClusterSpec, world: &Observed) -> Result<(), String> {
    if world.is_over() {
        return Ok(());
    }
    let plan = plan(spec, &seen(world), now());
    if !plan.actions.is_empty() {
        return Err(format!("actions without effect: {:#?}", plan.actions));
    }
    // Without a quorum nobody can say who is lost for good: all that can be done is to say that it is missing.
    let (voters, answering) = votes(world.etcd.known().unwrap());
    let told = plan.condition(ConditionType::EtcdHealthy).unwrap().status != Status::True && !plan.waits.is_empty();
    if world.cluster.bootstrapped && answering <= voters / 2 && told {
        return Ok(());
    }
    // What only stays to be looked at holds nothing else up: without it, everything is as it should be.
    let kept = |m: &&MachineRecord| m.kept && m.deleting.is_some();
    if !plan.waits.is_empty() && plan.waits.iter().all(|w| w.reason == Reason::KeptForInspection) && records(world).iter().any(|m| kept(&m))
    {
        return at_rest(spec, &without(world, &records(world).iter().find(kept).unwrap().name));
    }
    let of_others = |reason| is_told_stop(reason) && reason != Reason::KeptForInspection;
    if plan.waits.iter().any(|w| of_others(w.reason)) {
        return Ok(());
    }
    // Outside of every window, or paused: what was begun was finished, and what waits says for which window.
    if let Err(closed) = maintenance_open(&spec.maintenance, now())
        && plan.waits.iter().any(|w| says_when(w, closed))
    {
        return held_cleanly(spec, world, &plan);
    }
    let wrong = [
        ("it is not Ready", plan.condition(ConditionType::Ready).unwrap().status != Status::True),
        ("something is waited for", !plan.waits.is_empty()),
        ("a pool's size", !sizes_are_right(spec, world)),
        ("a machine of no pool", foreign(spec, world)),
        ("an instance without a record", strays(world)),
        ("etcd's members are not its machines", !members_are_machines(spec, world)),
        ("versions", !versions_are_right(spec, world)),
        ("another configuration", !configurations_are_right(world)),
        ("an upgrade that is not over", world.cluster.upgrade.is_some()),
        ("an agent of another build", !agents_are_right(world)),
        ("a cordoned Node", records(world).iter().any(|m| cordoned(world, m))),
    ];
    match wrong.iter().find(|(_, is)| *is) {
        None => Ok(()),
        Some((what, _)) => Err(format!("at rest, but not as the spec says: {what}: {plan:#?}")),
    }
}

/// Whether a wait is for the window that opens next, or for the end of a pause, and says so.
fn says_when(wait: &slipway_plan::Wait, closed: Closed) -> bool {
    match closed {
        Closed::Paused => wait.reason == Reason::Paused && wait.what.contains("spec.maintenance.paused to be taken back"),
        Closed::Until(at) => {
            let at = at.unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            wait.reason == Reason::OutsideMaintenanceWindow && wait.what.contains(&at)
        }
    }
}

/// Held, but not half way: nothing is half changed, emptied, joining or leaving. Machines that are lost wait only where healing does.
fn held_cleanly(spec: &ClusterSpec, world: &Observed, plan: &Plan) -> Result<(), String> {
    let heals = spec.maintenance.healing == Healing::Always;
    let lives = |m: &MachineRecord| world.agents.get(&m.name).is_some_and(|a| a.heard().is_some());
    let half = |m: &MachineRecord| {
        let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
        lives(m) && (state.is_none_or(|s| s.applied != s.accepted || s.applied.is_none()) || what_runs(world, &m.name) != [m.versions])
    };
    let wrong = [
        ("a machine that is half changed", records(world).iter().any(half)),
        ("a cordoned Node", records(world).iter().any(|m| cordoned(world, m))),
        ("one that leaves", records(world).iter().any(|m| m.deleting.is_some())),
        ("a learner", world.etcd.known().unwrap().members.iter().any(|m| m.learner)),
        ("one that is dead", heals && records(world).iter().any(|m| !lives(m))),
        ("it is not Ready", heals && plan.condition(ConditionType::Ready).unwrap().status != Status::True),
    ];
    match wrong.iter().find(|(_, is)| *is) {
        None => Ok(()),
        Some((what, _)) => Err(format!("held, but not cleanly: {what}: {plan:#?}")),
    }
}

/// The world as it would be if a machine had never been.
fn without(world: &Observed, machine: &MachineName) -> Observed {
    let mut world = world.clone();
    world.machines.known_mut().unwrap().retain(|m| m.name != *machine);
    world.cloud.known_mut().unwrap().instances.retain(|i| i.machine != *machine);
    world.nodes.known_mut().unwrap().retain(|n| n.machine.as_ref() != Some(machine));
    world.agents.remove(machine);
    world.wanted.remove(machine);
    world
}

fn cordoned(world: &Observed, machine: &MachineRecord) -> bool {
    world.nodes.known().unwrap().iter().any(|n| n.unschedulable && n.machine.as_ref() == Some(&machine.name))
}

fn sizes_are_right(spec: &ClusterSpec, world: &Observed) -> bool {
    let wanted = |p: &slipway_model::Pool| {
        p.replicas.unwrap_or_else(|| world.pools.known().unwrap().iter().find(|r| r.name == p.name).unwrap().replicas)
    };
    let pools = spec.pools.iter().all(|p| records(world).iter().filter(|m| m.pool == p.name).count() == wanted(p) as usize);
    let planes = records(world).iter().filter(|m| m.is_control_plane()).count();
    pools && planes == spec.control_plane.replicas as usize
}

fn foreign(spec: &ClusterSpec, world: &Observed) -> bool {
    records(world).iter().any(|m| !m.is_control_plane() && spec.pools.iter().all(|p| p.name != m.pool))
}

fn strays(world: &Observed) -> bool {
    world.cloud.known().unwrap().instances.iter().any(|i| records(world).iter().all(|m| m.uid != i.machine_uid))
}

/// No member without a machine, no control plane without a vote.
fn members_are_machines(spec: &ClusterSpec, world: &Observed) -> bool {
    let etcd = world.etcd.known().unwrap();
    let planes = || records(world).iter().filter(|m| m.is_control_plane());
    etcd.members.len() == spec.control_plane.replicas as usize
        && etcd.members.iter().all(|m| !m.learner && planes().any(|p| p.name.as_str() == m.name))
}

/// What was told, and what runs.
fn versions_are_right(spec: &ClusterSpec, world: &Observed) -> bool {
    let planes = &spec.control_plane;
    let pool = |m: &MachineRecord| spec.pools.iter().find(|p| p.name == m.pool).map(|p| (p.versions, p.revision.clone()));
    let target = |m: &MachineRecord| if m.is_control_plane() { Some((planes.versions, planes.revision.clone())) } else { pool(m) };
    let right = |m: &MachineRecord| target(m) == Some((m.versions, m.revision.clone())) && what_runs(world, &m.name) == [m.versions];
    records(world).iter().all(right)
}

/// What every machine made real is what is rendered for it.
fn configurations_are_right(world: &Observed) -> bool {
    let right = |m: &MachineRecord| {
        let wanted = world.wanted.get(&m.name);
        world.agents.get(&m.name).and_then(AgentFacts::heard).is_some_and(|s| wanted.is_some() && s.applied.as_ref() == wanted)
    };
    records(world).iter().all(right)
}

/// What is planned from a fresh and complete view is accepted at its target: the checks there are for views that are not.
fn nothing_is_refused(spec: &ClusterSpec, world: &Observed, plan: &Plan) -> Option<&'static str> {
    let refused = |action: &Action| simulate(spec, &mut world.clone(), action, now()).is_err();
    plan.actions.iter().any(refused).then_some("what is planned from a fresh view is not refused")
}

/// What of a plan is refused, for people.
pub fn refused(spec: &ClusterSpec, world: &Observed) -> Vec<String> {
    let why = |action: &Action| simulate(spec, &mut world.clone(), action, now()).err().map(|why| format!("{action}: {why}"));
    plan(spec, &seen(world), now()).actions.iter().filter_map(why).collect()
}

/// No action touches what cannot be seen.
fn unseen_is_untouched(spec: &ClusterSpec, world: &Observed) -> Option<&'static str> {
    let view = seen(world);
    let broken = |change: &dyn Fn(&mut Observed), forbidden: &dyn Fn(&Action) -> bool| {
        let mut view = view.clone();
        change(&mut view);
        slipway_plan::outlook(spec, &view, now()).0.iter().any(forbidden)
    };
    let cloud = broken(&|v| v.cloud = Fact::unknown("timeout", now()), &|a| {
        matches!(
            a,
            Action::EnsureNetwork
                | Action::EnsureLoadBalancer { .. }
                | Action::SetTargets { .. }
                | Action::CreateInstance { .. }
                | Action::StartInstance { .. }
                | Action::DeleteInstance { .. }
                | Action::DeleteStrayInstance { .. }
                | Action::DeleteLoadBalancer
                | Action::DeleteNetwork
                | Action::DeleteSecrets
        ) || matches!(a, Action::RemoveMachine { keep_secrets: false, .. })
            || (matches!(a, Action::RemoveFinalizer) && spec.deletion_policy == DeletionPolicy::Delete)
            || matches!(a, Action::DeleteMachine { why: slipway_plan::Removal::Dead, .. })
    });
    let machines = broken(&|v| v.machines = Fact::unknown("timeout", now()), &|a| {
        let of_a_cluster_that_goes = matches!(a, Action::DeleteInstance { .. }) && world.cluster.deleting.is_some();
        (a.machine().is_some() && !of_a_cluster_that_goes)
            || matches!(
                a,
                Action::SetOrdinals { .. }
                    | Action::SetTargets { .. }
                    | Action::CreatePki
                    | Action::RecordFounders { .. }
                    | Action::RemoveFinalizer
            )
    });
    let nodes = world.cluster.bootstrapped
        && world.cluster.deleting.is_none()
        && broken(&|v| v.nodes = Fact::unknown("timeout", now()), &|a| {
            matches!(
                a,
                Action::Cordon { .. }
                    | Action::Evict { .. }
                    | Action::DeleteNode { .. }
                    | Action::LabelNode { .. }
                    | Action::DeleteInstance { .. }
            ) || matches!(a, Action::DeleteMachine { machine, why: slipway_plan::Removal::ScaleDown, .. } if !is_plane(world, machine))
        });
    // What failed may be told its old versions while etcd cannot be asked: that may be why.
    let undoing = world.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    let etcd = world.cluster.deleting.is_none()
        && world.cluster.bootstrapped
        && broken(&|v| v.etcd = Fact::unknown("timeout", now()), &|a| {
            matches!(
                a,
                Action::AddMember { .. }
                    | Action::PromoteMember { .. }
                    | Action::RemoveMember { .. }
                    | Action::MoveLeader { .. }
                    | Action::TakeSnapshot { .. }
                    | Action::Retire { .. }
            ) || (matches!(a, Action::SetVersions { machine, .. } if is_plane(world, machine)) && !undoing)
                || matches!(a, Action::DeleteInstance { machine, .. } | Action::RemoveMachine { machine, .. }
                | Action::ApplyPlan { machine, expected: None, .. } if is_plane(world, machine))
        });
    let secrets = broken(&|v| v.secrets = Fact::unknown("timeout", now()), &|a| {
        matches!(
            a,
            Action::CreatePki
                | Action::IssueBootstrap { .. }
                | Action::IssueCertificates { .. }
                | Action::DropBootstrap { .. }
                | Action::WriteKubeconfig
                | Action::DeleteSecrets
                | Action::CreateInstance { .. }
        ) || (matches!(a, Action::RemoveFinalizer) && spec.deletion_policy == DeletionPolicy::Delete)
    });
    let pools = broken(&|v| v.pools = Fact::unknown("timeout", now()), &|a| {
        matches!(a, Action::CreatePool { .. } | Action::SetPoolReplicas { .. } | Action::RemovePool { .. } | Action::RemoveFinalizer)
    });
    (cloud || machines || nodes || etcd || secrets || pools).then_some("what is not seen is not touched")
}

fn is_plane(world: &Observed, name: &MachineName) -> bool {
    records(world).iter().any(|m| m.name == *name && m.is_control_plane())
}

/// Where nothing can be done and not everything is well, it is said what is waited for.
fn every_wait_has_a_reason(spec: &ClusterSpec, world: &Observed, plan: &Plan) -> Option<&'static str> {
    if world.is_over() {
        return None;
    }
    let ready = plan.condition(ConditionType::Ready).unwrap();
    let mute = plan.actions.is_empty() && plan.waits.is_empty() && ready.status != Status::True;
    let empty = plan.waits.iter().any(|w| w.what.is_empty()) || plan.conditions.iter().any(|c| c.message.is_empty());
    let node_ready = |m: &&MachineRecord| world.nodes.known().unwrap().iter().any(|n| n.ready && n.machine.as_ref() == Some(&m.name));
    let working = |pool: &str| records(world).iter().filter(|m| m.pool.as_str() == pool).filter(node_ready).count();
    let wanted = |p: &slipway_model::Pool| p.replicas.map_or(0, |n| n as usize);
    let premature = ready.status == Status::True
        && (working("cp") < spec.control_plane.replicas as usize || spec.pools.iter().any(|p| working(p.name.as_str()) < wanted(p)));
    if premature {
        return Some("Ready is the truth");
    }
    (mute || empty).then_some("every wait has a reason")
}

/// The actions of one plan may run in any order, unless one is refused at its target.
fn actions_are_independent(spec: &ClusterSpec, world: &Observed, plan: &Plan) -> Option<&'static str> {
    let actions = &plan.actions;
    let end = |order: &mut dyn Iterator<Item = &Action>| {
        let mut world = world.clone();
        for action in order {
            simulate(spec, &mut world, action, now()).ok()?;
        }
        // Addresses are the cloud's choice, and follow the order of creation.
        for instance in &mut world.cloud.known_mut().unwrap().instances {
            instance.address = [198, 18, 0, 0].into();
        }
        Some(world)
    };
    let (forth, back) = (end(&mut actions.iter())?, end(&mut actions.iter().rev())?);
    (forth != back).then_some("actions of one plan are independent")
}
