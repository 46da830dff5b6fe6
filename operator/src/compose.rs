//! From what was seen to what is planned from: opens the connections that are worth having, reads keys that changed, renders machines, and puts all of it into
//! the planner's words. No effects.

use crate::agents::{Hearing, Peer};
use crate::api::call;
use crate::artifacts::AGENT;
use crate::context::{API_PORT, Context, LABEL_MACHINE};
use crate::etcd::{EtcdLink, MemberHost, Pace};
use crate::execute::{Page, Scene, SceneMachine, renewal, secrets};
use crate::keys::Keys;
use crate::memory::Memory;
use crate::observe::{self, CloudWatch, PreflightLook, Seen};
use crate::workload::{Drains, Picture, WorkloadLink};
use crate::{records, render};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use slipway_agent_api::AGENT_PORT;
use slipway_model::{ClusterSpec, MachineName, PlanDigest};
use slipway_plan::{
    AgentFacts, Certificates, ClusterFacts, EtcdFacts, Fact, InstanceRef, InstanceState, MachineRecord, MachineSecrets, Observed,
    PROBE_ETCD, PreflightFacts, SecretFacts,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A pass's world: for the planner, for effects, for the report.
pub struct World {
    /// As it was read.
    pub seen: Seen,
    /// In the planner's words.
    pub observed: Observed,
    /// For effects.
    pub scene: Arc<Scene>,
}

/// See the module.
pub async fn compose(context: &Arc<Context>, memory: &mut Memory, seen: Seen, spec: ClusterSpec, now: Timestamp) -> World {
    let facts = records::cluster(&seen.cluster);
    // A record that is not understood is there all the same: the list is known as a whole or not at all.
    let records = understood(seen.machines.iter().map(records::machine), memory, "machines", now);
    let pools = understood(seen.pools.iter().map(records::pool), memory, "pools", now);
    let machines = records.known().cloned().unwrap_or_default();
    let keys = keys(context, memory, &seen, now).await;
    let scene = Scene {
        cluster: memory.cluster.clone(),
        key: seen.key.clone(),
        endpoint: facts.endpoint.clone(),
        founders: founders(&facts, &machines, &seen),
        machines: machines.iter().map(|m| (m.name.clone(), scene_machine(m, &spec, &seen))).collect(),
        spec: Arc::new(spec),
        keys: keys.known().cloned().flatten(),
        connections: BTreeMap::new(),
        workload: None,
        etcd: None,
        accepted: BTreeMap::new(),
        settled: BTreeSet::new(),
        book: Mutex::new(Some(Page::of(&seen.cluster))),
    };
    listen(context, memory, &scene, &seen, &machines);
    look(context, memory, &scene, &machines).await;
    let scene =
        Scene { connections: memory.agents.connections(), workload: memory.workload.as_ref().map(|(_, link)| link.door()), ..scene };
    let etcd = ask_etcd(memory, &scene, &facts, &seen, &machines, now);
    let scene = Scene { etcd: memory.etcd.as_ref().map(|(_, link)| link.door()), ..scene };
    let preflight = preflight(context, memory, &scene, &facts, &machines, now).await;
    let agents: BTreeMap<MachineName, AgentFacts> =
        machines.iter().filter_map(|m| Some((m.name.clone(), observe::agents::facts(seen.hearings.get(&m.uid)?.clone())))).collect();
    let accepted = agents.iter().filter_map(|(name, a)| Some((name.clone(), a.heard()?.accepted.clone()?))).collect();
    let scene = Scene { accepted, ..scene };
    let secrets = match &keys {
        Fact::Known(_) if facts.deleting.is_some() => Fact::Known(left_secrets(&scene, &seen.secrets)),
        Fact::Known(_) => Fact::Known(secret_facts(&scene, &seen.secrets, now)),
        Fact::Unknown { why, since } => Fact::unknown(why.clone(), *since),
    };
    let wanted = digests(context, memory, &scene, &seen, secrets.known()).await;
    let scene = Scene { settled: settled(&agents, &wanted), ..scene };
    let (nodes, addons) = workload(&seen, &scene, memory, now);
    let observed = Observed {
        cluster: facts,
        secrets,
        pools,
        cloud: match &seen.inventory {
            Fact::Known(inventory) => Fact::Known(observe::cloud::facts(inventory)),
            Fact::Unknown { why, since } => Fact::unknown(why.clone(), *since),
        },
        agents,
        machines: records,
        etcd,
        snapshots: seen.snapshots.clone(),
        preflight,
        wanted,
        wanted_agent: context.artifacts.own(AGENT).ok().map(|build| build.sha256),
        agent_certificate_life: context.agent_certificate_life,
        nodes,
        addons,
        wanted_addons: render::addons(&scene.spec, &context.artifacts).map(|a| a.digest).unwrap_or_default(),
        failures: memory.failures.iter().map(|(key, failure)| (key.clone(), failure.clone())).collect(),
    };
    World { seen, observed, scene: Arc::new(scene) }
}

fn understood<T>(
    all: impl Iterator<Item = Result<T, records::RecordError>>,
    memory: &mut Memory,
    part: &'static str,
    now: Timestamp,
) -> Fact<Vec<T>> {
    let all: Result<Vec<T>, _> = all.collect();
    let since = memory.seen(part, all.is_ok(), now);
    all.map_or_else(|error| Fact::unknown(error.to_string(), since), Fact::Known)
}

/// `Known(None)`: there is no Secret yet. A Secret that is not understood is Unknown: nothing may be made in its place.
async fn keys(context: &Arc<Context>, memory: &mut Memory, seen: &Seen, now: Timestamp) -> Fact<Option<Arc<Keys>>> {
    let name = secrets::pki_name(&memory.cluster.name);
    let Some(secret) = seen.secrets.iter().find(|s| s.name_any() == name) else {
        memory.keys = None;
        return Fact::Known(None);
    };
    let version = version(secret);
    if let Some(keys) = memory.keys.as_ref().filter(|k| k.are_current(&version, now)) {
        return Fact::Known(Some(keys.clone()));
    }
    let read = call(secrets::api(context, &memory.cluster.namespace).get(&name)).await.map_err(|e| e.to_string());
    let made = read.and_then(|secret| Keys::new(&secrets::data_of(secret), version, now).map_err(|e| e.to_string()));
    let since = memory.seen("keys", made.is_ok(), now);
    match made {
        Ok(keys) => {
            let keys = Arc::new(keys);
            memory.keys = Some(keys.clone());
            Fact::Known(Some(keys))
        }
        Err(why) => Fact::unknown(format!("Secret {name}: {why}"), since),
    }
}

fn version(secret: &PartialObjectMeta<Secret>) -> String {
    format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default())
}

