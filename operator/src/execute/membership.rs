//! Effects on etcd's membership. Each asks all members afresh, looks whether what was planned still holds, and shows what came of it to the next pass.

use super::{EffectError, Scene, checks, records};
use crate::context::Context;
use crate::etcd::{EtcdDoor, EtcdError, Look, PEER_PORT};
use slipway_model::MachineName;
use slipway_plan::{EtcdFacts, JoinRecord, MachineRecord, MemberFacts, MemberId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

fn refuse<T>(why: impl Into<String>) -> Result<T, EffectError> {
    Err(EffectError::Precondition(why.into()))
}

fn find(facts: &EtcdFacts, member: MemberId) -> Option<&MemberFacts> {
    facts.members.iter().find(|m| m.id == member)
}

/// After a change: so that the next plan is made from what it left. That it was made is true whatever is seen now.
async fn show(door: &EtcdDoor) {
    if let Err(error) = door.look().await {
        tracing::debug!(%error, "etcd is not seen right after a change of its members");
    }
}

/// Learner and record. A member at the machine's address that never started is what an earlier try left.
pub async fn add(context: &Context, scene: &Scene, machine: &MachineName, uid: &str, address: Ipv4Addr) -> Result<(), EffectError> {
    let record = checks::machine(context, scene, machine).await?;
    let Some(record) = record.filter(|r| r.uid == uid && r.deleting.is_none()) else {
        return refuse(format!("{machine} is not the machine {uid} any more, or is being deleted"));
    };
    if record.join.is_some() {
        return Ok(());
    }
    if record.instance.as_ref().map(|i| i.address) != Some(address) {
        return refuse(format!("{machine} is not recorded at {address}"));
    }
    let door = scene.etcd()?;
    let look = door.look().await?;
    let member = match may_be_added(&look.facts, &record, address).map_err(EffectError::Precondition)? {
        Some(left) => left,
        None => voter(&look, None)?.add_learner(&format!("https://{address}:{PEER_PORT}")).await?,
    };
    let members = initial_cluster(&look.facts, machine, address).map_err(EffectError::Precondition)?;
    let recorded = records::record_join(context, scene, machine, uid, &JoinRecord { member, members }).await;
    show(door).await;
    recorded
}

/// Whether a machine's member may be added now; its id, where an earlier try has added it.
fn may_be_added(facts: &EtcdFacts, record: &MachineRecord, address: Ipv4Addr) -> Result<Option<MemberId>, String> {
    if facts.members.iter().any(|m| m.name == record.name.as_str()) {
        return Err(format!("etcd has had a member {} that started: its machine lost its data", record.name));
    }
    let left = facts.members.iter().find(|m| m.peer == address && m.name.is_empty() && m.learner);
    if let Some(other) =
        facts.members.iter().find(|m| Some(m.id) != left.map(|l| l.id) && (m.learner || m.name.is_empty() || m.peer == address))
    {
        return Err(format!("member {} ({}, {}) joins or stands where {} is to stand", other.id, other.name, other.peer, record.name));
    }
    match facts.voters().find(|m| m.status.known().is_none()) {
        Some(silent) if left.is_none() => Err(format!("member {} ({}) does not answer", silent.id, silent.name)),
        _ => Ok(left.map(|m| m.id)),
    }
}

/// All members by name and address, the new one among them: what it is told when it first starts.
fn initial_cluster(facts: &EtcdFacts, machine: &MachineName, address: Ipv4Addr) -> Result<BTreeMap<MachineName, Ipv4Addr>, String> {
    let others = facts.members.iter().filter(|m| m.peer != address);
    let named = |m: &MemberFacts| {
        let name = m.name.parse().map_err(|e| format!("member {} is called {:?}, which is no machine's name: {e}", m.id, m.name))?;
        Ok((name, m.peer))
    };
    others.map(named).chain([Ok((machine.clone(), address))]).collect()
}

fn voter(look: &Look, besides: Option<MemberId>) -> Result<&std::sync::Arc<dyn crate::etcd::Etcd>, EffectError> {
    let none = || EffectError::Precondition("no other member of etcd answers that could be told".to_owned());
    look.voter_besides(besides).ok_or_else(none)
}

/// etcd itself refuses a learner that is not in sync.
pub async fn promote(scene: &Scene, machine: &MachineName, member: MemberId) -> Result<(), EffectError> {
    let door = scene.etcd()?;
    let look = door.look().await?;
    match find(&look.facts, member) {
        None => return refuse(format!("etcd has no member {member} of {machine} any more")),
        Some(found) if !found.learner => return Ok(()),
        Some(_) => {}
    }
    voter(&look, Some(member))?.promote(member).await?;
    show(door).await;
    Ok(())
}

/// Never one whose leave would cost the quorum, and never the leader while it answers.
pub async fn remove(context: &Context, scene: &Scene, machine: Option<&MachineName>, member: MemberId) -> Result<(), EffectError> {
    let door = scene.etcd()?;
    // The records first: who is recorded after that list was read joined after these members were listed.
    let machines = checks::machines(context, scene).await?;
    let look = door.look().await?;
    let Some(found) = find(&look.facts, member) else { return Ok(()) };
    // Addresses are used again: a member that has not started yet may look like that of a machine that is gone.
    let other = |m: &&MachineRecord| (machine.is_none() || m.deleting.is_none()) && Some(&m.name) != machine && is_owner(m, found);
    if let Some(owner) = machines.iter().find(other) {
        return refuse(format!("etcd member {member} is {}'s after all", owner.name));
    }
    may_be_removed(&look.facts, found).map_err(EffectError::Precondition)?;
    if let Some(starting) = look.facts.starting().filter(|_| !found.learner) {
        return refuse(format!("member {} is about to start with exactly the members that there are", starting.id));
    }
    match voter(&look, Some(member))?.remove(member).await {
        Ok(()) | Err(EtcdError::NoSuchMember { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    show(door).await;
    Ok(())
}

/// By name, by recorded join or, if it has never started, by address.
fn is_owner(machine: &MachineRecord, member: &MemberFacts) -> bool {
    let address = machine.instance.as_ref().map(|i| i.address);
    machine.is_control_plane()
        && (member.name == machine.name.as_str()
            || machine.join.as_ref().is_some_and(|j| j.member == member.id)
            || (member.name.is_empty() && address == Some(member.peer)))
}

/// The voters that answer, this one left out, are a quorum of the voters that remain.
fn may_be_removed(facts: &EtcdFacts, member: &MemberFacts) -> Result<(), String> {
    if member.learner {
        return Ok(());
    }
    if member.status.known().is_some_and(|s| s.leader) {
        return Err(format!("etcd member {} ({}) leads", member.id, member.name));
    }
    let others: Vec<&MemberFacts> = facts.voters().filter(|m| m.id != member.id).collect();
    let answering = others.iter().filter(|m| m.status.known().is_some()).count();
    let needed = others.len() / 2 + 1;
    if answering < needed {
        return Err(format!(
            "without etcd member {} ({}) {answering} of {} would answer, and {needed} have to",
            member.id,
            member.name,
            others.len()
        ));
    }
    Ok(())
}

/// Asked of the leader itself. One that does not lead is left alone.
pub async fn move_leader(scene: &Scene, machine: &MachineName, from: MemberId, to: MemberId) -> Result<(), EffectError> {
    let door = scene.etcd()?;
    let look = door.look().await?;
    if find(&look.facts, from).is_none_or(|m| m.status.known().is_none_or(|s| !s.leader)) {
        return Ok(());
    }
    if find(&look.facts, to).is_none_or(|m| m.learner || m.status.known().is_none()) {
        return refuse(format!("etcd member {to} is no voter that answers"));
    }
    let Some(leader) = look.member(from) else { return refuse(format!("etcd of {machine} leads and is not reached")) };
    leader.move_leader(to).await?;
    show(door).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::Timestamp;
    use slipway_plan::{Fact, MemberStatus};

    fn member(n: u64, answers: bool, leader: bool) -> MemberFacts {
        let status =
            MemberStatus { version: "v3.6.14".parse().unwrap(), leader, in_sync: true, healthy_since: Timestamp::UNIX_EPOCH, db_bytes: 1 };
        MemberFacts {
            id: MemberId(n),
            name: format!("demo-cp-{n}"),
            peer: Ipv4Addr::from_bits(n.try_into().unwrap()),
            learner: false,
            status: if answers { Fact::Known(status) } else { Fact::unknown("silent", Timestamp::UNIX_EPOCH) },
        }
    }

    fn etcd(members: impl IntoIterator<Item = MemberFacts>) -> EtcdFacts {
        EtcdFacts { members: members.into_iter().collect(), alarms: vec![] }
    }

    fn may_go(facts: &EtcdFacts, n: u64) -> bool {
        may_be_removed(facts, find(facts, MemberId(n)).unwrap()).is_ok()
    }

    #[test]
    fn a_member_goes_only_where_the_others_that_answer_stay_a_quorum() {
        let dead = |n| member(n, false, false);
        let well = |n| member(n, true, n == 1);
        let three = etcd([well(1), well(2), dead(3)]);
        assert!(may_go(&three, 3), "a dead one of three");
        assert!(!may_go(&three, 2), "one of the two that keep the quorum");
        assert!(!may_go(&etcd([well(1), dead(2), dead(3)]), 3), "one of three answers: no quorum to begin with");
        assert!(may_go(&etcd([well(1), well(2)]), 2) && !may_go(&etcd([well(1), dead(2)]), 1));
        assert!(may_go(&etcd([well(1), well(2), well(3), dead(4), dead(5)]), 5));
        assert!(!may_go(&etcd([well(1)]), 1), "the last");
        assert!(!may_go(&etcd([well(1), well(2), well(3)]), 1), "the leader hands over first");
    }

    #[test]
    fn a_learner_may_always_go() {
        let learner = MemberFacts { learner: true, ..member(3, false, false) };
        assert!(may_go(&etcd([member(1, true, true), member(2, false, false), learner]), 3));
    }
}
