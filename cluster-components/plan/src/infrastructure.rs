//! What the machines share: certificate authorities, network, load balancer and endpoint; and instances that nobody speaks of.

use crate::draft::{Draft, PROBE_API_SERVER};
use crate::quorum::{Votes, member_of};
use crate::{Action, CloudFacts, InstanceFacts, InstanceState, LoadBalancerFacts, MachineRecord, Reason, departure};
use slipway_model::PoolName;
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
        let instances = targets(draft, cloud, balancer);
        if instances != balancer.targets {
            draft.start(Action::SetTargets { instances });
        }
    }
}

/// Instances that clients may be sent to. One that is not ready yet does no harm there (the load balancer asks before it sends); one that is about to
/// stop its API server does, and is taken off before (see `departure`).
fn targets(draft: &Draft<'_>, cloud: &CloudFacts, balancer: &LoadBalancerFacts) -> Vec<String> {
    let etcd = draft.observed.etcd.known();
    let next = etcd.and_then(|etcd| departure::next(draft, &Votes::of(draft, etcd))).map(|(machine, _)| &machine.name);
    let votes = |m: &MachineRecord| etcd.is_some_and(|e| member_of(e, m).is_some_and(|member| !member.learner));
    let answers = |m: &MachineRecord| draft.heard(&m.name).is_some_and(|s| s.healthy(PROBE_API_SERVER));
    // While nobody says who votes, those that are there stay.
    let stays = |i: &InstanceFacts| etcd.is_none() && balancer.targets.contains(&i.id);
    let serves = |m: &MachineRecord, i: &InstanceFacts| {
        if !draft.observed.cluster.bootstrapped {
            m.deleting.is_none()
        } else if m.deleting.is_some() {
            votes(m) || stays(i)
        } else {
            votes(m) || answers(m) || stays(i)
        }
    };
    let planes = draft.records().iter().filter(|m| m.is_control_plane() && !m.retiring && Some(&m.name) != next);
    let there = planes.filter_map(|m| cloud.instance(m).filter(|i| i.state != InstanceState::Deleting && serves(m, i)));
    there.map(|i| i.id.clone()).collect::<BTreeSet<_>>().into_iter().collect()
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
/// A control plane's of a founded cluster is never a stray while a member of etcd may run on it: if its record was removed by force, it still holds a
/// part of the quorum.
pub(crate) fn strays(draft: &mut Draft<'_>) {
    let (Some(cloud), Some(machines)) = (draft.cloud(), draft.machines()) else { return };
    for instance in &cloud.instances {
        let recorded = machines.iter().any(|m| m.uid == instance.machine_uid);
        if instance.state != InstanceState::Deleting && !recorded && !may_be_a_member(draft, instance) {
            draft.start(Action::DeleteStrayInstance {
                machine: instance.machine.clone(),
                machine_uid: instance.machine_uid.clone(),
                instance: instance.id.clone(),
            });
        }
    }
}

fn may_be_a_member(draft: &Draft<'_>, instance: &InstanceFacts) -> bool {
    let cluster = &draft.observed.cluster;
    let prefix = format!("{}-{}-", draft.spec.name, PoolName::control_plane());
    let plane = instance.machine.as_str().strip_prefix(&prefix).is_some_and(|ordinal| ordinal.bytes().all(|b| b.is_ascii_digit()));
    let is_member = || {
        let etcd = draft.observed.etcd.known();
        etcd.is_none_or(|e| e.members.iter().any(|m| m.name == instance.machine.as_str() || m.peer == instance.address))
    };
    cluster.bootstrapped && (plane || cluster.founders.contains(&instance.machine)) && is_member()
}
