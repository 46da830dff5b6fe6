//! The seven conditions of a Cluster, each from the facts, with messages that change only when the facts do.

mod control_plane;

use crate::draft::{Draft, PROBE_API_SERVER};
use crate::quorum::member_of;
use crate::{
    Action, Condition, ConditionType, Fact, InstanceState, MachineRecord, Reason, Removal, Status, Wait, departure, pools, rollout,
};
use slipway_model::{DeletionPolicy, Pool, PoolName};
use std::collections::BTreeSet;

/// How many waits a message names.
const NAMED: usize = 4;

type Verdict = (Status, Reason, String);

/// All of them, in the order of [`ConditionType::ALL`].
pub(crate) fn conditions(draft: &Draft<'_>, actions: &BTreeSet<Action>, waits: &BTreeSet<Wait>) -> Vec<Condition> {
    let progress = progressing(draft, actions, waits);
    let parts = if draft.observed.cluster.deleting.is_some() {
        let going = || (Status::False, progress.1, progress.2.clone());
        [going(), going(), going(), going(), going()]
    } else {
        let infrastructure = infrastructure(draft, waits);
        let api = control_plane::component(
            draft,
            waits,
            PROBE_API_SERVER,
            "API server",
            Reason::ApiServersHealthy,
            Reason::QuorumOfApiServersHealthy,
        );
        let etcd = control_plane::members(draft, waits);
        let (api, etcd) = (control_plane::available(draft, api), control_plane::redundant(etcd));
        let workers = workers(draft, waits);
        let ready = ready(draft, waits, &[&infrastructure, &api, &etcd, &workers]);
        [ready, infrastructure, api, etcd, workers]
    };
    let up_to_date = up_to_date(draft, waits);
    let verdicts = parts.into_iter().chain([up_to_date, progress]);
    ConditionType::ALL
        .into_iter()
        .zip(verdicts)
        .map(|(kind, (status, reason, message))| Condition { kind, status, reason, message })
        .collect()
}

/// The gravest of some waits, and all of them as text.
fn tell<'w>(waits: impl Iterator<Item = &'w Wait>) -> Option<(Reason, String)> {
    let mut waits: Vec<&Wait> = waits.collect();
    waits.sort_by_key(|w| (std::cmp::Reverse(gravity(w.reason)), w.machine.clone()));
    let gravest = waits.first()?.reason;
    let mut text = waits.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if waits.len() > NAMED {
        text.push_str(&format!("; and {} more", waits.len() - NAMED));
    }
    Some((gravest, text))
}

/// Which reason a condition names when there are several: what needs a person first, then what fails, then what is merely on its way.
fn gravity(reason: Reason) -> u8 {
    match reason {
        Reason::RestoreNeeded => 6,
        Reason::AuthoritiesLost | Reason::QuorumLost | Reason::ZoneLost | Reason::TooManyMachinesLost | Reason::EndpointMoved => 5,
        Reason::ActionFailing
        | Reason::ConfigurationTroubled
        | Reason::CannotObserve
        | Reason::MachineNeverAnswered
        | Reason::UnitFailing => 4,
        Reason::AgentSilent
        | Reason::MachinePoweredOff
        | Reason::MachineDead
        | Reason::ControlPlaneMachineLost
        | Reason::ControlPlaneMachineDead
        | Reason::MemberUnhealthy
        | Reason::NodeUnhealthy
        | Reason::FoundingFailed
        | Reason::EvictionBlocked => 3,
        Reason::UpgradeStopped | Reason::ReplacementRefused | Reason::PreflightFailed | Reason::AgentUpdateRefused => 2,
        Reason::VersionSkew | Reason::WaitingForOthers | Reason::WaitingForFounders | Reason::WaitingForAddons | Reason::WaitingForApi => 0,
        _ => 1,
    }
}

/// Reasons that no further pass can do anything about: somebody has to, or it is not the time, or what has to go first is stuck.
fn is_stuck(reason: Reason) -> bool {
    let not_now = matches!(reason, Reason::Paused | Reason::OutsideMaintenanceWindow | Reason::VersionSkew | Reason::KeptForInspection);
    gravity(reason) >= 5 || gravity(reason) == 2 || not_now
}

