//! What the machines share: certificate authorities, network, load balancer and endpoint; and instances that nobody speaks of.

use crate::draft::Draft;
use crate::{Action, InstanceState, Reason};
use std::collections::BTreeSet;

/// The API's port, at the load balancer and on every control plane.
pub const API_PORT: u16 = 6443;

/// Makes what is missing.
pub(crate) fn shared(draft: &mut Draft<'_>) {
    authorities(draft);
    let Some(cloud) = draft.cloud() else { return };
    let created = draft.observed.cluster.created;
    if !cloud.network {
        draft.start(Action::EnsureNetwork);
        draft.wait(Reason::MakingNetwork, "the network", created);
        return;
    }
    let Some(balancer) = &cloud.load_balancer else {
        draft.start(Action::EnsureLoadBalancer { port: API_PORT });
        draft.wait(Reason::MakingLoadBalancer, "the load balancer", created);
        return;
    };
    match &draft.observed.cluster.endpoint {
        None => draft.start(Action::RecordEndpoint { endpoint: balancer.endpoint.clone() }),
        // Kubeconfigs, kubelets and certificates name the published one.
        Some(published) if *published != balancer.endpoint => {
            draft.wait(
                Reason::EndpointMoved,
                format!("the load balancer to be at {published} again (it is at {})", balancer.endpoint),
                created,
            );
        }
        Some(_) => {}
    }
    if !balancer.ready {
        let trouble = balancer.trouble.as_deref().map(|t| format!(" ({t})")).unwrap_or_default();
        draft.wait(Reason::MakingLoadBalancer, format!("the load balancer to forward{trouble}"), created);
    }
    if draft.machines().is_some() {
        let alive = |id: &str| cloud.instances.iter().any(|i| i.id == id && i.state != InstanceState::Deleting);
        let ids = draft.control_planes().filter_map(|m| draft.instance(m)).map(|i| i.id.clone()).filter(|id| alive(id));
        let instances: Vec<String> = ids.collect::<BTreeSet<_>>().into_iter().collect();
        if instances != balancer.targets {
            draft.start(Action::SetTargets { instances });
        }
    }
}

/// The authorities are made once. Making them anew under a living cluster would leave every certificate of it worthless.
fn authorities(draft: &mut Draft<'_>) {
    let Some(secrets) = draft.secrets() else { return };
    if secrets.pki {
        return;
    }
    let Some(machines) = draft.machines() else { return };
    if draft.observed.cluster.bootstrapped || machines.iter().any(|m| m.claimed) {
        draft.wait(Reason::AuthoritiesLost, "the Secret with the certificate authorities to be restored", draft.observed.cluster.created);
    } else {
        draft.start(Action::CreatePki);
    }
}

/// Instances without a record. The inventory is older than the records here (see `types`), and the executor asks once more.
///
/// A founder of a bootstrapped cluster is never a stray: if its record was removed by force, it still holds a part of etcd's quorum.
pub(crate) fn strays(draft: &mut Draft<'_>) {
    let (Some(cloud), Some(machines)) = (draft.cloud(), draft.machines()) else { return };
    for instance in &cloud.instances {
        let founder = draft.observed.cluster.bootstrapped && draft.observed.cluster.founders.contains(&instance.machine);
        if instance.state != InstanceState::Deleting && !founder && machines.iter().all(|m| m.uid != instance.machine_uid) {
            draft.start(Action::DeleteStrayInstance {
                machine: instance.machine.clone(),
                machine_uid: instance.machine_uid.clone(),
                instance: instance.id.clone(),
            });
        }
    }
}