/// All founders' addresses, or none: as recorded, and until then as their machines have them.
fn founders(facts: &ClusterFacts, machines: &[MachineRecord], seen: &Seen) -> BTreeMap<MachineName, Ipv4Addr> {
    let recorded = records::founders(&seen.cluster);
    if facts.founders.iter().eq(recorded.keys()) {
        return recorded;
    }
    let address = |name: &MachineName| instance(machines.iter().find(|m| m.name == *name)?, seen).map(|i| i.address);
    let all: Option<BTreeMap<_, _>> = facts.founders.iter().map(|name| Some((name.clone(), address(name)?))).collect();
    all.unwrap_or_default()
}

/// A machine's instance: as recorded, or, while that is being written down, as the cloud shows it. It is the same one: one is made per UID.
fn instance(record: &MachineRecord, seen: &Seen) -> Option<InstanceRef> {
    let shown = || {
        let instance = seen.inventory.known()?.instances.iter().find(|i| i.machine_uid == record.uid)?;
        Some(InstanceRef { id: instance.id.clone(), address: instance.address, zone: Some(instance.zone.clone()) })
    };
    record.instance.clone().or_else(shown)
}

fn scene_machine(record: &MachineRecord, spec: &ClusterSpec, seen: &Seen) -> SceneMachine {
    let instance = instance(record, seen);
    let object = seen.machines.iter().find(|m| m.uid().as_deref() == Some(&record.uid));
    SceneMachine {
        uid: record.uid.clone(),
        pool: record.pool.clone(),
        versions: record.versions,
        join: record.join.clone(),
        retiring: record.retiring,
        programs: object.map(records::programs).unwrap_or_default(),
        provider_id: instance.as_ref().map(|i| render::provider_id(&spec.provider, &seen.key.uid, &i.id)).unwrap_or_default(),
        instance: instance.map(|i| (i.id, i.address)),
    }
}

