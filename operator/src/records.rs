//! Between the API's objects and the planner's records: the only place that knows what the fields of both are called.

use ipnet::Ipv4Net;
use jiff::Timestamp;
use kube::ResourceExt;
use slipway_crds as crds;
use slipway_model::{ClusterSpec, ComponentVersions, ControlPlane, MachineName, Network, Pool, PoolName, Provider, Taint};
use slipway_plan::{ClusterFacts, Endpoint, InstanceRef, MachineRecord, Ordinals, PoolRecord};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::context::FINALIZER;

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
    let pools = spec.pools.iter().map(|p| pool_spec(&object, p)).collect::<Result<Vec<_>, _>>()?;
    if !matches!(spec.control_plane.replicas, 1 | 3 | 5 | 7) {
        return Err(wrong("spec.controlPlane.replicas", format!("{} is not 1, 3, 5 or 7", spec.control_plane.replicas)));
    }
    let pods: Ipv4Net = parsed(&object, "spec.network.podCIDR", &spec.network.pod_cidr)?;
    let services: Ipv4Net = parsed(&object, "spec.network.serviceCIDR", &spec.network.service_cidr)?;
    let nodes = u64::from(spec.control_plane.replicas) + pools.iter().map(|p| u64::from(p.replicas.unwrap_or(1))).sum::<u64>();
    let network = Network::new(pods, services, spec.network.kube_proxy_mode, nodes).map_err(|e| wrong("spec.network", e.to_string()))?;
    Ok(ClusterSpec {
        name: parsed(&object, "metadata.name", &cluster.name_any())?,
        kubernetes_version: parsed(&object, "spec.kubernetesVersion", &spec.kubernetes_version)?,
        provider: match &spec.provider {
            crds::Provider::Local(crds::LocalProvider {}) => Provider::Local {},
        },
        network,
        control_plane: ControlPlane { replicas: spec.control_plane.replicas },
        pools,
        component_versions: ComponentVersions {
            etcd: spec.component_versions.etcd.clone(),
            containerd: spec.component_versions.containerd.clone(),
        },
        deletion_policy: spec.deletion_policy,
    })
}

fn pool_spec(object: &str, pool: &crds::Pool) -> Result<Pool, RecordError> {
    Ok(Pool {
        name: parsed(object, "spec.pools[].name", &pool.name)?,
        replicas: pool.replicas,
        labels: pool.labels.clone(),
        taints: pool.taints.iter().map(|t| Taint { key: t.key.clone(), value: t.value.clone(), effect: t.effect }).collect(),
        drain_timeout_seconds: pool.drain_timeout_seconds,
    })
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
        Ok(InstanceRef { id: i.id.clone(), address })
    });
    Ok(MachineRecord {
        name: parsed(&object, "metadata.name", &machine.name_any())?,
        uid: machine.uid().unwrap_or_default(),
        pool: parsed(&object, "spec.pool", &spec.pool)?,
        ordinal: spec.ordinal,
        version: parsed(&object, "spec.kubernetesVersion", &spec.kubernetes_version)?,
        created: created(machine),
        deleting: machine.metadata.deletion_timestamp.as_ref().map(|t| t.0),
        instance: instance.transpose()?,
        claimed: spec.agent_key.is_some(),
    })
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
