//! Machines that are being taken away: cordoned, drained of pods and volumes, deleted, forgotten, in this order and each only after the one before.
//!
//! Control planes of a founded cluster come here when nothing of etcd is on them any more (see `departure`).

use crate::dead::death;
use crate::draft::Draft;
use crate::quorum::member_of;
use crate::{Action, EtcdFacts, Fact, InstanceState, MachineRecord, NodeFacts, Reason, departure, pools};
use jiff::{SignedDuration, Timestamp};
use slipway_model::ClusterSpec;

/// A pool that is gone from the Cluster and whose NodePool does not say otherwise.
const DEFAULT_DRAIN_TIMEOUT: u32 = 300;
/// As many volumes as somebody reads.
const NAMED: usize = 3;

/// Brings every machine that is being taken away a step further.
pub(crate) fn leaving(draft: &mut Draft<'_>) {
    let Some(machines) = draft.machines() else { return };
    for machine in machines {
        let founded = machine.is_control_plane() && draft.observed.cluster.bootstrapped;
        if let Some(since) = machine.deleting.filter(|_| !founded || departure::is_released(draft, machine)) {
            leave(draft, machine, since);
        }
    }
    // The pools' books are settled by `grow`, but a pool that is gone from the Cluster does not grow.
    let gone = |m: &&MachineRecord| !m.is_control_plane() && draft.spec.pools.iter().all(|p| p.name != m.pool) && !pools::settled(draft, m);
    let books: std::collections::BTreeSet<_> = machines.iter().filter(gone).map(|m| m.pool.clone()).collect();
    for pool in books {
        pools::grow(draft, &pool, 0);
    }
}

fn leave(draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) {
    let Some(cloud) = draft.cloud() else { return };
    match cloud.of(&machine.uid) {
        Some(instance) if instance.state == InstanceState::Deleting => {
            draft.wait_on(&machine.name, Reason::InstanceDeleting, "the cloud to remove the machine", since);
        }
        Some(instance) => {
            if drained(draft, machine, since) {
                if machine.kept {
                    let what = "somebody to look at it and to take the annotation `slipway.dev/keep` off";
                    draft.wait_on(&machine.name, Reason::KeptForInspection, what, since);
                    return;
                }
                draft.start(Action::DeleteInstance { machine: machine.name.clone(), instance: instance.id.clone() });
                draft.wait_on(&machine.name, Reason::InstanceDeleting, "the cloud to remove the machine", since);
            }
        }
        None => forget(draft, machine, since),
    }
}

/// Its Node, then its record.
fn forget(draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) {
    let Some(nodes) = draft.nodes() else { return };
    if let Some(node) = nodes.iter().find(|n| n.machine.as_ref() == Some(&machine.name)) {
        draft.start(Action::DeleteNode { machine: machine.name.clone(), node: node.name.clone(), uid: node.uid.clone() });
    } else if pools::settled(draft, machine) {
        draft.start(Action::RemoveMachine { machine: machine.name.clone(), uid: machine.uid.clone(), keep_secrets: false });
    } else {
        draft.wait_on(&machine.name, Reason::NumbersUnsettled, "its number to be written off", since);
    }
}

/// Whether nothing on the machine needs it any more, or its time is over; otherwise the next step towards that.
pub(crate) fn drained(draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) -> bool {
    let Some(nodes) = draft.nodes() else { return false };
    let Some(node) = nodes.iter().find(|n| n.machine.as_ref() == Some(&machine.name)) else { return true };
    // Pods on a dead machine cannot be shut down gracefully by anybody; on one that is only of no use any more and still speaks they can.
    if draft.heard(&machine.name).is_none() && death(draft, machine).is_some() {
        return true;
    }
    if let Some(deadline) = deadline(draft, machine, since) {
        if draft.now >= deadline {
            return true;
        }
        draft.look_at(deadline);
    }
    if !node.unschedulable {
        draft.start(Action::Cordon { machine: machine.name.clone(), node: node.name.clone(), uid: node.uid.clone(), returns: false });
    }
    let empty = evict(draft, machine, node, since) && node.unschedulable;
    empty && detached(draft, machine, node, since)
}