/// Holds a connection to the agent of every machine that has booted, and a long poll at the cloud. One that lost its power is dialled on: that
/// its agent is silent, and since when, is what decides on its replacement.
fn listen(context: &Arc<Context>, memory: &mut Memory, scene: &Scene, seen: &Seen, machines: &[MachineRecord]) {
    let Fact::Known(inventory) = &seen.inventory else { return };
    let facts = observe::cloud::facts(inventory);
    let operator = scene.keys.as_ref().map(|k| k.operator.clone());
    let peer = |m: &MachineRecord| {
        let instance = facts.instance(m).filter(|i| matches!(i.state, InstanceState::Running | InstanceState::Stopped))?;
        let identity = if m.claimed { Some(operator.clone()?) } else { None };
        Some((m.uid.clone(), Peer { address: SocketAddr::from((instance.address, AGENT_PORT)), identity }))
    };
    let wanted = machines.iter().filter_map(peer).collect();
    memory.agents.hold(wanted, &context.agents, &memory.bell);
    if memory.cloud_watch.is_none() {
        memory.cloud_watch = Some(CloudWatch::open(context.cloud.clone(), scene.key.clone(), memory.bell.clone()));
    }
}

/// Holds a connection to the cluster's API from when there can be one, and says whose pods are to be counted.
async fn look(context: &Context, memory: &mut Memory, scene: &Scene, machines: &[MachineRecord]) {
    let (Some(keys), Some(endpoint)) = (&scene.keys, &scene.endpoint) else {
        memory.workload = None;
        return;
    };
    let opened_for = format!("{endpoint} {} {}", keys.version(), keys.made());
    if memory.workload.as_ref().is_none_or(|(known, _)| *known != opened_for) {
        let kubeconfig = keys.kubeconfig(&scene.cluster.name, &format!("https://{endpoint}"));
        match context.workloads.client(&scene.cluster.name, &kubeconfig).await {
            Ok(client) => memory.workload = Some((opened_for, WorkloadLink::open(client, memory.bell.clone()))),
            Err(error) => tracing::warn!(%error, "no way into the cluster"),
        }
    }
    if let Some((_, link)) = &memory.workload {
        let Picture::Known { view, .. } = link.picture() else { return };
        // Machines that go, and those that are to be emptied before they are changed in place.
        let changes = |m: &&MachineRecord| m.deleting.is_some() || scene.spec.target(&m.pool).is_some_and(|to| to.node != m.versions.node);
        let going: BTreeSet<&MachineName> = machines.iter().filter(changes).map(|m| &m.name).collect();
        let leaving: BTreeSet<&MachineName> = machines.iter().filter(|m| m.deleting.is_some()).map(|m| &m.name).collect();
        let mut nodes = observe::nodes::of_machines(&view, &scene.machines, &going);
        let leaving = observe::nodes::of_machines(&view, &scene.machines, &leaving);
        nodes.retain(|name| leaving.contains(name) || view.nodes.get(name).is_some_and(|n| n.unschedulable));
        nodes.extend(view.nodes.values().filter(|n| n.cordoned.is_some()).map(|n| n.name.clone()));
        link.drains(Drains { nodes, leaving });
    }
}

