//! The end of a cluster: load balancer and machines at once, then the network, then records and Secrets, the finalizer last.
//!
//! Nothing is drained: the whole cluster goes. What the cloud has under the cluster's UID is what counts, not the records, so that a lost write leaks nothing.

use crate::draft::Draft;
use crate::{Action, InstanceState, Reason};
use jiff::Timestamp;
use slipway_model::DeletionPolicy;

/// Brings the deletion a step further.
pub(crate) fn cluster(draft: &mut Draft<'_>, since: Timestamp) {
    if !draft.observed.cluster.finalizer {
        return; // done, or never begun
    }
    match draft.spec.deletion_policy {
        DeletionPolicy::Delete => delete(draft, since),
        DeletionPolicy::Orphan => orphan(draft, since),
    }
}

fn delete(draft: &mut Draft<'_>, since: Timestamp) {
    let gone = cloud_side(draft, since);
    let no_machines = machine_records(draft, since);
    let no_pools = pool_records(draft);
    if !(gone && no_machines && no_pools) {
        return;
    }
    // The agents' authority goes last: until nothing is left of the machines it may be needed to speak to them.
    if let Some(secrets) = draft.secrets() {
        draft.start(if secrets.is_empty() { Action::RemoveFinalizer } else { Action::DeleteSecrets });
    }
}

/// Deletes what the cloud has, and says whether it has nothing.
fn cloud_side(draft: &mut Draft<'_>, since: Timestamp) -> bool {
    let Some(cloud) = draft.cloud() else { return false };
    if cloud.load_balancer.is_some() {
        draft.start(Action::DeleteLoadBalancer);
    }
    for instance in &cloud.instances {
        if instance.state != InstanceState::Deleting {
            draft.start(Action::DeleteInstance { machine: instance.machine.clone(), instance: instance.id.clone() });
        }
        draft.wait_on(&instance.machine, Reason::InstanceDeleting, "the cloud to remove the machine", since);
    }
    if cloud.network && cloud.load_balancer.is_none() && cloud.instances.is_empty() {
        draft.start(Action::DeleteNetwork);
    }
    cloud.is_empty()
}

/// Removes the records whose instance is gone, and says whether there are none.
fn machine_records(draft: &mut Draft<'_>, since: Timestamp) -> bool {
    let Some(machines) = draft.machines() else { return false };
    for machine in machines {
        // A create call that was under way when the deletion came is refused by its own check from now on; what it made before is in the inventory.
        if draft.observed.cloud.known().is_some_and(|cloud| cloud.of(&machine.uid).is_none()) {
            draft.start(Action::RemoveMachine { machine: machine.name.clone(), uid: machine.uid.clone(), keep_secrets: false });
        } else {
            draft.wait_on(&machine.name, Reason::InstanceDeleting, "the cloud to remove the machine", since);
        }
    }
    machines.is_empty()
}

fn pool_records(draft: &mut Draft<'_>) -> bool {
    let Some(pools) = draft.pools() else { return false };
    for pool in pools {
        draft.start(Action::RemovePool { pool: pool.name.clone(), uid: pool.uid.clone() });
    }
    pools.is_empty()
}

/// Only records go.
fn orphan(draft: &mut Draft<'_>, since: Timestamp) {
    let no_pools = pool_records(draft);
    let Some(machines) = draft.machines() else { return };
    for machine in machines {
        draft.start(Action::RemoveMachine { machine: machine.name.clone(), uid: machine.uid.clone(), keep_secrets: true });
        draft.wait_on(&machine.name, Reason::Orphaning, "its record to go", since);
    }
    if machines.is_empty() && no_pools {
        draft.start(Action::RemoveFinalizer);
    }
}