/// Whether no volume is attached to an emptied Node any more. Its kubelet unmounts them and their driver detaches them, which takes both of them: a machine
/// that goes before leaves volumes behind that nobody unmounted, and that some clouds attach elsewhere only minutes later.
fn detached(draft: &mut Draft<'_>, machine: &MachineRecord, node: &NodeFacts, since: Timestamp) -> bool {
    match &node.volumes {
        Fact::Known(volumes) if volumes.is_empty() => return true,
        Fact::Known(volumes) => {
            let (named, more) = (volumes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "), volumes.len().saturating_sub(NAMED));
            let others = if more > 0 { format!(" and {more} more") } else { String::new() };
            let what = format!("volume {named}{others} to be detached from Node {}", node.name);
            draft.wait_on(&machine.name, Reason::VolumesAttached, what, since);
        }
        Fact::Unknown { .. } => {
            let what = format!("the volumes that are attached to Node {} to be listed", node.name);
            draft.wait_on(&machine.name, Reason::VolumesAttached, what, since);
        }
    }
    false
}

fn deadline(draft: &Draft<'_>, machine: &MachineRecord, since: Timestamp) -> Option<Timestamp> {
    let record = draft.observed.pools.known().and_then(|pools| pools.iter().find(|p| p.name == machine.pool));
    drain_deadline(draft.spec, machine, record.and_then(|p| p.drain_timeout_seconds), since)
}

fn drain_deadline(spec: &ClusterSpec, machine: &MachineRecord, recorded: Option<u32>, since: Timestamp) -> Option<Timestamp> {
    let from_spec = spec.pools.iter().find(|p| p.name == machine.pool).map(|p| p.drain_timeout_seconds);
    let timeout = from_spec.or(recorded).unwrap_or(DEFAULT_DRAIN_TIMEOUT);
    (timeout > 0).then(|| since.saturating_add(SignedDuration::from_secs(i64::from(timeout))).unwrap_or(since))
}

/// The check that the executor makes right before it deletes a recorded machine's instance in a cluster that lives: with the record, the Node (with its
/// pods and volumes), the agent and etcd's members (a linearizable list; only read for control planes) as they are *now*, whatever the plan was made from.
/// `recorded_timeout` is the NodePool's, for a pool that is gone from the Cluster. A control plane of a founded cluster may go when etcd can be asked
/// and has no member of it; that holds for its record ([`Action::RemoveMachine`]) as well: see [`is_no_member`].
///
/// A view of the Nodes that is older than the Machine's deletion may show no Node where there is one with pods by now: found by exploration.
#[must_use]
#[allow(clippy::too_many_arguments, reason = "each is read at another target right before the deletion")]
pub fn may_be_deleted(
    spec: &ClusterSpec,
    bootstrapped: bool,
    machine: &MachineRecord,
    recorded_timeout: Option<u32>,
    node: Option<&NodeFacts>,
    agent_answers: bool,
    etcd: &Fact<EtcdFacts>,
    now: Timestamp,
) -> bool {
    let Some(since) = machine.deleting.filter(|_| !machine.kept) else { return false };
    if !bootstrapped {
        return true;
    }
    if !is_no_member(machine, etcd) {
        return false;
    }
    let drained =
        node.is_none_or(|n| n.unschedulable && n.pods.known().is_some_and(Vec::is_empty) && n.volumes.known().is_some_and(Vec::is_empty));
    let over = drain_deadline(spec, machine, recorded_timeout, since).is_some_and(|at| now >= at);
    drained || over || !agent_answers
}

/// Whether a machine of a founded cluster has certainly nothing to do with etcd: it is a worker, or etcd's members are known and none is its.
#[must_use]
pub fn is_no_member(machine: &MachineRecord, etcd: &Fact<EtcdFacts>) -> bool {
    !machine.is_control_plane() || etcd.known().is_some_and(|etcd| member_of(etcd, machine).is_none())
}

/// Evicts what is left, and says whether nothing is. Pods were listed after the Node was read: none can have come since it was cordoned.
pub(crate) fn evict(draft: &mut Draft<'_>, machine: &MachineRecord, node: &NodeFacts, since: Timestamp) -> bool {
    let Fact::Known(pods) = &node.pods else {
        draft.wait_on(&machine.name, Reason::PodTerminating, "its pods to be listed", since);
        return false;
    };
    for pod in pods {
        if pod.terminating {
            draft.wait_on(&machine.name, Reason::PodTerminating, format!("pod {} to shut down", pod.pod), since);
        } else if node.unschedulable {
            draft.start(Action::Evict { machine: machine.name.clone(), pod: pod.pod.clone() });
        }
    }
    pods.is_empty()
}
