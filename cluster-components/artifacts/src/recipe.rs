//! How each component is compiled: packages, tags, linker flags, stamps. Pure data; `toolchain` runs it.
//!
//! Stamps are upstream's own: without them kubelet reports v0.0.0 and every version-skew check goes wrong. What a build from
//! a module cannot know (the commit) is left empty, and Kubernetes' tree state says `archive`, upstream's word for a build from
//! an export instead of a checkout. Dates are the release's, so the same inputs give the same bytes.

use sha2::{Digest, Sha256};

use crate::catalogue::Component;
use crate::gomod::Module;

/// One `go build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// Import paths, each with the name of the executable it becomes.
    pub packages: Vec<(String, &'static str)>,
    pub tags: &'static str,
    pub ldflags: String,
    /// Only runc: its nsenter part is C.
    pub cgo: bool,
}

/// Strip symbols and debug information, as every upstream does for its releases.
const STRIP: &str = "-s -w";

/// Go settings of every build; whatever the user has set for the same names does not change what comes out.
pub(crate) const ENVIRONMENT: &[(&str, &str)] =
    &[("GOTOOLCHAIN", "local"), ("GOFLAGS", "-buildvcs=false -mod=readonly"), ("GOWORK", "off"), ("GO111MODULE", "on"), ("GOOS", "linux")];

/// The module that a component's version is the version of; `None` for our own programs.
pub(crate) fn upstream_module(component: Component) -> Option<&'static str> {
    match component {
        Component::Kubernetes => Some("k8s.io/kubernetes"),
        Component::Etcd => Some("go.etcd.io/etcd/server/v3"),
        Component::Containerd => Some("github.com/containerd/containerd/v2"),
        Component::Runc => Some("github.com/opencontainers/runc"),
        Component::Cni => Some("github.com/containernetworking/plugins"),
        Component::Coredns => Some("github.com/coredns/coredns"),
        Component::Pause | Component::TestClient => None,
    }
}

/// All builds of a component.
pub(crate) fn recipe(component: Component, version: &str) -> Vec<Invocation> {
    match component {
        Component::Kubernetes => kubernetes(version),
        Component::Etcd => vec![Invocation {
            // The server's package is named after its directory.
            packages: [("server", "etcd"), ("etcdctl", "etcdctl"), ("etcdutl", "etcdutl")]
                .map(|(module, binary)| (format!("go.etcd.io/etcd/{module}/v3"), binary))
                .to_vec(),
            tags: "",
            ldflags: format!("{STRIP} -X go.etcd.io/etcd/api/v3/version.GitSHA=module-{version}"),
            cgo: false,
        }],
        Component::Containerd => containerd(version),
        Component::Runc => vec![Invocation {
            packages: vec![("github.com/opencontainers/runc".into(), "runc")],
            tags: "seccomp,urfave_cli_no_docs,netgo,osusergo",
            ldflags: format!("{STRIP} -linkmode external -extldflags -static"),
            cgo: true,
        }],
        Component::Cni => {
            let module = "github.com/containernetworking/plugins";
            vec![Invocation {
                packages: [("main", "bridge"), ("ipam", "host-local"), ("main", "loopback"), ("meta", "portmap")]
                    .map(|(kind, plugin)| (format!("{module}/plugins/{kind}/{plugin}"), plugin))
                    .to_vec(),
                tags: "",
                ldflags: format!("{STRIP} -X {module}/pkg/utils/buildversion.BuildVersion={version}"),
                cgo: false,
            }]
        }
        Component::Coredns => vec![Invocation {
            packages: vec![("github.com/coredns/coredns".into(), "coredns")],
            tags: "grpcnotrace",
            ldflags: format!("{STRIP} -X github.com/coredns/coredns/coremain.GitCommit={}", coredns_commit(version)),
            cgo: false,
        }],
        Component::Pause => vec![own("slipway.dev/pause", "pause")],
        Component::TestClient => vec![own("slipway.dev/test-client", "probe")],
    }
}

fn own(package: &str, binary: &'static str) -> Invocation {
    Invocation { packages: vec![(package.into(), binary)], tags: "", ldflags: STRIP.into(), cgo: false }
}

fn kubernetes(version: &str) -> Vec<Invocation> {
    let minor = version.trim_start_matches("v1.").split('.').next().unwrap_or_default();
    let mut ldflags = STRIP.to_owned();
    // kubelet and the control plane read the first, everything with a client's user agent the second.
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", version),
            ("gitMajor", "1"),
            ("gitMinor", minor),
            ("gitCommit", ""),
            ("gitTreeState", "archive"),
            ("buildDate", kubernetes_date(version)),
        ] {
            ldflags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    vec![Invocation {
        packages: crate::catalogue::binaries(Component::Kubernetes)
            .iter()
            .map(|&command| (format!("k8s.io/kubernetes/cmd/{command}"), command))
            .collect(),
        tags: "",
        ldflags,
        cgo: false,
    }]
}