fn progressing(draft: &Draft<'_>, actions: &BTreeSet<Action>, waits: &BTreeSet<Wait>) -> Verdict {
    let text = || {
        let acting = || (!actions.is_empty()).then(|| actions.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join("; "));
        tell(waits.iter()).map(|(_, text)| text).or_else(acting).unwrap_or_default()
    };
    if draft.observed.cluster.deleting.is_some() {
        let reason = match draft.spec.deletion_policy {
            DeletionPolicy::Delete => Reason::Deleting,
            DeletionPolicy::Orphan => Reason::Orphaning,
        };
        let text = Some(text()).filter(|t| !t.is_empty()).unwrap_or_else(|| "nothing is left to be done".into());
        return (Status::True, reason, text);
    }
    if actions.is_empty() && waits.is_empty() {
        return (Status::False, Reason::Settled, "nothing is being changed".into());
    }
    // Without a quorum etcd is not seen either, and no look at it will change that.
    let lost = waits.iter().any(|w| w.reason == Reason::RestoreNeeded);
    if actions.is_empty() && (lost || waits.iter().all(|w| is_stuck(w.reason))) {
        let (reason, text) = tell(waits.iter()).unwrap_or((Reason::Settled, String::new()));
        return (Status::False, reason, text);
    }
    (Status::True, activity(draft, actions, waits), text())
}

/// What kind of work is going on.
fn activity(draft: &Draft<'_>, actions: &BTreeSet<Action>, waits: &BTreeSet<Wait>) -> Reason {
    let removing = |why: &[Removal]| actions.iter().any(|a| matches!(a, Action::DeleteMachine { why: w, .. } if why.contains(w)));
    let waiting = |reasons: &[Reason]| waits.iter().any(|w| reasons.contains(&w.reason));
    let first_time = !draft.observed.cluster.bootstrapped || draft.observed.secrets.known().is_some_and(|s| !s.kubeconfig);
    if first_time {
        return if waiting(&[Reason::FoundingFailed]) { Reason::FoundingFailed } else { Reason::Creating };
    }
    let healing = [Reason::MachineDead, Reason::ControlPlaneMachineDead, Reason::NodeUnhealthy, Reason::ReplacingOthersFirst];
    if removing(&[Removal::Dead, Removal::Outdated]) || waiting(&healing) {
        return Reason::Replacing;
    }
    let wanted = draft.spec.control_plane.replicas as usize;
    let planes = draft.records().iter().filter(|m| m.is_control_plane() && !departure::is_set_aside(draft, m));
    let (staying, leaving): (Vec<&MachineRecord>, Vec<&MachineRecord>) = planes.partition(|m| m.deleting.is_none());
    let voters = draft.observed.etcd.known().map_or(wanted, |e| e.voters().count());
    let joining = draft.observed.etcd.known().is_some_and(|e| e.members.iter().any(|m| m.learner));
    let new_planes = actions
        .iter()
        .any(|a| matches!(a, Action::CreateMachine { pool, .. } | Action::SetOrdinals { pool, .. } if pool.is_control_plane()));
    let voteless = |m: &MachineRecord| draft.observed.etcd.known().is_some_and(|e| member_of(e, m).is_none_or(|member| member.learner));
    if !leaving.is_empty() && (staying.len() < wanted || staying.iter().any(|m| voteless(m))) {
        return Reason::Replacing;
    }
    if !leaving.is_empty() || joining || new_planes || staying.len() != wanted || voters != wanted {
        return Reason::ScalingControlPlane;
    }
    let joins = |m: &MachineRecord| draft.node(&m.name).is_none();
    if removing(&[Removal::ScaleDown, Removal::PoolRemoved])
        || actions.iter().any(|a| matches!(a, Action::CreateMachine { .. } | Action::SetOrdinals { .. } | Action::SetPoolReplicas { .. }))
        || draft.records().iter().any(|m| !m.is_control_plane() && !departure::is_set_aside(draft, m) && (m.deleting.is_some() || joins(m)))
    {
        return Reason::Scaling;
    }
    if actions.iter().any(|a| matches!(a, Action::ApplyPlan { .. })) || waiting(&[Reason::WaitingForOthers, Reason::ApplyingConfiguration])
    {
        return Reason::Reconfiguring;
    }
    if waiting(&[Reason::UpdatingAgents]) {
        return Reason::UpdatingAgents;
    }
    Reason::Healing
}

