//! The world as the operator last wrote it into its objects' statuses, for those who cannot ask it: no machine and no cloud is asked. Where the statuses
//! are not true, a forecast from them is one of the world that they describe.

use super::renders_otherwise;
use crate::records::{self, RecordError};
use jiff::Timestamp;
use kube::ResourceExt;
use slipway_crds::{Cluster, EtcdMember, Machine, MachineRole, MachineStatus, NodePool};
use slipway_model::{ClusterSpec, MachineName, PlanDigest};
use slipway_plan::{
    AgentBuild, AgentFacts, AgentState, Certificates, CloudFacts, EtcdFacts, Fact, InstanceFacts, InstanceState, LoadBalancerFacts,
    MachineRecord, MachineSecrets, MemberFacts, MemberId, MemberStatus, NodeFacts, Observed, ProbeFacts, RefusedBuild, SecretFacts,
    Trouble,
};

/// What is there of a cluster before the change.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// The Cluster object, if there is one.
    pub cluster: Option<Cluster>,
    /// Its NodePools.
    pub pools: Vec<NodePool>,
    /// Its Machines.
    pub machines: Vec<Machine>,
}

/// The world that these records describe, as it is before `spec` is applied.
pub(super) fn observed(spec: &ClusterSpec, present: &Present, now: Timestamp) -> Result<Observed, RecordError> {
    let Some(cluster) = &present.cluster else {
        return Ok(Observed::nothing("to-be", now));
    };
    let mut world = Observed::nothing(cluster.uid().unwrap_or_default(), now);
    world.cluster = records::cluster(cluster);
    world.wanted_agent = cluster.status.as_ref().and_then(|s| s.agent_build.clone());
    world.pools = Fact::Known(present.pools.iter().map(records::pool).collect::<Result<_, _>>()?);
    let machines: Vec<(MachineRecord, &Machine)> =
        present.machines.iter().map(|m| Ok((records::machine(m)?, m))).collect::<Result<_, RecordError>>()?;
    for (record, machine) in &machines {
        let status = machine.status.clone().unwrap_or_default();
        if let Some(facts) = agent(record, &status, now) {
            if let AgentFacts::Heard(AgentState { accepted: Some(accepted), .. }) = &facts {
                world.wanted.insert(record.name.clone(), accepted.clone());
            }
            world.agents.insert(record.name.clone(), facts);
        }
    }
    if records::spec(cluster).ok().is_none_or(|before| renders_otherwise(&before, spec)) {
        super::render_otherwise(&mut world);
    }
    world.secrets = Fact::Known(secrets(&world, &machines));
    world.cloud = Fact::Known(cloud(&world, &machines));
    if world.cluster.bootstrapped {
        world.etcd = Fact::Known(etcd(cluster, &machines));
        world.nodes = Fact::Known(machines.iter().filter_map(|(record, machine)| node(record, machine, now)).collect());
        // Applied once there was anything to apply them to; they are the operator's own business otherwise.
        world.addons = Fact::Known(Some(world.wanted_addons.clone()));
    }
    world.machines = Fact::Known(machines.into_iter().map(|(record, _)| record).collect());
    Ok(world)
}

fn agent(record: &MachineRecord, status: &MachineStatus, now: Timestamp) -> Option<AgentFacts> {
    if !record.claimed {
        return None;
    }
    let said = status.agent.clone().unwrap_or_default();
    let probes = status
        .probes
        .iter()
        .map(|p| (p.name.clone(), ProbeFacts { healthy: p.healthy, message: p.message.clone(), since: p.since.unwrap_or(now) }));
    let state = AgentState {
        accepted: said.accepted_digest.map(PlanDigest),
        applied: said.applied_digest.map(PlanDigest),
        applying: said.applying.unwrap_or_default(),
        trouble: said.trouble.map(|message| Trouble { message, since: now }),
        failing_units: status
            .units
            .iter()
            .filter(|u| u.state == "failed")
            .map(|u| (u.name.clone(), Trouble { message: u.message.clone(), since: u.since.unwrap_or(now) }))
            .collect(),
        probes: probes.collect(),
        disk_free: None,
        certificate_expires: said.certificate_expires,
        build: said.build.map(|sha256| AgentBuild { sha256, trial: said.trial, refused: said.refused.map(|r| refused(r, now)) }),
    };
    Some(match said.silent_since {
        Some(since) => AgentFacts::Silent { since, error: "it does not answer".to_owned(), last: Some(state) },
        None => AgentFacts::Heard(state),
    })
}

