//! etcd's votes and what they bear: the arithmetic that every change of membership has to pass.
//!
//! A member belongs to a machine by its name, which is never used twice; while it was added and never started it has none, and belongs to the machine
//! that recorded its id, or (where that record is still missing) to the claimed one at its address. Addresses alone say nothing: clouds use them again.

use crate::draft::Draft;
use crate::{EtcdFacts, MachineRecord, MemberFacts};

/// How many of `voters` have to answer.
pub(crate) fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether a member is a machine's.
#[must_use]
pub fn is_of(member: &MemberFacts, machine: &MachineRecord) -> bool {
    if !member.name.is_empty() {
        return member.name == machine.name.as_str();
    }
    match (&machine.join, &machine.instance) {
        (Some(join), _) => join.member == member.id,
        (None, Some(instance)) => machine.claimed && instance.address == member.peer,
        (None, None) => false,
    }
}

/// A machine's member.
pub(crate) fn member_of<'e>(etcd: &'e EtcdFacts, machine: &MachineRecord) -> Option<&'e MemberFacts> {
    etcd.members.iter().find(|m| is_of(m, machine))
}

/// A member's machine: one that stays before one that is being taken away (which may have had the same address).
pub(crate) fn owner<'a>(draft: &Draft<'a>, member: &MemberFacts) -> Option<&'a MachineRecord> {
    let mut owners: Vec<&MachineRecord> = draft.records().iter().filter(|m| m.is_control_plane() && is_of(member, m)).collect();
    owners.sort_by_key(|m| m.deleting.is_some());
    owners.first().copied()
}

/// Who votes and who answers.
pub(crate) struct Votes<'a> {
    /// All members.
    pub etcd: &'a EtcdFacts,
    answering: Vec<&'a MemberFacts>,
}

impl<'a> Votes<'a> {
    /// As etcd says; but a machine that is gone does not answer, whatever was heard of it before.
    pub fn of(draft: &Draft<'a>, etcd: &'a EtcdFacts) -> Self {
        let gone = |m: &MemberFacts| owner(draft, m).is_some_and(|machine| draft.is_gone(machine));
        let answering = etcd.voters().filter(|m| m.status.known().is_some() && !gone(m)).collect();
        Self { etcd, answering }
    }

    /// How many vote.
    pub fn count(&self) -> usize {
        self.etcd.voters().count()
    }

    /// Whether a voter answers.
    pub fn answers(&self, member: &MemberFacts) -> bool {
        self.answering.iter().any(|m| m.id == member.id)
    }

    /// Voters that answer.
    pub fn answering(&self) -> &[&'a MemberFacts] {
        &self.answering
    }

    /// Voters that answer, this one left out.
    pub fn without(&self, member: &MemberFacts) -> usize {
        self.answering.iter().filter(|m| m.id != member.id).count()
    }

    /// Whether a member that does not answer may go: the others are a quorum now, and so they are afterwards.
    pub fn bear_its_loss(&self, member: &MemberFacts) -> bool {
        self.without(member) >= quorum(self.count())
    }

    /// Whether a member that answers may go: with it there is a quorum now, and the others are one afterwards.
    pub fn bear_its_leave(&self, member: &MemberFacts) -> bool {
        let (now, after) = (self.count(), self.count().saturating_sub(1));
        after >= 1 && self.answering.len() >= quorum(now) && self.without(member) >= quorum(after)
    }
}

#[cfg(test)]
mod tests {
    use super::quorum;

    #[test]
    fn a_quorum_is_more_than_half() {
        assert_eq!([1, 2, 3, 4, 5, 7].map(quorum), [1, 2, 2, 3, 3, 4]);
    }
}
