//! The cloud's side: network, load balancer, instances.

use super::{Refused, check, etcd_now, record};
use crate::happenings::silence;
use crate::{Action, CloudFacts, Endpoint, EtcdFacts, Fact, InstanceFacts, InstanceState, LoadBalancerFacts, Observed, may_be_deleted};
use jiff::Timestamp;
use slipway_model::{ClusterSpec, MachineName};
use std::net::Ipv4Addr;

fn cloud_mut(world: &mut Observed) -> Result<&mut CloudFacts, Refused> {
    world.cloud.known_mut().ok_or(Refused("the inventory is not known"))
}

/// Whether a machine's instance runs and does what it should. One that runs with a `trouble` hangs: nothing on it answers.
pub(crate) fn works(world: &Observed, machine: &MachineName) -> bool {
    let runs = |i: &InstanceFacts| i.machine == *machine && i.state == InstanceState::Running && i.trouble.is_none();
    world.cloud.known().is_some_and(|cloud| match record(world, machine) {
        Some(record) => cloud.instance(record).is_some_and(runs),
        None => cloud.instances.iter().any(runs),
    })
}

/// What the cluster's machines share.
pub(super) fn shared(world: &mut Observed, action: &Action) -> Result<(), Refused> {
    let living = world.cluster.deleting.is_none();
    let cloud = cloud_mut(world)?;
    match action {
        Action::EnsureNetwork => {
            check(living, "the Cluster is being deleted")?;
            cloud.network = true;
        }
        Action::EnsureLoadBalancer { port } => {
            check(living, "the Cluster is being deleted")?;
            check(cloud.network, "there is no network")?;
            let endpoint = Endpoint { host: "198.18.0.2".into(), port: *port };
            cloud.load_balancer.get_or_insert(LoadBalancerFacts { endpoint, targets: vec![], ready: false, trouble: None });
        }
        Action::SetTargets { instances } => {
            let balancer = cloud.load_balancer.as_mut().ok_or(Refused("there is no load balancer"))?;
            balancer.targets.clone_from(instances);
        }
        Action::DeleteLoadBalancer => cloud.load_balancer = None,
        Action::DeleteNetwork => {
            check(cloud.instances.is_empty() && cloud.load_balancer.is_none(), "something is in the network")?;
            cloud.network = false;
        }
        _ => {}
    }
    Ok(())
}

/// One instance.
pub(super) fn instance(spec: &ClusterSpec, world: &mut Observed, action: &Action, now: Timestamp) -> Result<(), Refused> {
    let living = world.cluster.deleting.is_none();
    match action {
        Action::CreateInstance { machine, uid } => {
            let record = record(world, machine).ok_or(Refused("no such Machine"))?;
            check(living && record.uid == *uid && record.deleting.is_none() && record.instance.is_none(), "the Machine is not to be made")?;
            create(world, machine, uid)
        }
        Action::StartInstance { instance, .. } => {
            if let Some(i) = cloud_mut(world)?.instances.iter_mut().find(|i| i.id == *instance && i.state == InstanceState::Stopped) {
                i.state = InstanceState::Pending;
            }
            Ok(())
        }
        Action::DeleteInstance { machine, instance } => {
            let leaving = || {
                let record = record(world, machine)?;
                let node = world.nodes.known()?.iter().find(|n| n.machine.as_ref() == Some(machine));
                let timeout = world.pools.known()?.iter().find(|p| p.name == record.pool).and_then(|p| p.drain_timeout_seconds);
                let answers = world.agents.get(machine).is_some_and(|a| a.heard().is_some());
                Some(may_be_deleted(spec, world.cluster.bootstrapped, record, timeout, node, answers, &etcd_now(world), now))
            };
            check(!living || leaving() == Some(true), "the Machine is not being taken away, or still in use")?;
            remove(world, machine, instance, now)
        }
        Action::DeleteStrayInstance { machine, machine_uid, instance } => {
            check(record(world, machine).is_none_or(|m| m.uid != *machine_uid), "there is a record")?;
            check(!world.cluster.bootstrapped || !may_be_a_member(spec, world, machine, instance), "a member of etcd may be on it")?;
            remove(world, machine, instance, now)
        }
        _ => Ok(()),
    }
}

/// Whether an instance without a record may hold a part of etcd's quorum.
fn may_be_a_member(spec: &ClusterSpec, world: &Observed, machine: &MachineName, instance: &str) -> bool {
    let plane = world.cluster.founders.contains(machine) || machine.as_str().starts_with(&format!("{}-cp-", spec.name));
    let address = world.cloud.known().and_then(|c| c.instances.iter().find(|i| i.id == instance)).map(|i| i.address);
    let lists = |etcd: &EtcdFacts| etcd.members.iter().any(|m| m.name == machine.as_str() || Some(m.peer) == address);
    plane
        && match etcd_now(world) {
            Fact::Known(etcd) => lists(&etcd),
            Fact::Unknown { .. } => true,
        }
}

/// The cloud's side of a create call, which comes through even where nobody wants it any more: it is keyed by the uid and needs the network.
pub(super) fn create(world: &mut Observed, machine: &MachineName, uid: &str) -> Result<(), Refused> {
    let again = record(world, machine).is_some_and(|m| m.uid == uid && m.instance.is_some());
    let cloud = cloud_mut(world)?;
    check(cloud.network, "there is no network")?;
    if cloud.of(uid).is_none() {
        let host = (10..=u8::MAX).find(|n| cloud.instances.iter().all(|i| i.address.octets()[3] != *n)).unwrap_or(u8::MAX);
        let zone = emptiest_zone(cloud);
        cloud.instances.push(InstanceFacts {
            id: if again { format!("i-{uid}-again") } else { format!("i-{uid}") },
            machine_uid: uid.to_owned(),
            machine: machine.clone(),
            state: InstanceState::Pending,
            address: Ipv4Addr::new(198, 18, 0, host),
            zone,
            trouble: None,
        });
        cloud.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(())
}

/// Where the cloud makes the next one, if it has zones: the emptiest of those that it uses.
fn emptiest_zone(cloud: &CloudFacts) -> Option<String> {
    let zones = || cloud.instances.iter().filter_map(|i| i.zone.as_ref());
    zones().min_by_key(|z| (zones().filter(|other| other == z).count(), (*z).clone())).cloned()
}

fn remove(world: &mut Observed, machine: &MachineName, instance: &str, now: Timestamp) -> Result<(), Refused> {
    if let Some(i) = cloud_mut(world)?.instances.iter_mut().find(|i| i.id == instance) {
        i.state = InstanceState::Deleting;
        silence(world, machine, now);
    }
    Ok(())
}
