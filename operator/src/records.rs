//! Between the API's objects and the planner's records: the only place that knows what the fields of both are called.

use ipnet::Ipv4Net;
use jiff::Timestamp;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use slipway_crds as crds;
use slipway_model::{
    Amount, ClusterSpec, ComponentVersion, ControlPlane, ControlPlaneVersions, HealthCheck, KubernetesVersion, MachineName,
    MachineVersions, Maintenance, Network, NodeConditionLimit, NodeVersions, Pace, Part, Pool, PoolName, PoolUpgrade, Provider, Taint,
    Window,
};
use slipway_plan::{
    ClusterFacts, Endpoint, InstanceRef, JoinRecord, MachineRecord, MemberId, Ordinals, PoolRecord, StoppedRoll, UpgradeRecord,
    VersionChange,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::artifacts::{ArtifactError, Program, target};
use crate::context::FINALIZER;

/// On a Machine: it is replaced when it fails, but stays as it is for a look.
pub const KEEP: &str = "slipway.dev/keep";

/// A field that says something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct RecordError {
    /// Kind and name.
    pub object: String,
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

fn parsed<T: std::str::FromStr>(object: &str, field: &'static str, text: &str) -> Result<T, RecordError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| RecordError { object: object.to_owned(), field, problem: e.to_string() })
}

/// The spec of a Cluster in the model's types.
pub fn spec(cluster: &crds::Cluster) -> Result<ClusterSpec, RecordError> {
    let object = format!("Cluster {}", cluster.name_any());
    let wrong = |field: &'static str, problem: String| RecordError { object: object.clone(), field, problem };
    let spec = &cluster.spec;
    let version: KubernetesVersion = parsed(&object, "spec.kubernetesVersion", &spec.kubernetes_version)?;
    let held = |field, text: &Option<String>| text.as_deref().map(|t| parsed::<ComponentVersion>(&object, field, t)).transpose();
    let etcd = held("spec.componentVersions.etcd", &spec.component_versions.etcd)?;
    let containerd = held("spec.componentVersions.containerd", &spec.component_versions.containerd)?;
    let versions = target(version, etcd, containerd).map_err(|e| wrong("spec.kubernetesVersion", e.to_string()))?;
    let pool = |p| pool_spec(&object, p, version, |v| target(v, etcd, containerd));
    let pools = spec.pools.iter().map(pool).collect::<Result<Vec<_>, _>>()?;
    if !matches!(spec.control_plane.replicas, 1 | 3 | 5 | 7) {
        return Err(wrong("spec.controlPlane.replicas", format!("{} is not 1, 3, 5 or 7", spec.control_plane.replicas)));
    }
    let pods: Ipv4Net = parsed(&object, "spec.network.podCIDR", &spec.network.pod_cidr)?;
    let services: Ipv4Net = parsed(&object, "spec.network.serviceCIDR", &spec.network.service_cidr)?;
    let nodes = u64::from(spec.control_plane.replicas) + pools.iter().map(|p| u64::from(p.replicas.unwrap_or(1))).sum::<u64>();
    let network = Network::new(pods, services, spec.network.kube_proxy_mode, nodes).map_err(|e| wrong("spec.network", e.to_string()))?;
    Ok(ClusterSpec {
        name: parsed(&object, "metadata.name", &cluster.name_any())?,
        kubernetes_version: version,
        provider: match &spec.provider {
            crds::Provider::Local(crds::LocalProvider {}) => Provider::Local {},
        },
        network,
        control_plane: ControlPlane {
            replicas: spec.control_plane.replicas,
            versions,
            strategy: spec.control_plane.upgrade.strategy,
            allow: spec.control_plane.upgrade.allow,
            revision: revision(&spec.control_plane.replace_request),
        },
        pools,
        deletion_policy: spec.deletion_policy,
        maintenance: maintenance(&object, &spec.maintenance)?,
        ignored_apis: spec.upgrade.ignore_removed_apis.iter().cloned().collect(),
        pace: Pace::LOCAL,
    })
}

fn pool_spec(
    object: &str,
    pool: &crds::Pool,
    cluster: KubernetesVersion,
    target: impl Fn(KubernetesVersion) -> Result<MachineVersions, ArtifactError>,
) -> Result<Pool, RecordError> {
    let field = "spec.pools[].kubernetesVersion";
    let version = pool.kubernetes_version.as_deref().map(|text| parsed(object, field, text)).transpose()?.unwrap_or(cluster);
    let versions = target(version).map_err(|e| RecordError { object: object.to_owned(), field, problem: e.to_string() })?;
    Ok(Pool {
        name: parsed(object, "spec.pools[].name", &pool.name)?,
        replicas: pool.replicas,
        labels: pool.labels.clone(),
        taints: pool.taints.iter().map(|t| Taint { key: t.key.clone(), value: t.value.clone(), effect: t.effect }).collect(),
        drain_timeout_seconds: pool.drain_timeout_seconds,
        versions: MachineVersions { control_plane: None, ..versions },
        upgrade: PoolUpgrade {
            strategy: pool.upgrade.strategy,
            max_surge: amount(object, "spec.pools[].upgrade.maxSurge", &pool.upgrade.max_surge)?,
            max_unavailable: amount(object, "spec.pools[].upgrade.maxUnavailable", &pool.upgrade.max_unavailable)?,
        },
        allow: pool.upgrade.allow,
        revision: revision(&pool.replace_request),
        health: HealthCheck {
            agent_silent_seconds: pool.health_check.agent_silent_seconds,
            node_conditions: pool.health_check.node_conditions.iter().map(condition_limit).collect(),
            max_replacing: amount(object, "spec.pools[].healthCheck.maxReplacing", &pool.health_check.max_replacing)?,
        },
    })
}

fn condition_limit(condition: &crds::NodeCondition) -> NodeConditionLimit {
    NodeConditionLimit { kind: condition.kind.clone(), status: condition.status.clone(), seconds: condition.seconds }
}

fn amount(object: &str, field: &'static str, amount: &crds::Amount) -> Result<Amount, RecordError> {
    let wrong = |text: &str| RecordError { object: object.to_owned(), field, problem: format!("{text:?} is no percentage such as 25%") };
    match amount {
        crds::Amount::Int(count) => Ok(Amount::Count(*count)),
        crds::Amount::String(text) => {
            let percent = text.strip_suffix('%').and_then(|t| t.parse().ok()).filter(|p| *p <= 100).ok_or_else(|| wrong(text))?;
            Ok(Amount::Percent(percent))
        }
    }
}

fn maintenance(object: &str, maintenance: &crds::Maintenance) -> Result<Maintenance, RecordError> {
    let window = |w: &crds::Window| {
        let wrong = || RecordError {
            object: object.to_owned(),
            field: "spec.maintenance.windows[].start",
            problem: format!("{:?} is no time of day such as 02:30", w.start),
        };
        let (hours, minutes) = w.start.split_once(':').ok_or_else(wrong)?;
        let (hours, minutes): (u32, u32) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
        Ok(Window { days: w.days.clone(), start: hours * 60 + minutes, minutes: w.minutes })
    };
    let windows = maintenance.windows.iter().map(window).collect::<Result<_, RecordError>>()?;
    Ok(Maintenance { paused: maintenance.paused, windows, healing: maintenance.healing })
}

/// Of what only a new machine can bring. On machines of one host that is nothing but a person's request.
#[must_use]
pub fn revision(replace_request: &str) -> String {
    if replace_request.is_empty() {
        return String::new();
    }
    hex::encode(Sha256::digest(replace_request)).chars().take(16).collect()
}

/// Versions in the planner's words.
pub fn versions(object: &str, versions: &crds::Versions) -> Result<MachineVersions, RecordError> {
    let control_plane = match (&versions.etcd, &versions.api_server, &versions.controllers) {
        (Some(etcd), Some(api_server), Some(controllers)) => Some(ControlPlaneVersions {
            etcd: parsed(object, "spec.versions.etcd", etcd)?,
            api_server: parsed(object, "spec.versions.apiServer", api_server)?,
            controllers: parsed(object, "spec.versions.controllers", controllers)?,
        }),
        _ => None,
    };
    Ok(MachineVersions {
        control_plane,
        node: NodeVersions {
            kubelet: parsed(object, "spec.versions.kubelet", &versions.kubelet)?,
            containerd: parsed(object, "spec.versions.containerd", &versions.containerd)?,
        },
    })
}

/// Versions as objects carry them.
#[must_use]
pub fn versions_object(versions: &MachineVersions) -> crds::Versions {
    crds::Versions {
        etcd: versions.control_plane.map(|v| v.etcd.to_string()),
        api_server: versions.control_plane.map(|v| v.api_server.to_string()),
        controllers: versions.control_plane.map(|v| v.controllers.to_string()),
        kubelet: versions.node.kubelet.to_string(),
        containerd: versions.node.containerd.to_string(),
    }
}

/// Builds of our own programs, as a Machine keeps them.
#[must_use]
pub fn programs(machine: &crds::Machine) -> Vec<Program> {
    let of = |p: &crds::Program| Program { name: p.name.clone(), sha256: p.sha256.clone(), size: p.size };
    machine.spec.programs.iter().map(of).collect()
}

/// The same, as objects carry them.
#[must_use]
pub fn programs_object(programs: &[Program]) -> Vec<crds::Program> {
    programs.iter().map(|p| crds::Program { name: p.name.clone(), sha256: p.sha256.clone(), size: p.size }).collect()
}

/// Where the founders were when etcd first had a quorum; empty before.
#[must_use]
pub fn founders(cluster: &crds::Cluster) -> BTreeMap<MachineName, Ipv4Addr> {
    let recorded = cluster.status.as_ref().and_then(|s| s.recorded.as_ref());
    let of = |(name, address): (&String, &String)| Some((name.parse().ok()?, address.parse().ok()?));
    recorded.map(|r| r.founder_addresses.iter().filter_map(of).collect()).unwrap_or_default()
}

/// A Cluster beside its spec.
#[must_use]
pub fn cluster(cluster: &crds::Cluster) -> ClusterFacts {
    let recorded = cluster.status.as_ref().and_then(|s| s.recorded.clone()).unwrap_or_default();
    ClusterFacts {
        uid: cluster.uid().unwrap_or_default(),
        created: created(cluster),
        deleting: cluster.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        finalizer: cluster.finalizers().iter().any(|f| f == FINALIZER),
        endpoint: recorded.endpoint.as_ref().map(endpoint),
        founders: names(&recorded.founders),
        bootstrapped: recorded.bootstrapped,
        ordinals: ordinals(&recorded.ordinals),
        upgrade: recorded.upgrade.as_ref().and_then(|u| upgrade(u).ok()),
    }
}

/// An upgrade in the planner's words. What is not understood was not written by the operator.
pub fn upgrade(recorded: &crds::Upgrade) -> Result<UpgradeRecord, RecordError> {
    let object = "status.recorded.upgrade";
    let stopped = |s: &crds::Stopped| {
        Ok(StoppedRoll {
            machine: parsed(object, "stopped.machine", &s.machine)?,
            part: match s.part.as_str() {
                "etcd" => Part::Etcd,
                "apiServer" => Part::ApiServer,
                "controllers" => Part::Controllers,
                _ => Part::Node,
            },
            why: s.why.clone(),
            since: s.since,
        })
    };
    Ok(UpgradeRecord {
        from: versions(object, &recorded.from)?,
        to: versions(object, &recorded.to)?,
        snapshot: recorded.snapshot.clone(),
        since: recorded.since,
        stopped: recorded.stopped.as_ref().map(stopped).transpose()?,
    })
}

/// An upgrade as objects carry it.
#[must_use]
pub fn upgrade_object(upgrade: &UpgradeRecord) -> crds::Upgrade {
    let part = |part| match part {
        Part::Etcd => "etcd",
        Part::ApiServer => "apiServer",
        Part::Controllers => "controllers",
        Part::Node => "node",
    };
    let stopped = |s: &StoppedRoll| crds::Stopped {
        machine: s.machine.to_string(),
        part: part(s.part).to_owned(),
        why: s.why.clone(),
        since: s.since,
    };
    crds::Upgrade {
        from: versions_object(&upgrade.from),
        to: versions_object(&upgrade.to),
        snapshot: upgrade.snapshot.clone(),
        since: upgrade.since,
        stopped: upgrade.stopped.as_ref().map(stopped),
    }
}

/// Names that the operator wrote itself: what is none was not written by it, and says nothing.
pub fn names(texts: &[String]) -> Vec<MachineName> {
    texts.iter().filter_map(|n| n.parse().ok()).collect()
}

/// An endpoint in the planner's words.
pub fn endpoint(recorded: &crds::Endpoint) -> Endpoint {
    Endpoint { host: recorded.host.clone(), port: recorded.port }
}

/// Ordinals in the planner's words.
pub fn ordinals(recorded: &BTreeMap<String, crds::Ordinals>) -> BTreeMap<PoolName, Ordinals> {
    let of = |(pool, o): (&String, &crds::Ordinals)| {
        let pool = if pool == PoolName::control_plane().as_str() { PoolName::control_plane() } else { pool.parse().ok()? };
        Some((pool, Ordinals { settled: o.settled, next: o.next }))
    };
    recorded.iter().filter_map(of).collect()
}

/// A Machine.
pub fn machine(machine: &crds::Machine) -> Result<MachineRecord, RecordError> {
    let (object, spec) = (format!("Machine {}", machine.name_any()), &machine.spec);
    let instance = spec.instance.as_ref().map(|i| {
        let address: Ipv4Addr = parsed(&object, "spec.instance.address", &i.address)?;
        Ok(InstanceRef { id: i.id.clone(), address, zone: i.zone.clone() })
    });
    Ok(MachineRecord {
        name: parsed(&object, "metadata.name", &machine.name_any())?,
        uid: machine.uid().unwrap_or_default(),
        pool: parsed(&object, "spec.pool", &spec.pool)?,
        ordinal: spec.ordinal,
        versions: versions(&object, &spec.versions)?,
        changed: spec.changed.as_ref().map(|c| Ok(VersionChange { from: versions(&object, &c.from)?, at: c.at })).transpose()?,
        revision: spec.revision.clone(),
        join: spec.join.as_ref().map(|j| join(&object, j)).transpose()?,
        retiring: spec.retiring,
        kept: machine.annotations().contains_key(KEEP),
        created: created(machine),
        deleting: machine.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        instance: instance.transpose()?,
        claimed: spec.agent_key.is_some(),
    })
}

/// How a member joins, in the planner's words.
fn join(object: &str, join: &crds::Join) -> Result<JoinRecord, RecordError> {
    let wrong = |problem: &str| RecordError { object: object.to_owned(), field: "spec.join.member", problem: problem.to_owned() };
    let member = u64::from_str_radix(&join.member, 16).map_err(|_| wrong("is no hexadecimal number"))?;
    let of = |(name, address): (&String, &String)| {
        Ok((parsed(object, "spec.join.members", name)?, parsed(object, "spec.join.members", address)?))
    };
    Ok(JoinRecord { member: MemberId(member), members: join.members.iter().map(of).collect::<Result<_, RecordError>>()? })
}

/// A NodePool.
pub fn pool(pool: &crds::NodePool) -> Result<PoolRecord, RecordError> {
    let object = format!("NodePool {}", pool.name_any());
    Ok(PoolRecord {
        name: parsed(&object, "spec.pool", &pool.spec.pool)?,
        uid: pool.uid().unwrap_or_default(),
        replicas: pool.spec.replicas,
        deleting: pool.metadata.deletion_timestamp.is_some(),
        drain_timeout_seconds: pool.spec.drain_timeout_seconds,
    })
}

fn created(object: &impl ResourceExt) -> Timestamp {
    object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Name of a pool's NodePool object.
#[must_use]
pub fn pool_object(cluster: &str, pool: &PoolName) -> String {
    format!("{cluster}-{pool}")
}
