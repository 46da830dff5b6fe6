//! Objects of the management cluster, followed or read once, as [`ClusterView`]s. The only file that knows both shapes.

use crate::view::{ClusterView, ConditionView, MachineView, PoolView, StageView, UnitView, WaitView};
use anyhow::{Context, Result};
use futures::stream::{BoxStream, StreamExt, select_all};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_crds::{AgentStatus, Cluster, ClusterStatus, Machine, NodePool, Versions, Wait};
use std::sync::Arc;
use std::time::Duration;

/// How long the first answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows everything in a namespace, or in all.
pub struct Observer {
    clusters: Store<Cluster>,
    pools: Store<NodePool>,
    machines: Store<Machine>,
    events: BoxStream<'static, Result<(), watcher::Error>>,
}

/// A store of a kind, and the stream that fills it as it is drained.
fn follow<K>(api: Api<K>) -> (Store<K>, BoxStream<'static, Result<(), watcher::Error>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api, watcher::Config::default())).default_backoff().map(|event| event.map(|_| ()));
    (store, stream.boxed())
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

impl Observer {
    /// Begins, and returns when everything that there is has been read.
    pub async fn new(client: &Client, namespace: Option<&str>) -> Result<Self> {
        let (clusters, a) = follow::<Cluster>(api(client, namespace));
        let (pools, b) = follow::<NodePool>(api(client, namespace));
        let (machines, c) = follow::<Machine>(api(client, namespace));
        let mut observer = Self { clusters, pools, machines, events: select_all([a, b, c]).boxed() };
        let filled = async {
            let (clusters, pools, machines) = (observer.clusters.clone(), observer.pools.clone(), observer.machines.clone());
            let all = async { tokio::try_join!(clusters.wait_until_ready(), pools.wait_until_ready(), machines.wait_until_ready()) };
            tokio::pin!(all);
            loop {
                tokio::select! {
                    done = &mut all => return done.map(|_| ()).context("reading from the management API"),
                    event = observer.events.next() => match event {
                        // Before anything was ever read an error is no hiccup.
                        Some(Err(e)) => return Err(explain(e)),
                        Some(Ok(())) => {}
                        None => anyhow::bail!("the management API ended the watch"),
                    },
                }
            }
        };
        tokio::time::timeout(PATIENCE, filled).await.with_context(|| {
            format!(
                "the management API does not answer within {} s (`slipway doctor` and `slipway up` look after the local one)",
                PATIENCE.as_secs()
            )
        })??;
        Ok(observer)
    }

    /// Returns after something changed, or after `at_most`. Lost connections are made anew behind it.
    pub async fn changed(&mut self, at_most: Duration) -> Result<()> {
        match tokio::time::timeout(at_most, self.events.next()).await {
            Ok(Some(Ok(()))) => {
                // What has come already belongs to the same look.
                while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(5), self.events.next()).await {}
            }
            Ok(Some(Err(error))) => tracing::debug!(%error, "watching the management API"),
            Ok(None) => anyhow::bail!("the management API ended the watch"),
            Err(_) => {}
        }
        Ok(())
    }

    /// A cluster.
    pub fn view(&self, namespace: &str, name: &str) -> Option<ClusterView> {
        let cluster = self.clusters.get(&reflector::ObjectRef::new(name).within(namespace))?;
        Some(view(&cluster, &self.pools.state(), &self.machines.state()))
    }

    /// All of them, by namespace and name.
    pub fn views(&self) -> Vec<ClusterView> {
        let (pools, machines) = (self.pools.state(), self.machines.state());
        let mut views: Vec<ClusterView> = self.clusters.state().iter().map(|c| view(c, &pools, &machines)).collect();
        views.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        views
    }
}

/// A watch's first error, with what can be done about it.
fn explain(error: watcher::Error) -> anyhow::Error {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(s)) if s.is_not_found() => crate::outcome::refused(
            "this cluster does not know Slipway's resources: is it the management cluster? (--kubeconfig and --context name another; `slipway up` makes a local one)",
        ),
        other => anyhow::Error::new(other).context("reading from the management API"),
    }
}

