//! What each machine and the cluster itself shall be, rendered from validated settings: pure, no client required.

use crate::artifacts::{ArtifactError, ArtifactIndex, CLOUD_CONTROLLER_MANAGER, Program, Versions};
use crate::context::CloudAccess;
use crate::execute::SceneMachine;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use slipway_artifacts::{Component, image_reference};
use slipway_components::addons::{AddonSettings, Addons};
use slipway_components::{
    Artifacts, CloudControllerManager, ClusterSettings, ControlPlaneDuty, ControlPlaneMachine, Endpoint, EtcdEndpoints, EtcdSettings,
    EtcdState, Image, Images, MachineSettings, Profile, RenderError, WorkerMachine, addons, machine,
};
use slipway_model::{
    ClusterSpec, Content, ControlPlaneCredentials, Credential, MachineName, MachinePlan, MachineVersions, NodeCredentials, Pool, PoolName,
    Provider,
};
use slipway_pki::{ClusterPki, MachineFacts, MachineLeaves, MachineRole, PkiError};
use slipway_plan::JoinRecord;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Why something is not rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody brought a program.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The component refused its settings.
    #[error(transparent)]
    Component(#[from] RenderError),
    /// The machine's certificates are broken.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A control plane without its etcd birth.
    #[error("{0} neither founds the control plane nor is recorded as a member that joins it: it is configured once it is")]
    NoMember(MachineName),
    /// A worker's versions for a control plane.
    #[error(
        "{0} is a control plane, but its record names no versions of etcd and kube-apiserver: delete the Machine, and another takes its place"
    )]
    NoVersions(MachineName),
}

/// What all machines of a cluster share.
#[derive(Debug, Clone)]
pub struct Site<'a> {
    /// The cluster.
    pub spec: &'a ClusterSpec,
    /// Its UID.
    pub uid: &'a str,
    /// Where its API is reached.
    pub endpoint: Endpoint,
    /// Founders with their addresses: all or none.
    pub founders: &'a BTreeMap<MachineName, Ipv4Addr>,
    /// The place.
    pub profile: &'a Profile,
    /// What can be installed.
    pub index: &'a ArtifactIndex,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// Its name: Node, host and etcd member.
    pub name: &'a MachineName,
    /// Its pool.
    pub pool: &'a PoolName,
    /// What it is told to run.
    pub versions: MachineVersions,
    /// How its etcd member joins; `None` for founders and workers.
    pub join: Option<&'a JoinRecord>,
    /// Whether it is on its way out of the control plane.
    pub retiring: bool,
    /// Builds of Slipway's own programs that it was told to run.
    pub programs: &'a [Program],
    /// Its address.
    pub address: Ipv4Addr,
    /// `spec.providerID` of its Node.
    pub provider_id: &'a str,
}

/// What a machine's certificates have to say.
#[must_use]
pub fn machine_facts(spec: &ClusterSpec, endpoint: &str, name: &MachineName, pool: &PoolName, address: Ipv4Addr) -> MachineFacts {
    let role = if pool.is_control_plane() {
        MachineRole::ControlPlane { endpoint: endpoint.to_owned(), service_ip: spec.network.api_service_ip(), extra_names: vec![] }
    } else {
        MachineRole::Worker
    };
    MachineFacts { node: name.to_string(), address, role }
}

/// The whole plan of a machine.
pub fn machine_plan(
    site: &Site<'_>,
    subject: &Subject<'_>,
    pki: &ClusterPki,
    leaves: &MachineLeaves,
    cloud: Option<&CloudAccess>,
) -> Result<MachinePlan, Error> {
    if !subject.pool.is_control_plane() {
        return worker(site, subject, leaves.node_credentials(pki)?);
    }
    let access = cloud.ok_or_else(|| PkiError::Missing { key: "cloud.crt".to_owned() })?;
    control_plane(site, subject, leaves.control_plane_credentials(pki)?, access)
}

fn worker(site: &Site<'_>, subject: &Subject<'_>, credentials: NodeCredentials) -> Result<MachinePlan, Error> {
    let versions = site.index.versions(&subject.versions)?;
    Ok(machine::worker(&WorkerMachine {
        cluster: cluster(site, &versions)?,
        machine: settings(site, subject),
        credentials,
        artifacts: artifacts(site.index, &versions, subject.programs)?,
    })?)
}

fn control_plane(
    site: &Site<'_>,
    subject: &Subject<'_>,
    credentials: ControlPlaneCredentials,
    access: &CloudAccess,
) -> Result<MachinePlan, Error> {
    if subject.versions.control_plane.is_none() {
        return Err(Error::NoVersions(subject.name.clone()));
    }
    let versions = site.index.versions(&subject.versions)?;
    Ok(machine::control_plane(&ControlPlaneMachine {
        cluster: cluster(site, &versions)?,
        machine: settings(site, subject),
        etcd: etcd(site, subject)?,
        etcd_endpoints: EtcdEndpoints::Local,
        credentials,
        cloud: CloudControllerManager::Local {
            cluster_uid: site.uid.to_owned(),
            daemon: access.endpoint.clone(),
            ca: access.ca.clone(),
            credential: Credential { certificate: access.certificate.clone(), key: Content::from(access.key.expose_secret()) },
        },
        duty: if subject.retiring { ControlPlaneDuty::Retiring } else { ControlPlaneDuty::Serving },
        artifacts: artifacts(site.index, &versions, subject.programs)?,
    })?)
}

fn cluster(site: &Site<'_>, versions: &Versions) -> Result<ClusterSettings, Error> {
    Ok(ClusterSettings {
        name: site.spec.name.to_string(),
        network: site.spec.network.clone(),
        endpoint: site.endpoint.clone(),
        profile: site.profile.clone(),
        images: images(site.index, versions)?,
    })
}