fn infrastructure(draft: &Draft<'_>, waits: &BTreeSet<Wait>) -> Verdict {
    let cloud = match &draft.observed.cloud {
        Fact::Known(cloud) => cloud,
        Fact::Unknown { why, .. } => {
            return (Status::Unknown, Reason::CannotObserve, format!("the cloud's inventory cannot be seen: {why}"));
        }
    };
    if !draft.observed.cluster.finalizer {
        return (Status::False, Reason::Creating, "nothing is made yet".into());
    }
    let Fact::Known(machines) = &draft.observed.machines else {
        return (Status::Unknown, Reason::CannotObserve, "the Machine objects cannot be seen".into());
    };
    let ours = |w: &&Wait| matches!(w.reason, Reason::MakingNetwork | Reason::MakingLoadBalancer | Reason::EndpointMoved);
    if let Some((reason, text)) = tell(waits.iter().filter(ours)) {
        return (Status::False, reason, text);
    }
    let runs = |m: &MachineRecord| cloud.instance(m).is_some_and(|i| i.state == InstanceState::Running);
    let missing: Vec<&str> = machines.iter().filter(|m| m.deleting.is_none()).filter(|m| !runs(m)).map(|m| m.name.as_str()).collect();
    if !missing.is_empty() {
        return (Status::False, Reason::MachineStarting, format!("machines not running yet, or not any more: {}", missing.join(", ")));
    }
    if !all_recorded(draft) {
        return (Status::False, Reason::Scaling, "not all machines are recorded yet".into());
    }
    (Status::True, Reason::InfrastructureExists, format!("network, load balancer and {} machines exist", machines.len()))
}

/// Whether the control plane and every pool have as many machines that stay as are wanted of each: what one has too many makes up for nothing.
fn all_recorded(draft: &Draft<'_>) -> bool {
    let pools = draft.observed.pools.known().map(Vec::as_slice);
    let there = |pool: &PoolName| draft.workers().filter(|m| m.pool == *pool).count();
    let enough = |p: &Pool| pools::wanted(p, pools).is_some_and(|wanted| there(&p.name) >= wanted as usize);
    draft.control_planes().count() >= draft.spec.control_plane.replicas as usize && draft.spec.pools.iter().all(enough)
}

fn workers(draft: &Draft<'_>, waits: &BTreeSet<Wait>) -> Verdict {
    let records = draft.observed.pools.known().map(Vec::as_slice);
    let sizes = draft.spec.pools.iter().map(|p| Some((&p.name, pools::wanted(p, records)? as usize))).collect::<Option<Vec<_>>>();
    let Some(sizes) = sizes else {
        return (Status::Unknown, Reason::CannotObserve, "a pool's size is not known".into());
    };
    let wanted: usize = sizes.iter().map(|(_, size)| size).sum();
    let Fact::Known(_) = draft.observed.machines else {
        return (Status::Unknown, Reason::CannotObserve, "the Machine objects cannot be seen".into());
    };
    if wanted == 0 {
        return (Status::True, Reason::NoWorkersWanted, "no pool wants machines".into());
    }
    if draft.observed.cluster.bootstrapped
        && let Fact::Unknown { why, .. } = &draft.observed.nodes
    {
        return (Status::Unknown, Reason::WaitingForApi, format!("the cluster's Nodes cannot be seen: {why}"));
    }
    // What one pool has too many, or one that is gone from the Cluster still has, makes up for nothing.
    let joined = |pool: &PoolName| draft.workers().filter(|m| m.pool == *pool && draft.node(&m.name).is_some_and(|n| n.ready)).count();
    let ready: usize = sizes.iter().map(|(pool, size)| joined(pool).min(*size)).sum();
    let count = format!("{ready} of {wanted} workers Ready");
    if ready >= wanted {
        return (Status::True, Reason::WorkersJoined, count);
    }
    let about = |w: &&Wait| w.machine.as_ref().is_some_and(|n| draft.workers().any(|m| m.name == *n));
    match tell(waits.iter().filter(about)) {
        Some((reason, text)) => (Status::False, reason, format!("{count}: {text}")),
        None => (Status::False, Reason::Scaling, count),
    }
}

