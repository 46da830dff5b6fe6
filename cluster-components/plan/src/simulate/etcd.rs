//! etcd in the world: who is a member, who answers, who leads, and what its membership API does and refuses.
//!
//! A member answers while its machine works, unless what etcd itself is made of is being changed: then it counts as down, which is the worst case. An API
//! server counts as down while anything of its machine is being changed.
//! A member whose machine lost its disk, or that was removed, never answers again.

use super::render::{again, has_retired, keeps_etcd, running, state};
use super::{Refused, check, record, record_mut, works};
use crate::quorum::{is_of, quorum};
use crate::{
    Action, AgentFacts, AgentState, EtcdFacts, Fact, JoinRecord, MachineRecord, MemberFacts, MemberId, MemberStatus, Observed,
    PROBE_API_SERVER, PROBE_ETCD, ProbeFacts, SnapshotFacts,
};
use jiff::Timestamp;
use slipway_model::MachineName;

fn etcd_mut(world: &mut Observed) -> Result<&mut EtcdFacts, Refused> {
    world.etcd.known_mut().ok_or(Refused("etcd is not known"))
}

/// How many voters answer, and how many there are.
fn votes(world: &Observed) -> (usize, usize) {
    let Fact::Known(etcd) = &world.etcd else { return (0, 0) };
    (etcd.voters().filter(|m| m.status.known().is_some()).count(), etcd.voters().count())
}

/// Whether etcd serves reads and writes.
pub(super) fn has_quorum(world: &Observed) -> bool {
    let (answering, all) = votes(world);
    all > 0 && answering >= quorum(all)
}

/// Whether the API server of a machine answers: its own etcd votes and has a quorum, and it was not told to stop.
pub(crate) fn serves_api(world: &Observed, machine: &MachineName) -> bool {
    let votes = |etcd: &EtcdFacts| etcd.voters().any(|m| m.name == machine.as_str() && m.status.known().is_some());
    let settled = |s: &AgentState| s.accepted.is_some() && s.applied == s.accepted && !has_retired(s);
    has_quorum(world) && world.etcd.known().is_some_and(votes) && state(world, machine).is_some_and(settled)
}

/// Changes that go through etcd, with the checks that are made right before them and those that etcd makes itself.
pub(super) fn change(world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    check(has_quorum(world), "etcd has no quorum")?;
    match action {
        Action::AddMember { machine, uid, .. } => {
            let record = record_mut(world, machine, uid)?;
            check(record.deleting.is_none() && record.join.is_none(), "the Machine is being taken away, or has joined")?;
            let member = add(world, machine)?;
            let members = named(world, machine);
            record_mut(world, machine, uid)?.join = Some(JoinRecord { member, members });
            again(world, machine);
        }
        Action::PromoteMember { member, .. } => {
            let etcd = etcd_mut(world)?;
            let member = etcd.members.iter_mut().find(|m| m.id == *member).ok_or(Refused("no such member"))?;
            check(!member.learner || member.status.known().is_some_and(|s| s.in_sync), "the learner is not in sync")?;
            member.learner = false;
        }
        Action::RemoveMember { machine, member } => {
            let Some(gone) = etcd_mut(world)?.members.iter().find(|m| m.id == *member).cloned() else { return Ok(()) };
            let stays = |m: &MachineRecord| machine.is_none() || m.deleting.is_none();
            let other = |m: &MachineRecord| m.is_control_plane() && stays(m) && Some(&m.name) != machine.as_ref();
            let owned = world.machines.known().into_iter().flatten().any(|m| other(m) && is_of(&gone, m));
            check(!owned, "it is another machine's after all")?;
            let (answering, all) = votes(world);
            let mine = usize::from(!gone.learner && gone.status.known().is_some());
            let left = all.saturating_sub(usize::from(!gone.learner));
            check(left > 0 && answering.saturating_sub(mine) >= quorum(left), "the others are no quorum")?;
            check(!gone.status.known().is_some_and(|s| s.leader), "it leads")?;
            check(gone.learner || etcd_mut(world)?.starting().is_none(), "a member is about to start with the members that there are")?;
            etcd_mut(world)?.members.retain(|m| m.id != *member);
        }
        Action::MoveLeader { from, to, .. } => {
            let etcd = etcd_mut(world)?;
            let leads = etcd.leader().is_some_and(|l| l.id == *from);
            let heir = etcd.voters().any(|m| m.id == *to && m.status.known().is_some());
            check(!leads || heir, "the heir does not answer")?;
            for status in etcd.members.iter_mut().filter(|_| leads).filter_map(|m| m.status.known_mut().map(|s| (m.id, s))) {
                status.1.leader = status.0 == *to;
            }
        }
        Action::TakeSnapshot { snapshot, machine } => {
            let answers = |e: &EtcdFacts| e.members.iter().any(|m| m.name == machine.as_str() && m.status.known().is_some());
            check(world.etcd.known().is_some_and(answers), "its member does not answer")?;
            let snapshots = world.snapshots.known_mut().ok_or(Refused("the snapshots are not known"))?;
            if !snapshots.iter().any(|s| s.name == *snapshot && s.completed.is_some()) {
                snapshots.retain(|s| s.name != *snapshot);
                snapshots.push(SnapshotFacts { name: snapshot.clone(), completed: Some(now), trouble: None });
            }
        }
        _ => {}
    }
    Ok(())
}

