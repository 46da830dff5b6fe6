//! A Node while its machine is changed in place: emptied before its kubelet's minor changes, and given back afterwards.

use super::well::ill;
use crate::draft::Draft;
use crate::{Action, MachineRecord, drain, maintenance, reconfigure};
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, KubernetesVersion, MachineVersions, PoolName};

/// How long evicting a control plane's pods may take: no pool says it.
const CONTROL_PLANE_DRAIN_SECONDS: u32 = 300;

/// Whether the kubelet's minor changes, so that its Node has to be emptied first. Upstream asks for it: a kubelet takes over running pods of its own
/// minor only.
pub(crate) fn needs_drain(machine: &MachineRecord, to: &MachineVersions) -> bool {
    machine.versions.node.kubelet.minor != to.node.kubelet.minor
}

/// Whether the Node of a machine with these versions is one that is to be emptied in the course of an upgrade that has begun: its kubelet is to be another
/// minor, and some API server was told to be what is wanted. What leaves one Node should not go to the next that has to be left, so such Nodes are marked.
/// `told`: every machine's pool, and what it was told.
#[must_use]
pub fn is_upgrade_pending<'a>(
    spec: &ClusterSpec,
    mut told: impl Iterator<Item = (&'a PoolName, &'a MachineVersions)>,
    pool: &PoolName,
    versions: &MachineVersions,
) -> bool {
    let api_server = |v: &MachineVersions| v.control_plane.map(|v| v.api_server);
    let wanted = api_server(&spec.control_plane.versions);
    spec.target(pool).is_some_and(|to| to.node.kubelet.minor != versions.node.kubelet.minor)
        && told.any(|(pool, v)| pool.is_control_plane() && api_server(v) == wanted)
}

/// Whether a machine's Node is empty, or its time is over; otherwise the next step towards that.
pub(crate) fn emptied(draft: &mut Draft<'_>, machine: &MachineRecord, to: &MachineVersions) -> bool {
    !needs_drain(machine, to) || is_empty(draft, machine, machine.versions.node.kubelet, to.node.kubelet)
}

/// Whether a machine may exchange its kubelet for that which its record says. It was emptied before it was told, but may have been given back since: what
/// was told comes through late, and what was told is not what runs. Found by exploration.
///
/// What failed goes back as it is, because its pods may not be evictable any more; and without the API nobody can be evicted, whereas a control plane may
/// be what it lacks.
pub(crate) fn may_exchange_kubelet(draft: &mut Draft<'_>, machine: &MachineRecord) -> bool {
    let told = machine.versions.node.kubelet;
    let runs = draft.node(&machine.name).and_then(|n| n.kubelet).into_iter();
    let unseen = draft.observed.nodes.known().is_none();
    // One that is half way has perhaps exchanged it, and its Node does not say so yet.
    let unsure = unseen || draft.heard(&machine.name).is_some_and(|s| s.applied != s.accepted);
    let before = machine.changed.as_ref().filter(|_| unsure).map(|c| c.from.node.kubelet);
    let Some(other) = runs.chain(before).find(|k| k.minor != told.minor) else { return true };
    let undone = draft.observed.cluster.upgrade.as_ref().and_then(|u| u.stopped.as_ref()).is_some_and(|s| s.machine == machine.name);
    undone || (unseen && machine.is_control_plane()) || is_empty(draft, machine, other, told)
}

/// Whether nothing is on a machine's Node, or its time is over; otherwise the next step towards that.
fn is_empty(draft: &mut Draft<'_>, machine: &MachineRecord, from: KubernetesVersion, to: KubernetesVersion) -> bool {
    let Some(nodes) = draft.nodes() else { return false };
    let Some(node) = nodes.iter().find(|n| n.machine.as_ref() == Some(&machine.name)) else { return true };
    if !node.unschedulable {
        let because = format!("its kubelet goes from {from} to {to}, another minor: its pods move first");
        let action = Action::Cordon { machine: machine.name.clone(), node: node.name.clone(), uid: node.uid.clone(), returns: true };
        draft.decide(action, because);
        return false;
    }
    let pool = draft.spec.pools.iter().find(|p| p.name == machine.pool);
    let patience = pool.map_or(CONTROL_PLANE_DRAIN_SECONDS, |p| p.drain_timeout_seconds);
    // Who cordoned it by hand has no time on it, and pods of such a Node are waited for.
    if let Some(since) = node.cordoned.filter(|_| patience > 0) {
        let deadline = since.saturating_add(SignedDuration::from_secs(i64::from(patience))).unwrap_or(since);
        if draft.now >= deadline {
            return true;
        }
        draft.look_at(deadline);
    }
    drain::evict(draft, machine, node, node.cordoned.unwrap_or(node.since))
}

/// Gives those Nodes back that were cordoned by us and whose machines are well and need no change, or may not be changed now.
pub(crate) fn release(draft: &mut Draft<'_>, stopped: bool) {
    let Some(nodes) = draft.observed.nodes.known() else { return };
    let held = stopped || maintenance::maintenance_open(&draft.spec.maintenance, draft.now).is_err();
    for node in nodes.iter().filter(|n| n.unschedulable && n.cordoned.is_some()) {
        let Some(machine) = draft.records().iter().find(|m| node.machine.as_ref() == Some(&m.name) && m.deleting.is_none()) else {
            continue;
        };
        let done = super::target(draft, machine).is_none_or(|to| to.node == machine.versions.node);
        // One that has to wait with another configuration does its work meanwhile.
        let works = ill(draft, machine).is_none() || reconfigure::is_held(draft, machine);
        if (done || held) && works && !draft.is_taken(&machine.name) {
            let because = match done {
                true => format!("its kubelet is {} and its Node is Ready", machine.versions.node.kubelet),
                false => "its machine may not be changed now".to_owned(),
            };
            draft.decide(Action::Uncordon { machine: machine.name.clone(), node: node.name.clone(), uid: node.uid.clone() }, because);
        }
    }
}