fn up_to_date(draft: &Draft<'_>, waits: &BTreeSet<Wait>) -> Verdict {
    let refused =
        |w: &&Wait| matches!(w.reason, Reason::UpgradeStopped | Reason::ReplacementRefused | Reason::PreflightFailed | Reason::Upgrading);
    if let Some((reason, text)) = tell(waits.iter().filter(refused)) {
        return (Status::False, reason, text);
    }
    let Fact::Known(_) = draft.observed.machines else {
        return (Status::Unknown, Reason::CannotObserve, "the Machine objects cannot be seen".into());
    };
    let outdated: Vec<&str> = rollout::behind(draft).iter().map(|m| m.name.as_str()).collect();
    if !outdated.is_empty() {
        let held = |w: &&Wait| matches!(w.reason, Reason::Paused | Reason::OutsideMaintenanceWindow | Reason::VersionSkew);
        let (reason, why) =
            tell(waits.iter().filter(held)).map_or((Reason::Upgrading, String::new()), |(r, text)| (r, format!(": {text}")));
        return (Status::False, reason, format!("not yet as the spec says: {}{why}", outdated.join(", ")));
    }
    let (mut behind, mut unheard) = (vec![], vec![]);
    for machine in draft.control_planes().chain(draft.workers()) {
        let wanted = draft.observed.wanted.get(&machine.name);
        match draft.heard(&machine.name) {
            Some(state) if wanted.is_some() && state.applied.as_ref() == wanted => {}
            Some(_) => behind.push(machine.name.as_str()),
            None if machine.claimed => unheard.push(machine.name.as_str()),
            None => behind.push(machine.name.as_str()),
        }
    }
    if !all_recorded(draft) {
        return (
            Status::False,
            if draft.observed.cluster.bootstrapped { Reason::Scaling } else { Reason::Creating },
            "not all machines are recorded yet".into(),
        );
    }
    if !behind.is_empty() {
        let reason = if draft.observed.cluster.bootstrapped { Reason::Reconfiguring } else { Reason::Creating };
        let count = format!("not yet as the spec says: {}", behind.join(", "));
        let says_why = |reason| gravity(reason) == 4 || matches!(reason, Reason::Paused | Reason::OutsideMaintenanceWindow);
        let about = |w: &&Wait| says_why(w.reason) && w.machine.as_ref().is_some_and(|n| behind.contains(&n.as_str()));
        return match tell(waits.iter().filter(about)) {
            Some((graver, text)) => (Status::False, graver, format!("{count}: {text}")),
            None => (Status::False, reason, count),
        };
    }
    if !unheard.is_empty() {
        return (Status::Unknown, Reason::AgentSilent, format!("not heard: {}", unheard.join(", ")));
    }
    (Status::True, Reason::RunsTheSpec, format!("every machine runs {}", draft.spec.kubernetes_version))
}

/// Everything at once, and beside the other conditions: every control plane's Node, the addons, the kubeconfig.
fn ready(draft: &Draft<'_>, waits: &BTreeSet<Wait>, parts: &[&Verdict]) -> Verdict {
    let failing = parts.iter().filter(|(status, ..)| *status != Status::True).max_by_key(|(_, reason, _)| gravity(*reason));
    if let Some((status, reason, text)) = failing {
        // A part may only see the consequence of what somebody has to mend elsewhere.
        let gravest = tell(waits.iter()).filter(|(graver, _)| gravity(*graver) > gravity(*reason).max(2));
        return gravest.map_or_else(|| (*status, *reason, text.clone()), |(reason, text)| (*status, reason, text));
    }
    let not_ready: Vec<&str> =
        draft.control_planes().filter(|m| draft.node(&m.name).is_none_or(|n| !n.ready)).map(|m| m.name.as_str()).collect();
    if !not_ready.is_empty() {
        let about = |w: &&Wait| w.machine.as_ref().is_some_and(|n| not_ready.contains(&n.as_str()));
        let (reason, text) = tell(waits.iter().filter(about)).unwrap_or((Reason::NodeNotReady, "not seen yet".into()));
        return (Status::False, reason, format!("control-plane Nodes not Ready: {}: {text}", not_ready.join(", ")));
    }
    let applied = draft.observed.addons.known().and_then(Option::as_ref);
    // Those of a new version wait for its API servers, and the old ones do their work meanwhile.
    let held = applied.is_some() && rollout::holds_addons(draft);
    if applied != Some(&draft.observed.wanted_addons) && !held {
        let (reason, text) = tell(waits.iter().filter(|w| w.machine.is_none()))
            .unwrap_or((Reason::WaitingForAddons, "the addons are not applied yet".into()));
        return (Status::False, reason, text);
    }
    if draft.observed.secrets.known().is_some_and(|s| !s.kubeconfig) {
        return (Status::False, Reason::Creating, "the kubeconfig is not written yet".into());
    }
    (Status::True, Reason::AllReady, "every machine is Ready and the addons are applied".into())
}