fn settings(site: &Site<'_>, subject: &Subject<'_>) -> MachineSettings {
    let pool = site.spec.pools.iter().find(|p| p.name == *subject.pool);
    MachineSettings {
        node: subject.name.to_string(),
        address: subject.address,
        provider_id: subject.provider_id.to_owned(),
        pool: subject.pool.clone(),
        versions: subject.versions,
        labels: pool.map(|p| p.labels.clone()).unwrap_or_default(),
        taints: pool.map(|p| p.taints.clone()).unwrap_or_default(),
    }
}

/// How the machine's etcd member begins: the same for as long as the machine lives, whoever comes and goes beside it.
fn etcd(site: &Site<'_>, subject: &Subject<'_>) -> Result<EtcdSettings, Error> {
    let no_member = || Error::NoMember(subject.name.clone());
    let first = site.founders.keys().next().ok_or_else(no_member)?;
    let (members, state) = match subject.join {
        Some(join) => (&join.members, EtcdState::Existing),
        None if site.founders.contains_key(subject.name) => (site.founders, EtcdState::New),
        None => return Err(no_member()),
    };
    Ok(EtcdSettings {
        members: members.iter().map(|(name, address)| (name.to_string(), *address)).collect(),
        // Names are never used twice, so neither is a token, and neither is a directory.
        token: format!("{}-{first}", site.uid),
        state,
        data_directory: subject.name.to_string(),
    })
}

/// What the cluster is given once its API answers.
pub fn addons(spec: &ClusterSpec, index: &ArtifactIndex) -> Result<Addons, Error> {
    let versions = index.versions(&spec.control_plane.versions)?;
    Ok(addons::render(&AddonSettings { network: spec.network.clone(), coredns: image(Component::Coredns, &versions) }))
}

fn artifacts(index: &ArtifactIndex, versions: &Versions, programs: &[Program]) -> Result<Artifacts, Error> {
    let mut all = Artifacts::new();
    for &component in Component::ALL {
        match index.component(component, versions) {
            Ok(found) => all.extend(found.into_iter().map(|a| (a.name.clone(), a))),
            // For checks only: a cluster runs without.
            Err(ArtifactError::NotFetched { .. }) if component == Component::TestClient => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The local cloud's controller manager is a program of ours.
    let kept = programs.iter().find(|p| p.name == CLOUD_CONTROLLER_MANAGER).map(|p| index.build(p));
    if let Some(own) = kept.or_else(|| index.own(CLOUD_CONTROLLER_MANAGER).ok()) {
        all.insert(own.name.clone(), own);
    }
    Ok(all)
}

fn images(index: &ArtifactIndex, versions: &Versions) -> Result<Images, Error> {
    let others = [Component::Coredns, Component::TestClient];
    Ok(Images {
        pause: image(Component::Pause, versions),
        others: others.into_iter().filter(|c| index.component(*c, versions).is_ok()).map(|c| image(c, versions)).collect(),
    })
}

fn image(component: Component, versions: &Versions) -> Image {
    Image {
        // Both have one: they are components that run as pods.
        reference: image_reference(component, &versions.of(component)).unwrap_or_default(),
        artifact: component.image_archive().unwrap_or_default().to_owned(),
    }
}

/// Labels and taints that a Node shall have, beside those that its kubelet sets: the role, and the pool's.
#[must_use]
pub fn node_labels(pool: Option<&Pool>, is_control_plane: bool) -> BTreeMap<String, String> {
    let role = if is_control_plane { "node-role.kubernetes.io/control-plane" } else { "node-role.kubernetes.io/worker" };
    let mut labels = pool.map(|p| p.labels.clone()).unwrap_or_default();
    labels.insert(role.to_owned(), String::new());
    labels
}

/// Identity of a pool's labels and taints: on each Node as it was last put on.
#[must_use]
pub fn pool_digest(pool: Option<&Pool>) -> String {
    let settings = pool.map(|p| (&p.labels, &p.taints));
    // Maps of strings: serialising them cannot fail, and an empty text only means once more.
    let text = serde_json::to_vec(&settings).unwrap_or_default();
    hex::encode(Sha256::digest(text)).chars().take(16).collect()
}

/// A taint (`PreferNoSchedule`) of Nodes that are emptied in the course of an upgrade that has begun: what leaves one of them goes to one that stays, and
/// not to the next that has to be left.
pub const UPGRADE_PENDING: &str = "slipway.dev/upgrade-pending";

/// Whether a machine's Node is to bear [`UPGRADE_PENDING`].
#[must_use]
pub fn is_upgrade_pending(spec: &ClusterSpec, machines: &BTreeMap<MachineName, SceneMachine>, machine: &SceneMachine) -> bool {
    let told = machines.values().map(|m| (&m.pool, &m.versions));
    slipway_plan::is_upgrade_pending(spec, told, &machine.pool, &machine.versions)
}

/// `spec.providerID` of the Node on an instance.
#[must_use]
pub fn provider_id(provider: &Provider, cluster_uid: &str, instance: &str) -> String {
    match provider {
        Provider::Local {} => format!("local://{cluster_uid}/{instance}"),
    }
}

/// Whether everything that a new machine needs is there to be installed.
pub fn available(spec: &ClusterSpec, index: &ArtifactIndex) -> Result<(), Error> {
    for wanted in std::iter::once(&spec.control_plane.versions).chain(spec.pools.iter().map(|p| &p.versions)) {
        artifacts(index, &index.versions(wanted)?, &[])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
