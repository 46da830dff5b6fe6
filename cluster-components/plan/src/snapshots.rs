//! Snapshots that people ask for: EtcdSnapshot objects that are not complete. Those that upgrades need are the rollout's.

use crate::draft::Draft;
use crate::quorum::member_of;
use crate::{Action, EtcdFacts, Fact, MachineRecord};

/// Takes them, one at a time: the first that did not fail lately. Those that did are told.
pub(crate) fn asked_for(draft: &mut Draft<'_>) {
    let (Fact::Known(known), Fact::Known(etcd)) = (&draft.observed.snapshots, &draft.observed.etcd) else { return };
    let taken = draft.planned().any(|a| matches!(a, Action::TakeSnapshot { .. }));
    // A follower has less to do than the leader.
    let members = draft.control_planes().filter_map(|m| Some((leads(draft, etcd, m)?, m.ordinal, m)));
    let Some((_, _, from)) = members.min_by_key(|(leads, ordinal, _)| (*leads, *ordinal)) else { return };
    let now = draft.now;
    let mut free = !taken;
    for snapshot in known.iter().filter(|s| s.completed.is_none()) {
        let action = Action::TakeSnapshot { snapshot: snapshot.name.clone(), machine: from.name.clone() };
        let waits = draft.observed.failures.get(&action.key()).is_some_and(|f| f.next_try > now);
        if waits || std::mem::take(&mut free) {
            draft.decide(action, format!("EtcdSnapshot {} asks for it; {} does not lead, or is alone", snapshot.name, from.name));
        }
    }
}

/// Whether the machine's member leads; `None` where it has none that votes and answers.
fn leads(draft: &Draft<'_>, etcd: &EtcdFacts, machine: &MachineRecord) -> Option<bool> {
    let member = member_of(etcd, machine).filter(|m| !m.learner)?;
    draft.heard(&machine.name)?;
    member.status.known().map(|s| s.leader)
}