/// etcd's side of AddMember. A member with its peer address that has never started is the one.
pub(super) fn add(world: &mut Observed, machine: &MachineName) -> Result<MemberId, Refused> {
    check(has_quorum(world), "etcd has no quorum")?;
    let record = record(world, machine).ok_or(Refused("no such Machine"))?;
    let (id, peer) = (MemberId(u64::from(record.ordinal) + 1), record.instance.as_ref().map(|i| i.address));
    let peer = peer.ok_or(Refused("it has no address"))?;
    let created = world.cluster.created;
    let etcd = etcd_mut(world)?;
    if let Some(begun) = etcd.members.iter().find(|m| m.peer == peer && m.name.is_empty()) {
        return Ok(begun.id);
    }
    check(etcd.members.iter().all(|m| !m.learner), "another learner is there")?;
    check(etcd.voters().all(|m| m.status.known().is_some()), "a voter does not answer")?;
    check(etcd.members.iter().all(|m| m.peer != peer && m.id != id), "it is a member already")?;
    etcd.members.push(MemberFacts { id, name: String::new(), peer, learner: true, status: Fact::unknown("connection refused", created) });
    etcd.members.sort_by_key(|m| m.id);
    Ok(id)
}

/// Members by name and address, the one that joins included.
fn named(world: &Observed, joining: &MachineName) -> std::collections::BTreeMap<MachineName, std::net::Ipv4Addr> {
    let members = world.etcd.known().into_iter().flat_map(|e| &e.members);
    let name = |m: &MemberFacts| if m.name.is_empty() { Some(joining.clone()) } else { m.name.parse().ok() };
    members.filter_map(|m| name(m).map(|n| (n, m.peer))).collect()
}

/// What follows at once: founders become members, members start, answer or not, elect a leader; and probes say so.
pub(crate) fn follow(world: &mut Observed, now: Timestamp) {
    let Fact::Known(machines) = &world.machines else { return };
    if world.etcd.known().is_none() || world.cloud.known().is_none() {
        return;
    }
    let runs = |name: &MachineName| works(world, name) && state(world, name).is_some_and(keeps_etcd);
    let running_members: Vec<(MachineName, Option<MemberId>)> = machines
        .iter()
        .filter(|m| m.is_control_plane() && runs(&m.name))
        // etcd refuses the first start of one that was told of other members.
        .map(|m| (m.name.clone(), m.join.as_ref().filter(|j| world.etcd.known().is_some_and(|e| e.is_told_by(j))).map(|j| j.member)))
        .collect();
    // A machine whose record is gone runs on.
    let strays = world.agents.keys().filter(|n| record(world, n).is_none() && runs(n)).map(|n| (n.clone(), None));
    let up: Vec<(MachineName, Option<MemberId>)> = running_members.into_iter().chain(strays).collect();
    found(world, &up, now);
    let versions: Vec<_> = up.iter().map(|(name, _)| running(world, name).and_then(|v| v.control_plane).map(|v| v.etcd)).collect();
    let Fact::Known(etcd) = &mut world.etcd else { return };
    for member in &mut etcd.members {
        let at = up.iter().position(|(name, id)| member.name == name.as_str() || (member.name.is_empty() && *id == Some(member.id)));
        let Some((name, version)) = at.and_then(|at| up.get(at).zip(versions.get(at))).and_then(|((n, _), v)| Some((n, (*v)?))) else {
            if member.status.known().is_some() {
                member.status = Fact::unknown("connection refused", now);
            }
            continue;
        };
        member.name = name.to_string();
        let learner = member.learner;
        match &mut member.status {
            Fact::Known(status) => status.version = version,
            status @ Fact::Unknown { .. } => {
                *status = Fact::Known(MemberStatus { version, leader: false, in_sync: !learner, healthy_since: now, db_bytes: 1 << 20 });
            }
        }
    }
    elect(world);
    probes(world, now);
}

