//! What speaks against an upgrade, looked at before anything is changed. All of it is named at once, so that a person mends it in one go.

use crate::draft::Draft;
use crate::rollout::target;
use crate::skew::KUBELET_OLDER;
use crate::{Fact, MachineRecord};
use jiff::SignedDuration;
use slipway_model::{MachineVersions, Strategy};

/// Free disk that the new programs and a snapshot need on a machine, in bytes.
const DISK_FREE: u64 = 1 << 30;
/// An agent's certificate has to outlive the upgrade by far, where such certificates live that long: they are renewed when a third of their life is left.
const CERTIFICATE_LEFT: SignedDuration = SignedDuration::from_hours(24);

/// Everything that speaks against it. `Err`: what has to be looked at first.
pub(crate) fn problems(draft: &Draft<'_>, planes: &[&MachineRecord], to: &MachineVersions) -> Result<Vec<String>, String> {
    let facts = match &draft.observed.preflight {
        Fact::Known(facts) if facts.to.as_ref() == Some(to) => facts,
        Fact::Known(_) => return Err("what speaks against the upgrade to be looked at".into()),
        Fact::Unknown { why, .. } => return Err(format!("what speaks against the upgrade to be looked at ({why})")),
    };
    let mut found: Vec<String> = vec![];
    found.extend(order(planes, to));
    found.extend(facts.removed_apis.iter().filter(|api| !draft.spec.ignored_apis.contains(*api)).map(|api| removed(api, to)));
    if drains(draft, planes) {
        let blocked = facts.impossible_budgets.iter();
        found.extend(blocked.map(|b| format!("PodDisruptionBudget {b} allows no disruption even when all of its pods are healthy")));
    }
    if let Fact::Known(etcd) = &draft.observed.etcd {
        found.extend(etcd.alarms.iter().map(|(member, alarm)| format!("etcd member {member} raises the alarm {alarm}")));
    }
    found.extend(draft.records().iter().filter(|m| m.deleting.is_none()).flat_map(|m| machine(draft, m)));
    found.extend(draft.records().iter().filter_map(|m| kubelet(m, to)));
    Ok(found)
}

/// API servers tell what was used since they were started, so the use may have ended: only a person knows.
fn removed(api: &str, to: &MachineVersions) -> String {
    format!(
        "{api} was used since the API servers were started and is not served by {} any more: move what uses it to another version, or, if nothing does any \
         more, add \"{api}\" to spec.upgrade.ignoreRemovedApis",
        kubernetes(to)
    )
}

/// Minors are not skipped, and nothing goes back that is not an upgrade being called off.
fn order(planes: &[&MachineRecord], to: &MachineVersions) -> Vec<String> {
    let mut found = vec![];
    for machine in planes {
        let (Some(is), Some(wanted)) = (machine.versions.control_plane, to.control_plane) else { continue };
        if wanted.api_server < is.api_server {
            found.push(format!("{} runs kube-apiserver {}: {} would be a downgrade", machine.name, is.api_server, wanted.api_server));
        }
        if wanted.api_server.minor > is.api_server.minor.saturating_add(1) {
            let next = is.api_server.minor.saturating_add(1);
            found.push(format!(
                "{} runs kube-apiserver {}: {} would skip a minor; go to v1.{next} first",
                machine.name, is.api_server, wanted.api_server
            ));
        }
        if wanted.etcd < is.etcd {
            found.push(format!("{} runs etcd {}: {} would be a downgrade", machine.name, is.etcd, wanted.etcd));
        }
        if wanted.etcd.major != is.etcd.major || wanted.etcd.minor > is.etcd.minor.saturating_add(1) {
            found.push(format!("{} runs etcd {}: {} would skip a minor", machine.name, is.etcd, wanted.etcd));
        }
    }
    found
}

/// Whether any Node is going to be emptied.
fn drains(draft: &Draft<'_>, planes: &[&MachineRecord]) -> bool {
    let replaced = draft.spec.control_plane.strategy == Strategy::Replace && !planes.is_empty();
    let moved = |m: &MachineRecord| target(draft, m).is_some_and(|to| to.node.kubelet.minor != m.versions.node.kubelet.minor);
    replaced || draft.records().iter().any(moved)
}

fn machine(draft: &Draft<'_>, machine: &MachineRecord) -> Vec<String> {
    let Some(state) = draft.heard(&machine.name) else { return vec![] };
    let mut found = vec![];
    if let Some(free) = state.disk_free.filter(|free| *free < DISK_FREE) {
        found.push(format!("{} has {} MiB of disk left and needs {}", machine.name, free >> 20, DISK_FREE >> 20));
    }
    let soon = draft.now.saturating_add(CERTIFICATE_LEFT.min(draft.observed.agent_certificate_life / 4)).unwrap_or(draft.now);
    if let Some(end) = state.certificate_expires.filter(|end| *end < soon) {
        found.push(format!("the certificate of {}'s agent ends {}", machine.name, crate::outcome::seconds(end)));
    }
    found
}

fn kubelet(machine: &MachineRecord, to: &MachineVersions) -> Option<String> {
    let api = to.control_plane?.api_server;
    let is = machine.versions.node.kubelet;
    let too_old = is.minor.saturating_add(KUBELET_OLDER) < api.minor;
    too_old.then(|| {
        let least = api.minor.saturating_sub(KUBELET_OLDER);
        format!("{} runs kubelet {is}, too old for kube-apiserver {api}: bring its pool to v1.{least} or newer first", machine.name)
    })
}

fn kubernetes(to: &MachineVersions) -> String {
    to.control_plane.map_or(to.node.kubelet, |v| v.api_server).to_string()
}
