//! Machine objects, their Secrets, and their agents.

use super::agents::first_build;
use super::render::{again, renew, state};
use super::{Refused, check, etcd_now, record, record_mut, secrets_of};
use crate::{
    Action, AgentFacts, AgentState, Certificates, EtcdFacts, Fact, MachineRecord, Observed, Removal, Running, VersionChange, is_no_member,
    skew_allows, skew_lets_follow,
};
use jiff::Timestamp;
use slipway_model::{MachineName, MachineVersions, PlanDigest};

pub(super) fn machine(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    match action {
        Action::CreateMachine { .. } => create(world, action, now)?,
        Action::SetVersions { machine, uid, from, to } => {
            may_change(world, machine, *to)?;
            write_versions(world, machine, uid, *from, *to, now)?;
        }
        Action::Retire { machine, uid } => {
            let record = record_mut(world, machine, uid)?;
            check(record.deleting.is_some(), "the Machine is not being taken away")?;
            record.retiring = true;
            again(world, machine);
        }
        Action::DeleteMachine { machine, uid, why } => {
            check(*why != Removal::FoundingFailed || !world.cluster.bootstrapped, "the founding is over")?;
            // One that knows no plan although its member once started has lost its disk.
            let started = etcd_now(world).known().is_some_and(|e| e.members.iter().any(|m| m.name == machine.as_str()));
            let heard = world.agents.get(machine).and_then(AgentFacts::heard);
            let alive = heard.is_some_and(|s| s.accepted.is_some() || !started);
            let running = |m: &MachineRecord| world.cloud.known()?.instance(m).map(|i| i.state == crate::InstanceState::Running);
            let runs = record(world, machine).and_then(running).unwrap_or_default();
            check(*why != Removal::Dead || !(alive && runs), "it is alive")?;
            record_mut(world, machine, uid)?.deleting.get_or_insert(now);
        }
        Action::RemoveMachine { machine, uid, keep_secrets } => forget(world, machine, uid, *keep_secrets)?,
        Action::RecordInstance { machine, uid, instance } => {
            let known = record_mut(world, machine, uid)?.instance.get_or_insert_with(|| instance.clone());
            if known.id == instance.id && known.zone.is_none() {
                known.zone.clone_from(&instance.zone);
            }
        }
        Action::IssueBootstrap { machine, uid } => {
            record_mut(world, machine, uid)?;
            secrets_of(world, machine)?.bootstrap = true;
        }
        Action::IssueCertificates { machine, uid } => {
            record_mut(world, machine, uid)?;
            let secrets = secrets_of(world, machine)?;
            let renewed = !matches!(secrets.certificates, Certificates::Missing | Certificates::Good);
            // Where the last ones were overdue, so is that they are used.
            secrets.pressing = secrets.certificates == Certificates::Overdue;
            secrets.certificates = Certificates::Good;
            if renewed {
                renew(world, machine);
            }
        }
        Action::DropBootstrap { machine } => secrets_of(world, machine)?.bootstrap = false,
        Action::Claim { machine, uid, .. } => {
            check(matches!(world.agents.get(machine), Some(AgentFacts::Answering)), "the agent does not answer")?;
            record_mut(world, machine, uid)?.claimed = true;
            let fresh = AgentState { build: first_build(world), ..AgentState::default() };
            world.agents.insert(machine.clone(), AgentFacts::Heard(fresh));
        }
        Action::ApplyPlan { machine, uid, expected, wanted } => {
            let record = record_mut(world, machine, uid)?.clone();
            let first = record.is_control_plane() && expected.is_none() && world.cluster.bootstrapped;
            check(!first || is_expected(&record, &etcd_now(world)), "etcd does not expect a new member on it")?;
            check(world.wanted.get(machine) == Some(wanted), "what is rendered now is something else")?;
            let follows = skew_lets_follow(&running_now(world), machine, expected.is_some());
            check(follows.is_ok(), "its versions do not go with the others' any more")?;
            accept(world, machine, expected.as_ref(), wanted)?;
            // What it is given has the certificates that there are now.
            secrets_of(world, machine)?.pressing = false;
        }
        _ => {}
    }
    Ok(())
}