/// Founders are members as soon as most of them run.
fn found(world: &mut Observed, up: &[(MachineName, Option<MemberId>)], now: Timestamp) {
    let founders = &world.cluster.founders;
    let there = founders.iter().filter(|f| up.iter().any(|(name, _)| name == *f)).count();
    let Fact::Known(etcd) = &world.etcd else { return };
    if !etcd.members.is_empty() || founders.is_empty() || there < quorum(founders.len()) {
        return;
    }
    let of = |name: &MachineName| record(world, name).and_then(|m: &MachineRecord| m.instance.as_ref().map(|i| (m.ordinal, i.address)));
    let member = |(name, (ordinal, peer)): (&MachineName, (u32, std::net::Ipv4Addr))| MemberFacts {
        id: MemberId(u64::from(ordinal) + 1),
        name: name.to_string(),
        peer,
        learner: false,
        status: Fact::unknown("connection refused", now),
    };
    let members = founders.iter().filter_map(|f| of(f).map(|at| (f, at))).map(member).collect();
    world.etcd = Fact::Known(EtcdFacts { members, alarms: vec![] });
}

/// The leader stays while it can; otherwise the first voter that answers leads.
fn elect(world: &mut Observed) {
    let quorate = has_quorum(world);
    let Fact::Known(etcd) = &mut world.etcd else { return };
    let fit = |m: &MemberFacts| quorate && !m.learner && m.status.known().is_some();
    let leader = etcd.leader().filter(|m| fit(m)).or_else(|| etcd.members.iter().find(|m| fit(m))).map(|m| m.id);
    for member in &mut etcd.members {
        if let Some(status) = member.status.known_mut() {
            status.leader = Some(member.id) == leader;
        }
    }
}

/// What agents of control planes say of etcd and of the API server.
fn probes(world: &mut Observed, now: Timestamp) {
    let quorate = has_quorum(world);
    let planes: Vec<(MachineName, bool, bool, bool)> = world
        .agents
        .iter()
        .filter(|(name, agent)| agent.heard().is_some_and(|s| s.accepted.is_some()) && is_plane(world, name))
        .map(|(name, agent)| {
            let answers =
                world.etcd.known().is_some_and(|e| e.members.iter().any(|m| m.name == name.as_str() && m.status.known().is_some()));
            (name.clone(), quorate && answers, serves_api(world, name), agent.heard().is_some_and(has_retired))
        })
        .collect();
    for (name, etcd, api, retired) in planes {
        let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&name) else { continue };
        for (probe, healthy) in [(PROBE_ETCD, etcd), (PROBE_API_SERVER, api)] {
            if state.probes.get(probe).is_none_or(|p| p.healthy != healthy) {
                let message = if healthy { String::new() } else { "connection refused".to_owned() };
                state.probes.insert(probe.into(), ProbeFacts { healthy, message, since: now });
            }
        }
        if retired {
            state.probes.remove(PROBE_API_SERVER);
        }
    }
}

fn is_plane(world: &Observed, name: &MachineName) -> bool {
    record(world, name).map_or(world.cluster.founders.contains(name), MachineRecord::is_control_plane)
}