/// Looks at what speaks against an upgrade, while one is wanted and not begun.
async fn preflight(
    context: &Context,
    memory: &mut Memory,
    scene: &Scene,
    facts: &ClusterFacts,
    machines: &[MachineRecord],
    now: Timestamp,
) -> Fact<PreflightFacts> {
    let to = observe::preflight::wanted(facts, &scene.spec.control_plane.versions, machines);
    let (Some(to), Some(keys), Some(door)) = (to, &scene.keys, &scene.workload) else {
        memory.preflight = None;
        return Fact::unknown("no upgrade is to begin", now);
    };
    let serves = |m: &&MachineRecord| m.is_control_plane() && m.deleting.is_none() && !m.retiring;
    let address = |m: &MachineRecord| Some((m.name.clone(), m.instance.as_ref()?.address));
    let addresses: BTreeMap<MachineName, Ipv4Addr> = machines.iter().filter(serves).filter_map(address).collect();
    let begun_for = format!("{to} {} {} {addresses:?}", keys.version(), keys.made());
    if memory.preflight.as_ref().is_none_or(|(known, _)| *known != begun_for) {
        let mut servers = BTreeMap::new();
        for (machine, address) in addresses {
            let kubeconfig = keys.kubeconfig(&scene.cluster.name, &format!("https://{address}:{API_PORT}"));
            match context.workloads.client(&scene.cluster.name, &kubeconfig).await {
                Ok(client) => servers.insert(machine, client),
                Err(error) => return Fact::unknown(error.to_string(), now),
            };
        }
        memory.preflight = Some((begun_for, PreflightLook::open(to, servers, door.client.clone(), memory.bell.clone())));
    }
    memory.preflight.as_ref().map_or_else(|| Fact::unknown("not asked yet", now), |(_, look)| look.found())
}

/// Holds the ways to etcd's members from the founding on, and gives what they say.
fn ask_etcd(
    memory: &mut Memory,
    scene: &Scene,
    facts: &ClusterFacts,
    seen: &Seen,
    machines: &[MachineRecord],
    now: Timestamp,
) -> Fact<EtcdFacts> {
    let Some(keys) = scene.keys.as_ref().filter(|_| facts.bootstrapped && facts.deleting.is_none()) else {
        memory.etcd = None;
        let since = memory.seen("etcd", false, now);
        return Fact::unknown("the control plane is not founded yet, or is being deleted", since);
    };
    let opened_for = format!("{} {}", keys.version(), keys.made());
    let link = match memory.etcd.take().filter(|(known, _)| *known == opened_for) {
        Some(open) => open,
        None => (opened_for, EtcdLink::open(keys.etcd.clone(), memory.bell.clone())),
    };
    let picture = link.1.picture();
    let hosts: BTreeMap<MachineName, MemberHost> = machines
        .iter()
        .filter(|m| m.is_control_plane() && m.claimed)
        .filter_map(|m| {
            let address = instance(m, seen)?.address;
            Some((m.name.clone(), MemberHost { address, agent: scene.connections.get(&m.uid).cloned() }))
        })
        .collect();
    // What agents say of their etcd; and a connection that comes or goes leads elsewhere.
    let word = |m: &MachineRecord| {
        format!("{} {:?} {}; ", m.name, seen.hearings.get(&m.uid).map(etcd_probe), scene.connections.contains_key(&m.uid))
    };
    let words = machines.iter().filter(|m| m.is_control_plane()).map(word).collect();
    link.1.attend(hosts, pace(&scene.spec, facts, machines, &picture), words);
    memory.etcd = Some(link);
    picture
}

