//! The rollout: how machines come to run what the spec wants, one safe step at a time.
//!
//! ```text
//!             preflight ─► snapshot ─► upgrade recorded
//!                                          │
//!  control planes, one machine at a time:  etcd ─► API server ─► controllers + Node       (back: the other way round)
//!                                          soak between machines  │
//!                                                                 └► pools, side by side: Node      addons
//!  a machine that does not come back ─► stopped recorded ─► it is told its old versions again ─► all stands still until the spec changes
//! ```
//! # What upstream's rules demand, and what they do not
//! - API servers go first, one minor at a time, each ≤ 1 minor from the others. Controllers, kubelets and kube-proxies follow an API server, never the other
//!   way (<https://kubernetes.io/releases/version-skew-policy/#supported-component-upgrade-order>): each of them has *its API servers* for a precondition,
//!   and none of them another. A kubelet need not wait for controllers, nor a worker for a control plane's Node.
//! - So as soon as every API server is new, a control plane's controllers and its Node are told together, and pools begin at the same time. Only what shares a
//!   risk is kept apart: two control planes are never changed at once, and a pool never has more machines down than it allows.
//! - etcd goes before the API servers: a new API server may use what only a new etcd has; an old one works with a new etcd.
//!
//! Every change of versions passes [`skew`](crate::skew). Only [`Action::SetVersions`](crate::Action) is decided here; the machine is changed by the
//! `ApplyPlan` that follows from it.

mod begin;
mod birth;
mod control_plane;
mod node;
mod pools;
mod replace;
mod spare;
mod undo;
mod well;

pub(crate) use birth::birth;
pub use node::is_upgrade_pending;
pub(crate) use pools::next_to_reconfigure;
pub(crate) use replace::{is_outdated, most, pool_surge, surge};
pub(crate) use well::is_settled;

use crate::draft::Draft;
use crate::skew::{Running, SkewViolation, skew_allows, skew_lets_follow};
use crate::{Action, MachineRecord, Reason, agents};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{MachineName, MachineVersions, Part};

/// Brings machines to what the spec wants.
pub(crate) fn roll(draft: &mut Draft<'_>) {
    if !draft.observed.cluster.bootstrapped || draft.machines().is_none() {
        return;
    }
    let stopped = undo::stands_still(draft);
    node::release(draft, stopped);
    // An agent on trial is back within a minute, one way or the other; only then can be told what a step did.
    if !stopped && !agents::are_on_trial(draft) {
        control_plane::roll(draft);
        pools::roll(draft);
    }
}

/// What a machine shall come to run. `None` if its pool is gone from the Cluster.
pub(crate) fn target(draft: &Draft<'_>, machine: &MachineRecord) -> Option<MachineVersions> {
    draft.spec.target(&machine.pool)
}

/// Of what only a new machine can bring, as the spec wants it. `None` if its pool is gone from the Cluster.
fn revision<'a>(draft: &Draft<'a>, machine: &MachineRecord) -> Option<&'a str> {
    if machine.is_control_plane() {
        return Some(&draft.spec.control_plane.revision);
    }
    draft.spec.pools.iter().find(|p| p.name == machine.pool).map(|p| p.revision.as_str())
}

/// Machines that are not told yet, or are not made of, what the spec wants.
pub(crate) fn behind<'a>(draft: &Draft<'a>) -> Vec<&'a MachineRecord> {
    let outdated =
        |m: &&MachineRecord| m.deleting.is_none() && (target(draft, m).is_some_and(|to| to != m.versions) || is_outdated(draft, m));
    draft.records().iter().filter(outdated).collect()
}

/// Whether addons have to wait: they are made for the API servers' new version, and not every API server is known to have it.
pub(crate) fn holds_addons(draft: &Draft<'_>) -> bool {
    let wanted = draft.spec.control_plane.versions.control_plane.map(|v| v.api_server);
    let may_run = |m: &MachineRecord| Running::of(m, well::is_settled(draft, m));
    serving(draft).any(|m| may_run(m).all().any(|v| v.control_plane.map(|v| v.api_server) != wanted))
}

/// Whether a machine was told new versions a moment ago and is to follow.
pub(crate) fn is_in_step(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    in_step_until(draft, machine).is_some()
}

