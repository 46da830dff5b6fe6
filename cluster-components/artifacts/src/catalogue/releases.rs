//! Where upstream publishes its binaries, and the digests of what it published.
//!
//! A digest stands here only if it was published and read from a source independent of the download: the asset lists that
//! kops pins (`pkg/assets/assetdata`, kept by its maintainers for the same purpose) for Kubernetes, containerd, runc and the
//! CNI plug-ins, and the pins of several unrelated projects for etcd and CoreDNS. A file without one is not downloaded: the
//! `.sha256` beside a file proves nothing about who put both there. Such versions are built from Go modules, whose sums are
//! committed.

use super::Component;

/// One file of an official release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is published.
    pub url: String,
    /// The digest of the file at `url`, in lower-case hex; `None` means that the source is not used.
    pub sha256: Option<&'static str>,
    /// Whether the file is the executable or holds it.
    pub packaging: Packaging,
}

/// What is at a [`Source`]'s URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packaging {
    /// The executable itself.
    Plain,
    /// A gzipped tar archive.
    TarGz {
        /// The path of the executable in it, without a leading `./`.
        member: String,
    },
}

/// The official release of `binary`; `None` if upstream publishes no such executable.
#[must_use]
pub fn official(component: Component, version: &str, arch: &str, binary: &str) -> Option<Source> {
    if !super::binaries(component).contains(&binary) {
        return None;
    }
    let plain = version.trim_start_matches('v');
    let (url, packaging) = match component {
        Component::Kubernetes => (format!("https://dl.k8s.io/release/{version}/bin/linux/{arch}/{binary}"), Packaging::Plain),
        Component::Etcd => {
            let name = format!("etcd-{version}-linux-{arch}");
            let url = format!("https://github.com/etcd-io/etcd/releases/download/{version}/{name}.tar.gz");
            (url, Packaging::TarGz { member: format!("{name}/{binary}") })
        }
        Component::Containerd => (
            format!("https://github.com/containerd/containerd/releases/download/{version}/containerd-{plain}-linux-{arch}.tar.gz"),
            Packaging::TarGz { member: format!("bin/{binary}") },
        ),
        Component::Runc => (format!("https://github.com/opencontainers/runc/releases/download/{version}/runc.{arch}"), Packaging::Plain),
        Component::Cni => (
            format!("https://github.com/containernetworking/plugins/releases/download/{version}/cni-plugins-linux-{arch}-{version}.tgz"),
            Packaging::TarGz { member: binary.to_owned() },
        ),
        Component::Coredns => (
            format!("https://github.com/coredns/coredns/releases/download/{version}/coredns_{plain}_linux_{arch}.tgz"),
            Packaging::TarGz { member: "coredns".to_owned() },
        ),
        // Ours.
        Component::Pause | Component::TestClient => return None,
    };
    let sha256 = DIGESTS.iter().find(|(known, _)| url.ends_with(known)).map(|(_, digest)| *digest);
    Some(Source { url, sha256, packaging })
}