fn refused(told: slipway_crds::RefusedBuild, now: Timestamp) -> RefusedBuild {
    RefusedBuild { sha256: told.build, why: told.why, since: told.since.unwrap_or(now) }
}

/// Members as the status tells them, by the addresses of their machines. One without a machine has no address here and is left out.
fn etcd(cluster: &Cluster, machines: &[(MachineRecord, &Machine)]) -> EtcdFacts {
    let told = cluster.status.as_ref().map(|s| s.etcd_members.clone()).unwrap_or_default();
    let member = |told: &EtcdMember| {
        let (record, _) = machines.iter().find(|(r, _)| r.name.as_str() == told.machine)?;
        let version = told.version.as_deref().and_then(|v| v.parse().ok());
        let version = version.or(record.versions.control_plane.map(|v| v.etcd))?;
        let status = MemberStatus { version, leader: told.role == "Leader", in_sync: true, healthy_since: record.created, db_bytes: 0 };
        Some(MemberFacts {
            id: MemberId(u64::from_str_radix(&told.id, 16).ok()?),
            name: record.name.to_string(),
            peer: record.instance.as_ref()?.address,
            learner: told.role == "Learner",
            status: if told.role == "Silent" { Fact::unknown("it does not answer", record.created) } else { Fact::Known(status) },
        })
    };
    EtcdFacts { members: told.iter().filter_map(member).collect(), alarms: vec![] }
}

fn secrets(world: &Observed, machines: &[(MachineRecord, &Machine)]) -> SecretFacts {
    let of = |record: &MachineRecord| MachineSecrets {
        bootstrap: !record.claimed && record.instance.is_some(),
        certificates: if record.claimed { Certificates::Good } else { Certificates::Missing },
        pressing: false,
    };
    SecretFacts {
        pki: world.cluster.finalizer,
        kubeconfig: world.cluster.bootstrapped,
        machines: machines.iter().map(|(record, _)| (record.name.clone(), of(record))).collect(),
    }
}

fn cloud(world: &Observed, machines: &[(MachineRecord, &Machine)]) -> CloudFacts {
    let instances: Vec<InstanceFacts> = machines.iter().filter_map(|(record, machine)| instance(record, machine)).collect();
    let mut targets: Vec<String> = machines
        .iter()
        .filter(|(_, m)| m.spec.role == MachineRole::ControlPlane && !m.spec.retiring)
        .filter_map(|(r, _)| Some(r.instance.clone()?.id))
        .collect();
    targets.sort();
    CloudFacts {
        network: world.cluster.endpoint.is_some() || !instances.is_empty(),
        load_balancer: world.cluster.endpoint.clone().map(|endpoint| LoadBalancerFacts { endpoint, targets, ready: true, trouble: None }),
        instances,
    }
}

fn instance(record: &MachineRecord, machine: &Machine) -> Option<InstanceFacts> {
    let recorded = record.instance.as_ref()?;
    let said = machine.status.as_ref().and_then(|s| s.instance_state.as_deref());
    // A recorded instance of which nothing is said is gone, if anything was ever said.
    let state = match said {
        Some("Pending") => InstanceState::Pending,
        Some("Stopped") => InstanceState::Stopped,
        Some("Deleting") => InstanceState::Deleting,
        Some(_) => InstanceState::Running,
        None if machine.status.is_some() && record.claimed => return None,
        None => InstanceState::Running,
    };
    Some(InstanceFacts {
        id: recorded.id.clone(),
        machine_uid: record.uid.clone(),
        machine: record.name.clone(),
        state,
        address: recorded.address,
        zone: None,
        trouble: None,
    })
}

fn node(record: &MachineRecord, machine: &Machine, now: Timestamp) -> Option<NodeFacts> {
    let status = machine.status.as_ref()?;
    let name = status.node_name.clone()?;
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
    let machine: MachineName = record.name.clone();
    Some(NodeFacts {
        uid: format!("node of {machine}"),
        name,
        machine: Some(machine),
        ready: ready.is_some_and(|c| c.status == "True"),
        since: ready.map_or(now, |c| c.last_transition_time.0),
        message: ready.filter(|c| c.status != "True").map(|c| c.message.clone()).unwrap_or_default(),
        unschedulable: false,
        cordoned: None,
        kubelet: status.kubernetes_version.as_deref().and_then(|v| v.parse().ok()),
        conditions: vec![],
        labels_ok: true,
        pods: Fact::Known(Vec::new()),
        volumes: Fact::Known(Vec::new()),
    })
}
