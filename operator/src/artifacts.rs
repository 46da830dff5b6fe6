//! Which file each component's version is, by digest, and where machines find it: the **artifact index** that the operator is given.
//!
//! The operator needs no store: a JSON list of `{component, version, name, sha256, size}`, written by whoever filled the store
//! ([`render_artifacts_index`]), and a prefix under which machines see the store, e.g. `file:///opt/slipway/store/sha256`.

use serde::{Deserialize, Serialize};
use slipway_artifacts::{Artifact, Component, VersionSet, catalogue};
use slipway_model::{ArtifactRef, ComponentVersion, ControlPlaneVersions, KubernetesVersion, MachineVersions, NodeVersions};
use std::path::Path;

/// Component under which Slipway's own programs stand in a store.
pub const OWN_COMPONENT: &str = "slipway";
/// The agent's file name.
pub const AGENT: &str = "slipway-agent";
/// The file name of the local cloud's controller manager.
pub const CLOUD_CONTROLLER_MANAGER: &str = "slipway-ccm-local";

/// A line of the index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexEntry {
    /// `kubernetes`, `etcd`, …, or `slipway`.
    pub component: String,
    /// `v1.36.4`.
    pub version: String,
    /// File name.
    pub name: String,
    /// Hexadecimal.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// One build of a program of ours, as a machine's record keeps it: another release of Slipway must not restart anything by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// File name.
    pub name: String,
    /// Hexadecimal.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
}

/// The files that machines are told of.
#[derive(Debug, Clone, Default)]
pub struct ArtifactIndex {
    entries: Vec<IndexEntry>,
    source: String,
}

/// Why a version cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file is not to be had or not understood.
    #[error("artifact index {path}: {problem}; `slipway up` writes it anew")]
    Index {
        /// Where it is.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Not in the catalogue.
    #[error("Kubernetes {version} is not in this release's catalogue: choose one of {}", known.join(", "))]
    UnknownVersion {
        /// What was asked for.
        version: String,
        /// What there is.
        known: Vec<String>,
    },
    /// In the catalogue, but nobody brought it.
    #[error("{component} {version} has not been fetched: `slipway artifacts fetch {kubernetes}` brings it, `slipway up` makes it known")]
    NotFetched {
        /// What is missing.
        component: String,
        /// In which version.
        version: String,
        /// For which Kubernetes.
        kubernetes: String,
    },
}

/// The index of what a store holds: what `--artifacts` of the operator reads. Sorted, so the same store gives the same bytes.
#[must_use]
pub fn render_artifacts_index(artifacts: &[Artifact]) -> String {
    let mut entries: Vec<IndexEntry> = artifacts
        .iter()
        .map(|a| IndexEntry {
            component: a.component.clone(),
            version: a.version.clone(),
            name: a.name.clone(),
            sha256: a.sha256.clone(),
            size: a.size,
        })
        .collect();
    entries.sort();
    // Plain strings and a number: serialising cannot fail, and an empty index would be refused with its reason.
    serde_json::to_string_pretty(&entries).unwrap_or_default()
}

impl ArtifactIndex {
    /// From lines and the prefix under which machines find `<sha256>/<name>`.
    #[must_use]
    pub fn new(entries: Vec<IndexEntry>, source: impl Into<String>) -> Self {
        Self { entries, source: source.into().trim_end_matches('/').to_owned() }
    }

    /// Reads the index.
    pub fn read(path: &Path, source: &str) -> Result<Self, ArtifactError> {
        let fail = |problem: String| ArtifactError::Index { path: path.display().to_string(), problem };
        let text = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let entries: Vec<IndexEntry> = serde_json::from_slice(&text).map_err(|e| fail(e.to_string()))?;
        Ok(Self::new(entries, source))
    }

    /// Where the files of a machine with these versions come from.
    pub fn versions(&self, machine: &MachineVersions) -> Result<Versions, ArtifactError> {
        Ok(Versions { set: set(machine.node.kubelet)?, machine: *machine })
    }