/// The end of a URL, long enough to name component, version, architecture and file, and its digest.
const DIGESTS: &[(&str, &str)] = &[
    ("/release/v1.36.4/bin/linux/amd64/kube-apiserver", "90939ee07af61ac3701c665647f9ce27f2f988f5c7fff406aa5794fd3e6328a6"),
    ("/release/v1.36.4/bin/linux/amd64/kube-controller-manager", "ddde92e0dd14e5a01c3b178b235a85c71d531f2f344eb519500c1032f0a0d234"),
    ("/release/v1.36.4/bin/linux/amd64/kube-proxy", "74cb03e6251ae711a9363c27d1050f5106cc71ecc3334722cf9c29404638cf7a"),
    ("/release/v1.36.4/bin/linux/amd64/kube-scheduler", "6ffbffcc6d57990b86a7ac4a547ad3e75b2c28cc901964f99bd13ffb304d2373"),
    ("/release/v1.36.4/bin/linux/amd64/kubectl", "8b8f088da2dab964f853b38464033b1be15ede2839eca751482357c45abdd05a"),
    ("/release/v1.36.4/bin/linux/amd64/kubelet", "cf2562db46c48ab84cc3791540778ee7fb1a0a008529adbb434723dd02ed8b4b"),
    ("/release/v1.36.4/bin/linux/arm64/kube-apiserver", "5dd6f9f59cf75c936f5789d788d6fc39ce9a39d3d8e503d7cad43468c1d1f092"),
    ("/release/v1.36.4/bin/linux/arm64/kube-controller-manager", "70f8cf4eca064585fd2add71f052c02a4ad9ad1378eb28c029d6e61574fe25dc"),
    ("/release/v1.36.4/bin/linux/arm64/kube-proxy", "342415ae03944d0368ccba6e0c33302bd59e92d08e7faf4817d4af9fc7ac134b"),
    ("/release/v1.36.4/bin/linux/arm64/kube-scheduler", "97a1eafa7185944d5f39d48b0bc9ddbe6c2810efa6e880c4ff9c8d2878a9db35"),
    ("/release/v1.36.4/bin/linux/arm64/kubectl", "0ecf44450ee6063bf19dd166a103ee6df4a9034455c2abce626e6eea657d73fb"),
    ("/release/v1.36.4/bin/linux/arm64/kubelet", "fd53ea3fcbd077844f50a3c67e9b52f62972a563674956bab0c0f4fb7ea37d50"),
    ("/v3.6.14/etcd-v3.6.14-linux-amd64.tar.gz", "ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5"),
    ("/v3.6.14/etcd-v3.6.14-linux-arm64.tar.gz", "fa1b80565ee6fc2df1ae6f57a508b221f3ecc7d591c317c581cd8281b0842b3e"),
    ("/v2.3.4/containerd-2.3.4-linux-amd64.tar.gz", "9d68969855fbf676cdb8ed758e420fb048d61f984f61de3e53eddfebe484d168"),
    ("/v2.3.4/containerd-2.3.4-linux-arm64.tar.gz", "a985fbb7e18fc0362d31a055338f5d7b0e087a3e27f14c70d1c5965399a29f95"),
    ("/runc/releases/download/v1.4.3/runc.amd64", "f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60"),
    ("/runc/releases/download/v1.4.3/runc.arm64", "633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4"),
    ("/v1.9.1/cni-plugins-linux-amd64-v1.9.1.tgz", "b98f74a0f8522f0a83867178729c1aa70f2158f90c45a2ca8fa791db1c76b303"),
    ("/v1.9.1/cni-plugins-linux-arm64-v1.9.1.tgz", "56171987d3947707c3563db2f4001bccaf50fd63468611b9f3cbecb1375ee7ec"),
    ("/v1.14.2/coredns_1.14.2_linux_amd64.tgz", "2f08896df9d28ea0cd2294037e6d66e82f996b504e4901b791be8a3ae042029b"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::{binaries, supported};

    #[test]
    fn every_digest_is_sha256_in_lower_case_and_belongs_to_a_file_of_the_catalogue() {
        for (end, digest) in DIGESTS {
            assert_eq!(digest.len(), 64, "{end}");
            assert!(digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{end}");
            let used = supported().iter().any(|set| {
                Component::ALL.iter().any(|&component| {
                    ["amd64", "arm64"].iter().any(|arch| {
                        binaries(component).iter().any(|binary| {
                            official(component, component.version(set), arch, binary).is_some_and(|source| source.url.ends_with(end))
                        })
                    })
                })
            });
            assert!(used, "{end} is no file of any version in the catalogue");
        }
    }

    #[test]
    fn the_default_version_is_pinned_for_amd64_in_every_component_that_upstream_publishes() {
        let set = crate::catalogue::version_set(crate::catalogue::DEFAULT_KUBERNETES).unwrap();
        for &component in Component::ALL {
            for binary in binaries(component) {
                if let Some(source) = official(component, component.version(&set), "amd64", binary) {
                    assert!(source.sha256.is_some(), "{}", source.url);
                }
            }
        }
    }

    #[test]
    fn what_upstream_does_not_publish_has_no_source() {
        assert_eq!(official(Component::Pause, "3.10.2", "amd64", "pause"), None);
        assert_eq!(official(Component::Kubernetes, "v1.36.4", "amd64", "kubeadm"), None);
    }
}