/// The address that a machine's agent listens on.
pub fn address(machine: &Machine) -> Option<String> {
    machine.spec.instance.as_ref().map(|i| i.address.clone())
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn conditions(conditions: &[Condition]) -> Vec<ConditionView> {
    let one = |c: &Condition| ConditionView {
        kind: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        since: Some(c.last_transition_time.0),
    };
    conditions.iter().map(one).collect()
}

fn view(cluster: &Cluster, pools: &[Arc<NodePool>], machines: &[Arc<Machine>]) -> ClusterView {
    let (namespace, name) = (cluster.namespace().unwrap_or_default(), cluster.name_any());
    let status = cluster.status.clone().unwrap_or_default();
    let mine = |m: &&Arc<Machine>| m.spec.cluster == name && m.namespace().as_deref() == Some(namespace.as_str());
    let mut records: Vec<&Arc<Machine>> = machines.iter().filter(mine).collect();
    records.sort_by_key(|m| m.spec.ordinal);
    let of_pool = |pool: &str| {
        let in_pool = records.iter().filter(|m| m.spec.pool == pool);
        in_pool.map(|m| machine(m, &status)).collect::<Vec<_>>()
    };
    let control_plane =
        PoolView { name: "cp".to_owned(), wanted: Some(i64::from(cluster.spec.control_plane.replicas)), machines: of_pool("cp") };
    let mut all = vec![control_plane];
    let object = |pool: &str| {
        pools.iter().find(|p| p.spec.cluster == name && p.spec.pool == pool && p.namespace().as_deref() == Some(namespace.as_str()))
    };
    for pool in &cluster.spec.pools {
        let wanted = pool.replicas.or_else(|| object(&pool.name).map(|p| p.spec.replicas)).map(i64::from);
        all.push(PoolView { name: pool.name.clone(), wanted, machines: of_pool(&pool.name) });
    }
    // Pools that are no longer in the Cluster and not yet gone.
    for record in &records {
        if !all.iter().any(|p| p.name == record.spec.pool) {
            all.push(PoolView { name: record.spec.pool.clone(), wanted: Some(0), machines: of_pool(&record.spec.pool) });
        }
    }
    ClusterView {
        namespace,
        name,
        version: cluster.spec.kubernetes_version.clone(),
        endpoint: status.endpoint.clone(),
        created: time(cluster.metadata.creation_timestamp.as_ref()),
        deleting: cluster.metadata.deletion_timestamp.is_some(),
        current: status.observed_generation == cluster.metadata.generation,
        conditions: conditions(&status.conditions),
        pools: all,
        decisions: status.decisions,
    }
}

fn machine(machine: &Machine, cluster: &ClusterStatus) -> MachineView {
    let name = machine.name_any();
    let status = machine.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().find(|c| c.type_ == "Ready");
    let ready = condition.is_some_and(|c| c.status == "True");
    let stage = |name: &str| status.stages.iter().find(|s| s.name == name).map(|s| s.at);
    let wait = status.waits.first().or_else(|| cluster.waits.iter().find(|w| w.machine.as_deref() == Some(name.as_str())));
    let mut stages: Vec<StageView> = status.stages.iter().map(|s| StageView { name: s.name.clone(), at: s.at }).collect();
    if let Some(created) = time(machine.metadata.creation_timestamp.as_ref())
        && !stages.iter().any(|s| s.name == "created" || s.name == "recorded")
    {
        stages.push(StageView { name: "created".to_owned(), at: created });
    }
    MachineView {
        address: address(machine),
        version: version(&machine.spec.versions),
        etcd: cluster.etcd_members.iter().find(|m| m.machine == name).map(|m| m.role.to_lowercase()),
        agent: status.agent.as_ref().and_then(build),
        ready,
        deleting: machine.metadata.deletion_timestamp.is_some(),
        created: time(machine.metadata.creation_timestamp.as_ref()),
        ready_since: stage("ready").or_else(|| condition.filter(|_| ready).map(|c| c.last_transition_time.0)),
        wait: wait.map(told).or_else(|| {
            let unready = condition.filter(|c| c.status != "True" && !c.message.is_empty());
            unready.map(|c| WaitView { what: c.message.clone(), since: Some(c.last_transition_time.0) })
        }),
        stages,
        units: units(&status),
        name,
    }
}

/// An agent's build in a word, and what became of another one.
fn build(agent: &AgentStatus) -> Option<String> {
    let own = agent.build.as_deref()?;
    Some(match (&agent.trial, &agent.refused) {
        (Some(trial), _) => format!("{own:.12}, trying {trial:.12}"),
        (None, Some(refused)) => format!("{own:.12}, refused {:.12}", refused.build),
        (None, None) => format!("{own:.12}"),
    })
}

/// The kubelet's version, and the API server's where an upgrade is between the two.
fn version(versions: &Versions) -> String {
    match versions.api_server.as_ref().filter(|api| **api != versions.kubelet) {
        Some(api) => format!("{} (API server {api})", versions.kubelet),
        None => versions.kubelet.clone(),
    }
}

/// A wait in a line: what for, what went wrong last, when it is tried again.
fn told(wait: &Wait) -> WaitView {
    let mut what = format!("waiting for {}", wait.what);
    if let Some(error) = &wait.last_error {
        what = format!("{what}; last error: {error}");
    }
    if let Some(at) = wait.next_try {
        what = format!("{what}; next try {}", at.strftime("%H:%M:%S"));
    }
    WaitView { what, since: wait.since }
}

/// Units with the probes that speak of them.
fn units(status: &slipway_crds::MachineStatus) -> Vec<UnitView> {
    let bare = |name: &str| name.strip_suffix(".service").unwrap_or(name).to_owned();
    let one = |u: &slipway_crds::UnitStatus| {
        let probe = status.probes.iter().find(|p| p.name == bare(&u.name));
        let unhealthy = probe.filter(|p| !p.healthy).map(|p| p.message.clone()).filter(|m| !m.is_empty());
        UnitView {
            name: bare(&u.name),
            state: u.state.clone(),
            healthy: probe.map(|p| p.healthy),
            message: unhealthy.unwrap_or_else(|| u.message.clone()),
            restarts: i64::from(u.restarts),
            since: probe.and_then(|p| p.since).or(u.since),
        }
    };
    status.units.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::json;

    fn cluster() -> Cluster {
        serde_json::from_value(json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster",
            "metadata": { "name": "demo", "namespace": "team", "generation": 2, "creationTimestamp": "2026-11-26T10:00:00Z" },
            "spec": { "kubernetesVersion": "v1.36.4", "provider": { "local": {} }, "controlPlane": { "replicas": 1 }, "pools": [{ "name": "workers" }] },
            "status": {
                "observedGeneration": 1,
                "waits": [{ "what": "the machine to boot", "machine": "demo-workers-0", "since": "2026-11-26T10:00:01Z", "lastError": "no route" }],
            },
        }))
        .unwrap()
    }

    fn record(name: &str, namespace: &str, pool: &str, ready: &str) -> Arc<Machine> {
        let role = if pool == "cp" { "ControlPlane" } else { "Worker" };
        Arc::new(
            serde_json::from_value(json!({
                "apiVersion": "slipway.dev/v1alpha1", "kind": "Machine",
                "metadata": { "name": name, "namespace": namespace, "creationTimestamp": "2026-11-26T10:00:00Z" },
                "spec": { "cluster": "demo", "pool": pool, "role": role, "ordinal": 0, "versions": { "kubelet": "v1.36.4", "containerd": "v2.3.4" } },
                "status": {
                    "units": [{ "name": "etcd.service", "state": "active" }],
                    "probes": [{ "name": "etcd", "healthy": false, "message": "refused" }],
                    "conditions": [{ "type": "Ready", "status": ready, "reason": "R", "message": "", "lastTransitionTime": "2026-11-26T10:00:05Z" }],
                },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn an_agents_build_is_told_in_a_word_with_what_it_tries_or_refused() {
        let said = |rest: serde_json::Value| {
            let mut agent = json!({ "build": "abcdefabcdefabcdef" });
            agent.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            build(&serde_json::from_value(agent).unwrap()).unwrap()
        };
        assert_eq!(said(json!({})), "abcdefabcdef");
        assert_eq!(said(json!({ "trial": "0123456789abcdef" })), "abcdefabcdef, trying 0123456789ab");
        assert_eq!(said(json!({ "refused": { "build": "0123456789abcdef" } })), "abcdefabcdef, refused 0123456789ab");
        assert_eq!(build(&AgentStatus::default()), None);
    }

    #[test]
    fn machines_stand_in_their_pools_with_what_they_wait_for() {
        let machines = [
            record("demo-workers-0", "team", "workers", "False"),
            record("demo-cp-0", "team", "cp", "True"),
            record("demo-cp-0", "other", "cp", "True"),
            record("demo-old-0", "team", "old", "True"),
        ];
        let pool: NodePool = serde_json::from_value(json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "NodePool", "metadata": { "name": "demo-workers", "namespace": "team" },
            "spec": { "cluster": "demo", "pool": "workers", "replicas": 4 },
        }))
        .unwrap();
        let view = view(&cluster(), &[Arc::new(pool)], &machines);
        assert!(!view.current && !view.is_ready());
        let names: Vec<_> = view.pools.iter().map(|p| (p.name.as_str(), p.wanted, p.machines.len())).collect();
        assert_eq!(names, [("cp", Some(1), 1), ("workers", Some(4), 1), ("old", Some(0), 1)]);
        let worker = &view.pools[1].machines[0];
        assert_eq!(worker.state(), "waiting for the machine to boot; last error: no route");
        let plane = &view.pools[0].machines[0];
        assert!(plane.ready);
        assert_eq!(
            (plane.units[0].name.as_str(), plane.units[0].healthy, plane.units[0].message.as_str()),
            ("etcd", Some(false), "refused")
        );
    }
}
