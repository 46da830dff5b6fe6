//! What Slipway can install: versions that are tested together, the executables each component brings, where upstream
//! publishes them. Pure data; nothing here looks at a disk or a network.
//!
//! To add a version: `gomod/generate.sh COMPONENT VERSION`, a row in `SETS`, a release date in `recipe.rs` for
//! Kubernetes, and digests in `catalogue/releases.rs` if they are published. The tests below say what is missing.

mod releases;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use releases::{Packaging, Source, official};

/// The version that everything uses unless told otherwise.
pub const DEFAULT_KUBERNETES: &str = "v1.36.4";

/// Versions that are tested together. All carry the leading `v` of their tags, except `pause` and `test_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct VersionSet {
    /// kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy, kubectl.
    pub kubernetes: &'static str,
    /// etcd, etcdctl, etcdutl.
    pub etcd: &'static str,
    /// containerd, its shim, ctr.
    pub containerd: &'static str,
    /// The version containerd's own release pins.
    pub runc: &'static str,
    /// bridge, host-local, loopback, portmap.
    pub cni: &'static str,
    /// Binary and image.
    pub coredns: &'static str,
    /// The image tag kubeadm of that minor would use.
    pub pause: &'static str,
    /// The image that checks use as both ends of a connection.
    pub test_client: &'static str,
}

/// Oldest first. etcd 3.7 came with 1.37; containerd 2.3 is its long-term support line and fits all three.
const SETS: &[VersionSet] = &[
    VersionSet { kubernetes: "v1.35.8", etcd: "v3.6.14", ..COMMON },
    VersionSet { kubernetes: "v1.36.4", etcd: "v3.6.14", ..COMMON },
    VersionSet { kubernetes: "v1.37.2", etcd: "v3.7.3", ..COMMON },
];

const COMMON: VersionSet = VersionSet {
    kubernetes: "",
    etcd: "",
    containerd: "v2.3.4",
    runc: "v1.4.3",
    cni: "v1.9.1",
    coredns: "v1.14.2",
    pause: "3.10.2",
    test_client: "1",
};

/// Every version set, oldest Kubernetes first.
#[must_use]
pub fn supported() -> &'static [VersionSet] {
    SETS
}

/// The set for `v1.36.4`, `1.36.4`, `v1.36` or `1.36`; a minor means its newest patch known here.
#[must_use]
pub fn version_set(kubernetes: &str) -> Option<VersionSet> {
    let wanted = kubernetes.strip_prefix('v').unwrap_or(kubernetes);
    let is_minor = wanted.split('.').count() == 2;
    SETS.iter().rev().copied().find(|set| {
        let version = set.kubernetes.trim_start_matches('v');
        version == wanted || (is_minor && version.rsplit_once('.').is_some_and(|(minor, _)| minor == wanted))
    })
}

/// What is versioned, fetched and built as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// The six commands of kubernetes/kubernetes that a cluster needs.
    Kubernetes,
    /// etcd with its two tools.
    Etcd,
    /// containerd with its runc shim and ctr.
    Containerd,
    /// The OCI runtime.
    Runc,
    /// The CNI plug-ins that make the pod network.
    Cni,
    /// Cluster DNS, as a binary and as an image.
    Coredns,
    /// The image that holds a pod's namespaces.
    Pause,
    /// The image that checks of Services and DNS are made with.
    TestClient,
}

impl Component {
    /// All of them, in the order in which they are fetched: what everything waits for first.
    pub const ALL: &'static [Self] =
        &[Self::Kubernetes, Self::Etcd, Self::Containerd, Self::Runc, Self::Cni, Self::Coredns, Self::Pause, Self::TestClient];

