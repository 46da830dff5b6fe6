//! Clusters whose keys, addresses and artifacts are always the same.

use crate::artifacts::{AGENT, ArtifactIndex, CLOUD_CONTROLLER_MANAGER, IndexEntry, OWN_COMPONENT, Program, target};
use crate::context::CloudAccess;
use crate::records;
use crate::render::{self, Site, Subject, provider_id};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use slipway_artifacts::{Component, catalogue};
use slipway_components::{Endpoint, Profile};
use slipway_model::{
    ClusterSpec, Content, ControlPlaneCredentials, Credential, MachineName, MachinePlan, MachineVersions, NodeCredentials, PoolName,
};
use slipway_plan::JoinRecord;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

pub const UID: &str = "5b0f9d3c-0000-4000-8000-000000000001";

/// Everything in the catalogue. A file's digest is that of its name and version.
pub fn index() -> ArtifactIndex {
    let mut entries = BTreeMap::new();
    for set in catalogue::supported() {
        for &component in Component::ALL {
            component.artifacts().for_each(|name| insert(&mut entries, component.name(), component.version(set), name));
        }
    }
    [AGENT, CLOUD_CONTROLLER_MANAGER].into_iter().for_each(|name| insert(&mut entries, OWN_COMPONENT, "v0.1.0", name));
    ArtifactIndex::new(entries.into_values().collect(), "file:///opt/slipway/store/sha256")
}

fn insert(entries: &mut BTreeMap<String, IndexEntry>, component: &str, version: &str, name: &str) {
    let key = format!("{component} {version} {name}");
    let sha256 = hex::encode(Sha256::digest(&key));
    entries.insert(key, IndexEntry { component: component.into(), version: version.into(), name: name.into(), sha256, size: 1 });
}

/// The build of the cloud-controller-manager that machines were born with.
pub fn programs() -> Vec<Program> {
    vec![Program { name: CLOUD_CONTROLLER_MANAGER.into(), sha256: "cc".repeat(32), size: 1 }]
}

/// A Cluster from a file, in a version.
pub fn spec(yaml: &str, kubernetes: &str) -> ClusterSpec {
    let mut object: slipway_crds::Cluster = serde_saphyr::from_str(yaml).unwrap();
    object.spec.kubernetes_version = kubernetes.to_owned();
    records::spec(&object).unwrap()
}

pub fn versions(kubernetes: &str) -> MachineVersions {
    target(kubernetes.parse().unwrap(), None, None).unwrap()
}

fn credential(of: &str) -> Credential {
    Credential { certificate: format!("certificate: {of}"), key: Content::from(format!("key: {of}")) }
}

fn node_credentials(node: &MachineName) -> NodeCredentials {
    NodeCredentials {
        cluster_ca: "certificate: cluster CA".into(),
        kubelet_client: credential(&format!("kubelet client of {node}")),
        kubelet_server: credential(&format!("kubelet server of {node}")),
        kube_proxy: credential(&format!("kube-proxy of {node}")),
    }
}

fn control_plane_credentials(node: &MachineName) -> ControlPlaneCredentials {
    let of = |what: &str| credential(&format!("{what} of {node}"));
    ControlPlaneCredentials {
        cluster_ca_key: "key: cluster CA".into(),
        etcd_ca: "certificate: etcd CA".into(),
        front_proxy_ca: "certificate: front-proxy CA".into(),
        service_account_key: "key: service accounts".into(),
        service_account_public: "public key: service accounts".into(),
        etcd_server: of("etcd server"),
        etcd_peer: of("etcd peer"),
        etcd_client: of("etcd client"),
        api_server: of("API server"),
        api_server_kubelet_client: of("API server as kubelet client"),
        front_proxy_client: of("front-proxy client"),
        controller_manager: of("controller manager"),
        scheduler: of("scheduler"),
        cloud_controller_manager: of("cloud controller manager"),
        node: node_credentials(node),
    }
}

/// One machine as it is recorded.
#[derive(Clone)]
pub struct Machine {
    pub name: MachineName,
    pub pool: PoolName,
    pub versions: MachineVersions,
    pub address: Ipv4Addr,
    pub join: Option<JoinRecord>,
    pub retiring: bool,
    pub programs: Vec<Program>,
}

/// A cluster with all its machines as they are founded.
pub struct Cluster {
    pub spec: ClusterSpec,
    pub founders: BTreeMap<MachineName, Ipv4Addr>,
    pub machines: Vec<Machine>,
}

impl Cluster {
    pub fn new(spec: ClusterSpec) -> Self {
        let (cp, planes) = (PoolName::control_plane(), spec.control_plane.replicas);
        let pools = spec.pools.iter().map(|p| (p.name.clone(), p.replicas.unwrap_or(1), p.versions));
        let all = std::iter::once((cp.clone(), planes, spec.control_plane.versions)).chain(pools);
        let each = all.flat_map(|(pool, count, versions)| (0..count).map(move |n| (pool.clone(), n, versions)));
        let machines: Vec<_> = each
            .zip(10..)
            .map(|((pool, n, versions), host)| Machine {
                name: format!("{}-{pool}-{n}", spec.name).parse().unwrap(),
                programs: if pool.is_control_plane() { programs() } else { vec![] },
                pool,
                versions,
                address: Ipv4Addr::new(198, 18, 1, host),
                join: None,
                retiring: false,
            })
            .collect();
        let founders = machines.iter().filter(|m| m.pool == cp).map(|m| (m.name.clone(), m.address)).collect();
        Self { spec, founders, machines }
    }

    pub fn plan(&self, machine: &Machine) -> Result<MachinePlan, render::Error> {
        self.plan_from(&index(), machine)
    }

    pub fn plan_from(&self, index: &ArtifactIndex, machine: &Machine) -> Result<MachinePlan, render::Error> {
        let profile = Profile::local(false);
        let endpoint = Endpoint { host: "198.18.1.2".into(), port: 6443 };
        let site = Site { spec: &self.spec, uid: UID, endpoint, founders: &self.founders, profile: &profile, index };
        let provider_id = provider_id(&self.spec.provider, UID, &format!("i-{}", machine.name));
        let subject = Subject {
            name: &machine.name,
            pool: &machine.pool,
            versions: machine.versions,
            join: machine.join.as_ref(),
            retiring: machine.retiring,
            programs: &machine.programs,
            address: machine.address,
            provider_id: &provider_id,
        };
        if !machine.pool.is_control_plane() {
            return render::worker(&site, &subject, node_credentials(&machine.name));
        }
        let access = CloudAccess {
            endpoint: "https://198.18.0.1:7450".into(),
            ca: "certificate: daemon CA".into(),
            certificate: "certificate: cluster at the daemon".into(),
            key: SecretString::from("key: cluster at the daemon"),
        };
        render::control_plane(&site, &subject, control_plane_credentials(&machine.name), &access)
    }
}

/// What a unit is started with, as one short digest: when it changes, the unit restarts.
pub fn fingerprints(plan: &MachinePlan) -> BTreeMap<String, String> {
    let print = |unit: &slipway_model::Unit| {
        let files: Vec<_> = plan.files.iter().filter(|f| unit.files.contains(&f.path)).collect();
        let artifacts: Vec<_> = plan.artifacts.iter().filter(|a| unit.artifacts.contains(&a.name)).map(|a| (&a.name, &a.sha256)).collect();
        let text = serde_json::to_vec(&(&unit.content, unit.state, files, artifacts)).unwrap();
        hex::encode(Sha256::digest(text))[..12].to_owned()
    };
    plan.units.iter().map(|unit| (unit.name.trim_end_matches(".service").to_owned(), print(unit))).collect()
}