    /// Every file of a component that has been fetched, each in the version of the part that it belongs to.
    pub fn component(&self, component: Component, versions: &Versions) -> Result<Vec<ArtifactRef>, ArtifactError> {
        let fits = |e: &&IndexEntry| e.component == component.name() && e.version == versions.of_file(component, &e.name);
        let found: Vec<ArtifactRef> = self.entries.iter().filter(fits).map(|e| self.reference(e)).collect();
        let missing = component.artifacts().find(|name| found.iter().all(|f| f.name != *name));
        if let Some(name) = missing {
            return Err(ArtifactError::NotFetched {
                component: component.to_string(),
                version: versions.of_file(component, name),
                kubernetes: versions.set.kubernetes.to_owned(),
            });
        }
        Ok(found)
    }

    /// One of Slipway's own programs. The newest that was adopted: it stands last.
    pub fn own(&self, name: &str) -> Result<ArtifactRef, ArtifactError> {
        let entry = self.entries.iter().rev().find(|e| e.component == OWN_COMPONENT && e.name == name);
        entry.map(|e| self.reference(e)).ok_or_else(|| ArtifactError::NotFetched {
            component: OWN_COMPONENT.to_owned(),
            version: name.to_owned(),
            kubernetes: String::new(),
        })
    }

    /// The builds that a control-plane machine is told to run from now on.
    #[must_use]
    pub fn programs(&self) -> Vec<Program> {
        let own = self.own(CLOUD_CONTROLLER_MANAGER).ok();
        own.map(|a| Program { name: a.name, sha256: a.sha256, size: a.size }).into_iter().collect()
    }

    /// A build that was the newest once: a store keeps what it ever had.
    #[must_use]
    pub fn build(&self, program: &Program) -> ArtifactRef {
        self.file(&program.name, &program.sha256, program.size)
    }

    fn reference(&self, entry: &IndexEntry) -> ArtifactRef {
        self.file(&entry.name, &entry.sha256, entry.size)
    }

    fn file(&self, name: &str, sha256: &str, size: u64) -> ArtifactRef {
        let sources = vec![format!("{}/{sha256}/{name}", self.source)];
        ArtifactRef { name: name.to_owned(), sha256: sha256.to_owned(), size, sources }
    }
}

/// What machines of a Kubernetes version shall run, the user's own choices of etcd and containerd applied.
pub fn target(
    kubernetes: KubernetesVersion,
    etcd: Option<ComponentVersion>,
    containerd: Option<ComponentVersion>,
) -> Result<MachineVersions, ArtifactError> {
    let set = set(kubernetes)?;
    let own = |text: &str| text.parse().map_err(|_| unknown(kubernetes));
    let etcd = etcd.map_or_else(|| own(set.etcd), Ok)?;
    let containerd = containerd.map_or_else(|| own(set.containerd), Ok)?;
    Ok(MachineVersions {
        control_plane: Some(ControlPlaneVersions { etcd, api_server: kubernetes, controllers: kubernetes }),
        node: NodeVersions { kubelet: kubernetes, containerd },
    })
}

/// The versions of everything on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// What goes with its kubelet.
    pub set: VersionSet,
    machine: MachineVersions,
}

impl Versions {
    /// A component's, as Nodes have it.
    #[must_use]
    pub fn of(&self, component: Component) -> String {
        match component {
            Component::Etcd => self.machine.control_plane.map_or_else(|| self.set.etcd.to_owned(), |v| v.etcd.to_string()),
            Component::Containerd => self.machine.node.containerd.to_string(),
            Component::Kubernetes | Component::Runc | Component::Cni | Component::Coredns | Component::Pause | Component::TestClient => {
                component.version(&self.set).to_owned()
            }
        }
    }

    /// A file's: the parts of a control plane have versions of their own.
    #[must_use]
    pub fn of_file(&self, component: Component, name: &str) -> String {
        match (self.machine.control_plane, name) {
            (Some(v), "kube-apiserver") => v.api_server.to_string(),
            (Some(v), "kube-controller-manager" | "kube-scheduler") => v.controllers.to_string(),
            _ => self.of(component),
        }
    }
}

fn set(kubernetes: KubernetesVersion) -> Result<VersionSet, ArtifactError> {
    catalogue::version_set(&kubernetes.to_string()).ok_or_else(|| unknown(kubernetes))
}

fn unknown(kubernetes: KubernetesVersion) -> ArtifactError {
    ArtifactError::UnknownVersion {
        version: kubernetes.to_string(),
        known: catalogue::supported().iter().map(|s| s.kubernetes.to_owned()).collect(),
    }
}