    /// The name in paths, on the command line and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::Runc => "runc",
            Self::Cni => "cni",
            Self::Coredns => "coredns",
            Self::Pause => "pause",
            Self::TestClient => "test-client",
        }
    }

    /// The version of this component in `set`.
    #[must_use]
    pub fn version(self, set: &VersionSet) -> &'static str {
        match self {
            Self::Kubernetes => set.kubernetes,
            Self::Etcd => set.etcd,
            Self::Containerd => set.containerd,
            Self::Runc => set.runc,
            Self::Cni => set.cni,
            Self::Coredns => set.coredns,
            Self::Pause => set.pause,
            Self::TestClient => set.test_client,
        }
    }

    /// The OCI archive it brings, if it is also run as a pod.
    #[must_use]
    pub fn image_archive(self) -> Option<&'static str> {
        match self {
            Self::Coredns => Some("coredns.tar"),
            Self::Pause => Some("pause.tar"),
            Self::TestClient => Some("test-client.tar"),
            Self::Kubernetes | Self::Etcd | Self::Containerd | Self::Runc | Self::Cni => None,
        }
    }

    /// Everything that [`crate::ensure`] returns for it: executables, then the image archive.
    pub fn artifacts(self) -> impl Iterator<Item = &'static str> {
        binaries(self).iter().copied().chain(self.image_archive())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Component {
    type Err = UnknownComponent;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|component| component.name() == name).ok_or_else(|| UnknownComponent(name.to_owned()))
    }
}

/// A component's name that the catalogue does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no component {0:?}; use kubernetes, etcd, containerd, runc, cni, coredns, pause or test-client")]
pub struct UnknownComponent(pub String);

/// The names of the executables that `component` brings.
#[must_use]
pub fn binaries(component: Component) -> &'static [&'static str] {
    match component {
        Component::Kubernetes => &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
        Component::Etcd => &["etcd", "etcdctl", "etcdutl"],
        Component::Containerd => &["containerd", "containerd-shim-runc-v2", "ctr"],
        Component::Runc => &["runc"],
        Component::Cni => &["bridge", "host-local", "loopback", "portmap"],
        Component::Coredns => &["coredns"],
        Component::Pause => &["pause"],
        Component::TestClient => &["probe"],
    }
}

/// The name under which the image archive of `component` is known to containerd once imported. Upstream's names for
/// upstream's programs: manifests that name them then find what was imported, and pull nothing.
#[must_use]
pub fn image_reference(component: Component, version: &str) -> Option<String> {
    match component {
        Component::Pause => Some(format!("registry.k8s.io/pause:{version}")),
        Component::Coredns => Some(format!("registry.k8s.io/coredns/coredns:{version}")),
        Component::TestClient => Some(format!("slipway.dev/test-client:{version}")),
        Component::Kubernetes | Component::Etcd | Component::Containerd | Component::Runc | Component::Cni => None,
    }
}

/// This machine's architecture in Go's words, which are also the words of every release URL: `amd64` or `arm64`.
#[must_use]
pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gomod;

    #[test]
    fn a_version_is_found_by_patch_and_by_minor_with_and_without_v() {
        for wanted in ["v1.36.4", "1.36.4", "v1.36", "1.36"] {
            assert_eq!(version_set(wanted).unwrap().kubernetes, "v1.36.4", "{wanted}");
        }
        for unknown in ["1.34", "v1.36.0", "1", "", "1.36.40", "v1.3"] {
            assert_eq!(version_set(unknown), None, "{unknown}");
        }
        assert!(version_set(DEFAULT_KUBERNETES).is_some());
    }

    #[test]
    fn every_version_in_the_catalogue_can_be_built_from_its_committed_module() {
        for set in supported() {
            for &component in Component::ALL {
                let version = component.version(set);
                let module = gomod::find(component, version);
                assert!(module.is_some(), "gomod/{component}/{version} is missing: run gomod/generate.sh {component} {version}");
                let go_mod = module.unwrap().file("go.mod").unwrap();
                if let Some(upstream) = crate::recipe::upstream_module(component) {
                    let required = format!("{upstream} {version}");
                    assert!(
                        go_mod
                            .lines()
                            .any(|line| line.trim_start_matches("require ").trim().trim_end_matches("// indirect").trim() == required),
                        "gomod/{component}/{version}/go.mod does not require {required}"
                    );
                }
            }
        }
    }

    #[test]
    fn names_of_artifacts_are_unique_across_components_so_that_they_fit_one_directory() {
        let mut names: Vec<_> = Component::ALL.iter().flat_map(|component| component.artifacts()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_component_is_parsed_from_its_name() {
        for &component in Component::ALL {
            assert_eq!(component.name().parse(), Ok(component));
        }
        assert_eq!("kubelet".parse::<Component>(), Err(UnknownComponent("kubelet".into())));
    }
}
