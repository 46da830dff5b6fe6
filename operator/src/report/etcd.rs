//! etcd's members in the Cluster's status.

use crate::compose::World;
use slipway_crds::EtcdMember;
use slipway_plan::{EtcdFacts, Fact, MemberFacts, is_member_of};

/// Members as they were seen; while they cannot be, as they were told last.
pub fn members(world: &World, before: &[EtcdMember]) -> Vec<EtcdMember> {
    match &world.observed.etcd {
        Fact::Known(etcd) => all(etcd, |member| machine_of(world, member)),
        Fact::Unknown { .. } => before.to_vec(),
    }
}

fn all(etcd: &EtcdFacts, machine: impl Fn(&MemberFacts) -> String) -> Vec<EtcdMember> {
    let mut members: Vec<EtcdMember> = etcd
        .members
        .iter()
        .map(|member| EtcdMember {
            id: member.id.to_string(),
            machine: machine(member),
            role: role(member).to_owned(),
            version: member.status.known().map(|s| s.version.to_string()),
        })
        .collect();
    members.sort_by(|a, b| (&a.machine, &a.id).cmp(&(&b.machine, &b.id)));
    members
}

fn role(member: &MemberFacts) -> &'static str {
    match member.status.known() {
        None => "Silent",
        Some(_) if member.learner => "Learner",
        Some(status) if status.leader => "Leader",
        Some(_) => "Follower",
    }
}

fn machine_of(world: &World, member: &MemberFacts) -> String {
    let records = world.observed.machines.known().map_or(&[][..], Vec::as_slice);
    let found = records.iter().find(|m| m.is_control_plane() && is_member_of(member, m));
    found.map(|m| m.name.to_string()).unwrap_or_default()
}
