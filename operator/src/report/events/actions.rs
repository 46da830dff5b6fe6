//! What is told of an action that succeeded. Most are not worth an Event: the steps of a machine's making stand in its status.

use super::{Tiding, cluster_reference, reference};
use crate::execute::Scene;
use crate::report::decisions::Decisions;
use k8s_openapi::api::core::v1::ObjectReference;
use slipway_model::{MachineName, Part};
use slipway_plan::{Action, Removal, StoppedRoll, UpgradeRecord};

/// What is told of it, if anything.
pub fn told(action: &Action, scene: &Scene, decisions: &Decisions) -> Option<Tiding> {
    let machine = |name: &MachineName, uid: &str| reference(scene, "Machine", name.as_str(), uid);
    // Of machines that have a record.
    let member = |name: &MachineName| machine(name, scene.machines.get(name).map_or("", |m| &m.uid));
    let cluster = || cluster_reference(scene);
    let because = || decisions.because(action).map(|why| format!(": {why}")).unwrap_or_default();
    Some(match action {
        Action::CreateInstance { machine: name, uid } => {
            Tiding::new(machine(name, uid), "MachineCreated", "Create", format!("{name} is being made"))
        }
        Action::StartInstance { machine: name, .. } => {
            Tiding::new(member(name), "MachineStarted", "Start", format!("{name} was powered off and is started again"))
        }
        Action::Claim { machine: name, uid, address } => {
            Tiding::new(machine(name, uid), "MachineClaimed", "Claim", format!("the agent of {name} at {address} obeys this operator"))
        }
        Action::DeleteMachine { machine: name, uid, why: Removal::Dead } => {
            Tiding::new(machine(name, uid), "MachineDead", "Replace", format!("{name} is dead and is replaced{}", because())).warning()
        }
        Action::DeleteMachine { machine: name, uid, why } => {
            Tiding::new(machine(name, uid), "MachineRemoved", "Delete", format!("{name} is taken away, since {why}"))
        }
        Action::RemoveMachine { machine: name, uid, keep_secrets } => {
            let what = if *keep_secrets { "its record is gone, the machine stays" } else { "nothing of it is left" };
            Tiding::new(machine(name, uid), "MachineDeleted", "Delete", format!("{name}: {what}"))
        }
        Action::DeleteStrayInstance { machine, instance, .. } => {
            let note = format!("instance {instance}, made for {machine}, had no record and was deleted");
            Tiding::new(cluster(), "StrayInstanceDeleted", "Delete", note).warning()
        }
        Action::RecordBootstrapped { founders } => {
            let names: Vec<&str> = founders.iter().map(MachineName::as_str).collect();
            Tiding::new(cluster(), "Bootstrapped", "Bootstrap", format!("etcd has its first quorum: {}", names.join(", ")))
        }
        Action::AddMember { machine: name, .. } => {
            Tiding::new(member(name), "MemberAdded", "AddMember", format!("{name} joins etcd as a learner"))
        }
        Action::PromoteMember { machine: name, .. } => {
            Tiding::new(member(name), "MemberPromoted", "PromoteMember", format!("the etcd member of {name} votes"))
        }
        Action::RemoveMember { machine: Some(name), .. } => {
            Tiding::new(member(name), "MemberRemoved", "RemoveMember", format!("{name} is no member of etcd any more{}", because()))
        }
        Action::RemoveMember { machine: None, member } => {
            let note = format!("member {member}, which had no machine, is no member of etcd any more");
            Tiding::new(cluster(), "MemberRemoved", "RemoveMember", note).warning()
        }
        Action::SetVersions { machine: name, uid, from, to } => {
            let parts = [Part::Etcd, Part::ApiServer, Part::Controllers, Part::Node].into_iter().filter(|part| from.differs(*part, to));
            let parts: Vec<String> = parts.map(|part| part.to_string()).collect();
            Tiding::new(
                machine(name, uid),
                "UpgradeStep",
                clipped(format!("Exchange {}", parts.join(", "))),
                format!("{action}{}", because()),
            )
        }
        Action::RecordUpgrade { from, to } => upgrade(cluster(), from.as_ref(), to.as_ref())?,
        Action::TakeSnapshot { snapshot, machine } => Tiding {
            // Each snapshot is an Event of its own.
            related: Some(reference(scene, "EtcdSnapshot", snapshot, "")),
            ..Tiding::new(
                cluster(),
                "SnapshotTaken",
                "TakeSnapshot",
                format!("EtcdSnapshot {snapshot} was taken from {machine} and verified"),
            )
        },
        _ => return None,
    })
}

/// An action is at most 128 bytes long.
fn clipped(mut action: String) -> String {
    action.truncate(action.floor_char_boundary(128));
    action
}

/// Where an upgrade turned.
fn upgrade(cluster: ObjectReference, from: Option<&UpgradeRecord>, to: Option<&UpgradeRecord>) -> Option<Tiding> {
    let stopped = |stop: &StoppedRoll| {
        let note = format!("{} did not come back after {} was changed: {}", stop.machine, stop.part, stop.why);
        Tiding::new(cluster.clone(), "UpgradeStopped", "Upgrade", note).warning()
    };
    Some(match (from, to) {
        // Of a pool, when the control plane's upgrade was over.
        (None, Some(UpgradeRecord { stopped: Some(stop), .. })) => stopped(stop),
        (Some(UpgradeRecord { stopped: Some(_), .. }), None) => Tiding::new(cluster, "UpgradeResumed", "Upgrade", "of the pools"),
        (None, Some(begun)) => Tiding::new(
            cluster,
            "UpgradeBegun",
            "Upgrade",
            format!("from {} to {}, after snapshot {}", begun.from, begun.to, begun.snapshot),
        ),
        (Some(over), None) if over.to == over.from => {
            Tiding::new(cluster, "UpgradeUndone", "Upgrade", format!("every control plane runs {} again", over.to))
        }
        (Some(over), None) => Tiding::new(cluster, "UpgradeFinished", "Upgrade", format!("every control plane runs {}", over.to)),
        (Some(before), Some(after)) => match (&before.stopped, &after.stopped) {
            (None, Some(stop)) => stopped(stop),
            _ if before.to != after.to && after.to == after.from => {
                Tiding::new(cluster, "UpgradeCalledOff", "Upgrade", format!("back to {}", after.to))
            }
            _ if before.to != after.to => Tiding::new(cluster, "UpgradeTurned", "Upgrade", format!("on to {} now", after.to)),
            (Some(_), None) => Tiding::new(cluster, "UpgradeResumed", "Upgrade", format!("on to {} again", after.to)),
            (None, None) | (Some(_), Some(_)) => return None,
        },
        (None, None) => return None,
    })
}