/// Until when a machine that was told new versions has time to follow. What befalls it in that time is taken for the step's doing.
pub(crate) fn in_step_until(draft: &Draft<'_>, machine: &MachineRecord) -> Option<Timestamp> {
    let patience = SignedDuration::from_secs(i64::from(draft.spec.pace.step_timeout_seconds));
    let until = machine.changed.as_ref().map(|c| c.at.saturating_add(patience).unwrap_or(c.at))?;
    Some(until).filter(|until| draft.now < *until)
}

/// Whether its Node shows the kubelet that it was told last. Then it was given that, and what it is still to be given is something else.
pub(crate) fn has_followed(draft: &Draft<'_>, machine: &MachineRecord) -> bool {
    let told = machine.versions.node.kubelet;
    let exchanged = machine.changed.as_ref().is_some_and(|c| c.from.node.kubelet != told);
    exchanged && draft.node(&machine.name).is_some_and(|n| n.kubelet == Some(told))
}

/// Control planes that are not leaving.
fn serving<'a>(draft: &Draft<'a>) -> impl Iterator<Item = &'a MachineRecord> + use<'a> {
    draft.records().iter().filter(|m| m.is_control_plane() && m.deleting.is_none())
}

/// Every part, in the order in which a control plane is upgraded.
const PARTS: [Part; 4] = [Part::Etcd, Part::ApiServer, Part::Controllers, Part::Node];

/// Whether a part of `to` is older than the same part of `from`.
fn goes_back(part: Part, from: &MachineVersions, to: &MachineVersions) -> bool {
    let of = |v: &MachineVersions| v.control_plane;
    match part {
        Part::Etcd => of(to).map(|v| v.etcd) < of(from).map(|v| v.etcd),
        Part::ApiServer => of(to).map(|v| v.api_server) < of(from).map(|v| v.api_server),
        Part::Controllers => of(to).map(|v| v.controllers) < of(from).map(|v| v.controllers),
        Part::Node => to.node.kubelet < from.node.kubelet || to.node.containerd < from.node.containerd,
    }
}

/// Whether a new machine may be made with these versions now; says what it waits for otherwise.
pub(crate) fn may_be_born(draft: &mut Draft<'_>, machine: &MachineName, versions: MachineVersions) -> bool {
    let Err(violation) = skew(draft, machine, versions) else { return true };
    let since = draft.observed.cluster.created;
    draft.wait_after(machine, Reason::VersionSkew, "others to be changed, or to be gone, first", since, &violation.to_string());
    false
}

/// What every machine may be running.
fn running(draft: &Draft<'_>) -> Vec<Running> {
    draft.records().iter().map(|m| Running::of(m, well::is_settled(draft, m))).collect()
}

/// Whether a machine may begin to run what its record says; says what it waits for otherwise.
pub(crate) fn may_follow(draft: &mut Draft<'_>, machine: &MachineRecord, begun: bool) -> bool {
    let Err(violation) = skew_lets_follow(&running(draft), &machine.name, begun) else {
        return !begun || node::may_exchange_kubelet(draft, machine);
    };
    let since = machine.changed.as_ref().map_or(machine.created, |c| c.at);
    draft.wait_after(&machine.name, Reason::VersionSkew, "others to be changed, or to be heard, first", since, &violation.to_string());
    false
}

/// Whether the rules of version skew let a machine be told, or made with, these versions: with everything that may be running now, and with everything
/// that this very plan changes.
fn skew(draft: &Draft<'_>, machine: &MachineName, to: MachineVersions) -> Result<(), SkewViolation> {
    let mut running = running(draft);
    for action in draft.planned() {
        let (name, versions) = match action {
            Action::SetVersions { machine, to, .. } => (machine, to),
            Action::CreateMachine { machine, versions, .. } => (machine, versions),
            _ => continue,
        };
        match running.iter_mut().find(|m| m.machine == *name) {
            Some(told) => {
                told.versions.insert(*versions);
            }
            None => running.push(Running::only(name.clone(), *versions)),
        }
    }
    skew_allows(&running, machine, to)
}

/// Tells a machine new versions.
fn tell(draft: &mut Draft<'_>, machine: &MachineRecord, to: MachineVersions, because: impl Into<String>) {
    let action = Action::SetVersions { machine: machine.name.clone(), uid: machine.uid.clone(), from: machine.versions, to };
    draft.decide(action, because);
}