fn create(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    let Action::CreateMachine { machine, pool, ordinal, versions, revision } = action else { return Ok(()) };
    let book = world.cluster.ordinals.get(pool).copied().unwrap_or_default();
    check(world.cluster.deleting.is_none(), "the Cluster is being deleted")?;
    if record(world, machine).is_some() {
        return Ok(());
    }
    check((book.settled..book.next).contains(ordinal), "its number is not open")?;
    check(skew_allows(&running_now(world), machine, *versions).is_ok(), "its versions do not go with the others'")?;
    let machines = world.machines.known_mut().ok_or(Refused("the Machine objects are not known"))?;
    machines.push(MachineRecord {
        name: machine.clone(),
        uid: format!("uid-of-{machine}"),
        pool: pool.clone(),
        ordinal: *ordinal,
        versions: *versions,
        changed: None,
        revision: revision.clone(),
        join: None,
        retiring: false,
        kept: false,
        created: now,
        deleting: None,
        instance: None,
        claimed: false,
    });
    machines.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

/// Whether nothing that may be running now forbids these versions, and no other control plane is half changed.
fn may_change(world: &Observed, machine: &MachineName, to: MachineVersions) -> Result<(), Refused> {
    check(skew_allows(&running_now(world), machine, to).is_ok(), "the versions do not go with the others'")?;
    let planes = || world.machines.known().into_iter().flatten().filter(|m| m.is_control_plane());
    let plane = planes().any(|m| m.name == *machine);
    // One that has left etcd, and perhaps never answers again, is nobody's business any more.
    let etcd = etcd_now(world);
    let gone = |m: &MachineRecord| m.deleting.is_some() && is_no_member(m, &etcd);
    let other = planes().any(|m| m.name != *machine && !gone(m) && is_half_changed(world, &m.name));
    check(!plane || !other, "another control plane is half changed")
}

/// The write itself: compare and swap.
pub(super) fn write_versions(
    world: &mut Observed,
    machine: &MachineName,
    uid: &str,
    from: MachineVersions,
    to: MachineVersions,
    now: Timestamp,
) -> Result<(), Refused> {
    let record = record_mut(world, machine, uid)?;
    check(record.versions == from, "somebody else wrote first")?;
    record.changed = Some(VersionChange { from, at: now });
    record.versions = to;
    again(world, machine);
    Ok(())
}

/// What may be running, as records and agents say it now.
fn running_now(world: &Observed) -> Vec<Running> {
    let settled = |m: &MachineRecord| {
        let wanted = world.wanted.get(&m.name);
        let state = world.agents.get(&m.name).and_then(AgentFacts::heard);
        wanted.is_some() && state.is_some_and(|s| s.accepted.as_ref() == wanted && s.applied.as_ref() == wanted)
    };
    world.machines.known().into_iter().flatten().map(|m| Running::of(m, settled(m))).collect()
}

/// Whether a machine was told something that it has not made real, as far as is known.
fn is_half_changed(world: &Observed, machine: &MachineName) -> bool {
    let (wanted, state) = (world.wanted.get(machine), state(world, machine));
    state.is_some_and(|s| s.accepted.is_some() && s.applied.as_ref() != wanted)
}

fn forget(world: &mut Observed, machine: &MachineName, uid: &str, keep_secrets: bool) -> Result<(), Refused> {
    let (ending, founded) = (world.cluster.deleting.is_some(), world.cluster.bootstrapped);
    let etcd = etcd_now(world);
    let kept = |m: &MachineRecord| m.deleting.is_none() || (founded && !is_no_member(m, &etcd));
    check(ending || !record_mut(world, machine, uid).is_ok_and(|m| kept(m)), "the Machine is not being taken away")?;
    check(keep_secrets || world.cloud.known().is_some_and(|c| c.of(uid).is_none()), "its instance is there")?;
    if let Some(machines) = world.machines.known_mut() {
        machines.retain(|m| m.uid != uid);
    }
    if let Some(secrets) = world.secrets.known_mut().filter(|_| !keep_secrets) {
        secrets.machines.remove(machine);
    }
    Ok(())
}

/// Whether etcd has the member that this machine recorded, and it has never been started: its data directory is used once.
fn is_expected(machine: &MachineRecord, etcd: &Fact<EtcdFacts>) -> bool {
    let member = machine.join.as_ref().map(|j| j.member);
    etcd.known().is_some_and(|etcd| etcd.members.iter().any(|m| Some(m.id) == member && m.name.is_empty()))
}

/// The agent's side of ApplyPlan: compare and swap.
fn accept(world: &mut Observed, machine: &MachineName, expected: Option<&PlanDigest>, wanted: &PlanDigest) -> Result<(), Refused> {
    let Some(AgentFacts::Heard(state)) = world.agents.get_mut(machine) else { return Err(Refused("the agent does not answer")) };
    check(state.accepted.as_ref() == expected, "another configuration was accepted meanwhile")?;
    // A new configuration may be what it lacked.
    if state.accepted.as_ref() != Some(wanted) {
        state.trouble = None;
    }
    state.accepted = Some(wanted.clone());
    Ok(())
}