fn etcd_probe(hearing: &Hearing) -> Option<(bool, i64)> {
    match hearing {
        Hearing::Speaking { state, .. } => state.probes.iter().find(|p| p.name == PROBE_ETCD).map(|p| (p.healthy, p.since_ms)),
        Hearing::Silent { .. } | Hearing::Greeted { .. } => None,
    }
}

/// Whether nothing goes on with the control plane that etcd has a part in.
fn pace(spec: &ClusterSpec, facts: &ClusterFacts, machines: &[MachineRecord], picture: &Fact<EtcdFacts>) -> Pace {
    let wanted = usize::try_from(spec.control_plane.replicas).unwrap_or(usize::MAX);
    let planes: Vec<&MachineRecord> = machines.iter().filter(|m| m.is_control_plane()).collect();
    let as_wanted =
        |m: &&MachineRecord| m.deleting.is_none() && m.versions == spec.control_plane.versions && m.revision == spec.control_plane.revision;
    let members_well =
        picture.known().is_some_and(|e| e.members.len() == wanted && e.members.iter().all(|m| !m.learner && m.status.known().is_some()));
    let settled = facts.upgrade.is_none() && planes.len() == wanted && planes.iter().all(as_wanted) && members_well;
    if settled { Pace::Settled } else { Pace::Busy }
}

/// Machines that run exactly what their record says.
fn settled(agents: &BTreeMap<MachineName, AgentFacts>, wanted: &BTreeMap<MachineName, PlanDigest>) -> BTreeSet<MachineName> {
    let runs = |name: &MachineName, digest: &PlanDigest| {
        agents
            .get(name)
            .and_then(AgentFacts::heard)
            .is_some_and(|s| s.accepted.as_ref() == Some(digest) && s.applied.as_ref() == Some(digest))
    };
    wanted.iter().filter(|(name, digest)| runs(name, digest)).map(|(name, _)| name.clone()).collect()
}

fn secret_facts(scene: &Scene, found: &[PartialObjectMeta<Secret>], now: Timestamp) -> SecretFacts {
    let of = |name: &str| found.iter().find(|s| s.name_any() == name);
    let fits = |name: &str, wanted: Option<String>| {
        let secret = of(name).filter(|s| !renewal::is_due(s.annotations(), now));
        secret.is_some_and(|s| wanted.is_some() && s.annotations().get(secrets::ISSUED_FOR) == wanted.as_ref())
    };
    let keys = scene.keys.as_ref().map(|k| k.fingerprint());
    let kubeconfig = scene.endpoint.as_ref().zip(keys).map(|(endpoint, keys)| secrets::kubeconfig_for(endpoint, keys));
    let kubeconfig_name = secrets::kubeconfig_name(&scene.cluster.name);
    let machine = |name: &MachineName, m: &SceneMachine| {
        let certificates = match (&m.instance, &scene.endpoint, keys) {
            (Some((_, address)), Some(endpoint), Some(keys)) => Some(secrets::certificates_for(&m.uid, &m.pool, *address, endpoint, keys)),
            _ => None,
        };
        let issued = of(&secrets::machine_pki_name(name)).map(ResourceExt::annotations);
        let fitting = issued.filter(|a| certificates.is_some() && a.get(secrets::ISSUED_FOR) == certificates.as_ref());
        MachineSecrets {
            bootstrap: fits(&secrets::bootstrap_name(name), Some(m.uid.clone())),
            certificates: fitting.map(|a| renewal::state_of(a, now)).unwrap_or_default(),
            pressing: issued.is_some_and(|a| renewal::is_pressing(a, scene.accepted.get(name), now)),
        }
    };
    SecretFacts {
        pki: of(&secrets::pki_name(&scene.cluster.name)).is_some(),
        kubeconfig: fits(&kubeconfig_name, kubeconfig),
        machines: scene.machines.iter().map(|(name, m)| (name.clone(), machine(name, m))).collect(),
    }
}