/// When the release was tagged, by the module's own information.
fn kubernetes_date(version: &str) -> &'static str {
    match version {
        "v1.35.8" => "2026-08-20T15:16:14Z",
        "v1.36.4" => "2026-08-20T11:51:43Z",
        "v1.37.2" => "2026-10-27T12:01:04Z",
        _ => "1970-01-01T00:00:00Z",
    }
}

/// The commit of the tag, by the module's own information, as short as `git describe --always` has it.
fn coredns_commit(version: &str) -> &'static str {
    match version {
        "v1.14.2" => "dd1df4f5",
        _ => "",
    }
}

fn containerd(version: &str) -> Vec<Invocation> {
    let module = "github.com/containerd/containerd/v2";
    let ldflags = format!("{STRIP} -X {module}/version.Version={version} -X {module}/version.Revision=");
    let package = |command| (format!("{module}/cmd/{command}"), command);
    vec![
        Invocation {
            packages: vec![package("containerd"), package("ctr")],
            // no_btrfs: that snapshotter is C. The others make a static binary that needs no libc's name service.
            tags: "urfave_cli_no_docs,no_btrfs,osusergo,netgo,static_build",
            ldflags: ldflags.clone(),
            cgo: false,
        },
        Invocation {
            packages: vec![package("containerd-shim-runc-v2")],
            // Upstream builds the shim without gRPC: one runs beside every pod.
            tags: "urfave_cli_no_docs,no_btrfs,osusergo,netgo,static_build,no_grpc",
            ldflags,
            cgo: false,
        },
    ]
}

/// What an artifact's origin says after `gomod:`: a digest of all that decides what is compiled. A changed recipe or module
/// makes what is in a store stale, and it is built anew.
pub(crate) fn digest(module: &Module, invocations: &[Invocation]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for (name, contents) in module.files() {
        add(name);
        add(contents);
    }
    for (name, value) in ENVIRONMENT {
        add(name);
        add(value);
    }
    for invocation in invocations {
        for (package, binary) in &invocation.packages {
            add(package);
            add(binary);
        }
        add(invocation.tags);
        add(&invocation.ldflags);
        add(if invocation.cgo { "cgo" } else { "" });
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::{binaries, supported};

    #[test]
    fn the_recipes_make_exactly_the_binaries_of_the_catalogue() {
        for &component in Component::ALL {
            let mut made: Vec<_> = recipe(component, "v1.36.4")
                .into_iter()
                .flat_map(|invocation| invocation.packages.into_iter().map(|(_, binary)| binary))
                .collect();
            let mut wanted = binaries(component).to_vec();
            made.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(made, wanted, "{component}");
        }
    }

    #[test]
    fn every_package_that_is_built_is_a_tool_of_its_module_so_that_tidying_keeps_it() {
        for set in supported() {
            for &component in Component::ALL.iter().filter(|component| upstream_module(**component).is_some()) {
                let version = component.version(set);
                let go_mod = crate::gomod::find(component, version).unwrap().file("go.mod").unwrap();
                for (package, _) in recipe(component, version).into_iter().flat_map(|i| i.packages) {
                    assert!(
                        go_mod.lines().any(|line| line.trim().trim_start_matches("tool ") == package),
                        "gomod/{component}/{version} has no tool {package}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_kubernetes_version_of_the_catalogue_has_its_stamps() {
        for set in supported() {
            let ldflags = recipe(Component::Kubernetes, set.kubernetes).remove(0).ldflags;
            let minor = set.kubernetes.split('.').nth(1).unwrap();
            for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
                assert!(ldflags.contains(&format!("-X {package}.gitVersion={} ", set.kubernetes)), "{ldflags}");
                assert!(ldflags.contains(&format!("-X {package}.gitMinor={minor} ")), "{ldflags}");
            }
            assert!(!ldflags.contains("1970"), "add the date of {} to kubernetes_date", set.kubernetes);
        }
    }

    #[test]
    fn the_digest_changes_with_the_flags() {
        let module = crate::gomod::find(Component::Coredns, "v1.14.2").unwrap();
        let one = recipe(Component::Coredns, "v1.14.2");
        let mut other = one.clone();
        other.first_mut().unwrap().tags = "";
        assert_ne!(digest(module, &one), digest(module, &other));
        assert_eq!(digest(module, &one), digest(module, &one));
    }
}