/// Of a cluster that is being deleted: what is there counts, whether it fits or not, and whether its machine has a record or not.
fn left_secrets(scene: &Scene, found: &[PartialObjectMeta<Secret>]) -> SecretFacts {
    let mut facts = SecretFacts::default();
    for secret in found {
        let name = secret.name_any();
        let machine = secret.labels().get(LABEL_MACHINE).and_then(|m| m.parse::<MachineName>().ok());
        if let Some(machine) = machine {
            let bootstrap = name == secrets::bootstrap_name(&machine);
            let of = facts.machines.entry(machine).or_default();
            if bootstrap { of.bootstrap = true } else { of.certificates = Certificates::Good }
        } else if name == secrets::kubeconfig_name(&scene.cluster.name) {
            facts.kubeconfig = true;
        } else {
            facts.pki = true;
        }
    }
    facts
}

/// Digest of every machine's plan: rendered where something that it is made of changed, remembered otherwise.
async fn digests(
    context: &Arc<Context>,
    memory: &mut Memory,
    scene: &Scene,
    seen: &Seen,
    known: Option<&SecretFacts>,
) -> BTreeMap<MachineName, PlanDigest> {
    let (Some(keys), Some(endpoint), Some(known)) = (&scene.keys, &scene.endpoint, known) else { return BTreeMap::new() };
    memory.digests.retain(|name, _| scene.machines.contains_key(name));
    let generation = seen.cluster.metadata.generation.unwrap_or_default();
    let shared = format!("{generation} {endpoint} {} {:?}", keys.version(), scene.founders);
    let mut stale = vec![];
    for (name, machine) in &scene.machines {
        let secret = seen.secrets.iter().find(|s| s.name_any() == secrets::machine_pki_name(name));
        let Some(secret) = secret.filter(|_| known.of(name).certificates != Certificates::Missing && machine.instance.is_some()) else {
            memory.digests.remove(name);
            continue;
        };
        let has_birth = machine.join.is_some() || scene.founders.contains_key(name);
        if machine.pool.is_control_plane() && (!has_birth || scene.founders.is_empty()) {
            memory.digests.remove(name);
            continue;
        }
        let made_of = format!("{shared} {machine:?} {}", version(secret));
        if memory.digests.get(name).is_none_or(|(known, _)| *known != made_of) {
            stale.push((name.clone(), made_of));
        }
    }
    let rendered = join_all(stale.into_iter().map(async |(name, made_of)| {
        let data = secrets::read(context, scene, &secrets::machine_pki_name(&name)).await;
        let plan = data.and_then(|data| scene.render(context, &name, &data.unwrap_or_default()));
        (name, made_of, plan.map(|p| p.digest()))
    }));
    for (name, made_of, digest) in rendered.await {
        match digest {
            Ok(digest) => memory.digests.insert(name, (made_of, digest)),
            Err(error) => {
                tracing::warn!(machine = %name, %error, "the machine's configuration cannot be rendered");
                memory.digests.remove(&name)
            }
        };
    }
    memory.digests.iter().map(|(name, (_, digest))| (name.clone(), digest.clone())).collect()
}

fn workload(seen: &Seen, scene: &Scene, memory: &mut Memory, now: Timestamp) -> (Fact<Vec<slipway_plan::NodeFacts>>, Fact<Option<String>>) {
    let (why, since) = match &seen.picture {
        Some(Picture::Known { view, .. }) => {
            memory.seen("workload", true, now);
            let nodes = observe::nodes::facts(view, &scene.spec, &scene.machines, now);
            return (Fact::Known(nodes), Fact::Known(view.addons.clone()));
        }
        Some(Picture::Unknown { why, since }) => (why.clone(), *since),
        None => ("it has no endpoint yet".to_owned(), memory.seen("workload", false, now)),
    };
    (Fact::unknown(why.clone(), since), Fact::unknown(why, since))
}
