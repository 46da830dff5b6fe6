//! The executables in this machine's store say the versions that the catalogue says. Where the store has none of a version,
//! that is skipped, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use slipway_artifacts::{Component, Store, catalogue};

/// What to run, and how its answer begins or what line it has, for the version `v`.
fn question(binary: &str) -> Option<(&'static [&'static str], fn(&str, &str) -> bool)> {
    match binary {
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kubelet" | "kube-proxy" => {
            Some((&["--version"], |said, v| said.trim() == format!("Kubernetes {v}")))
        }
        "kubectl" => Some((&["version", "--client"], |said, v| said.contains(&format!("Client Version: {v}\n")))),
        "etcd" => Some((&["--version"], |said, v| said.contains(&format!("etcd Version: {}\n", v.trim_start_matches('v'))))),
        "etcdctl" | "etcdutl" => Some((&["version"], |said, v| said.contains(&format!("version: {}\n", v.trim_start_matches('v'))))),
        "containerd" | "ctr" => Some((&["--version"], |said, v| said.contains(&format!(" {v}")))),
        "containerd-shim-runc-v2" => Some((&["-v"], |said, v| said.contains(v))),
        "runc" => Some((&["--version"], |said, v| said.contains(&format!("runc version {}\n", v.trim_start_matches('v'))))),
        "bridge" | "host-local" | "loopback" | "portmap" => Some((&["--version"], |said, v| said.contains(v))),
        "coredns" => Some((&["-version"], |said, v| said.contains(&format!("CoreDNS-{}\n", v.trim_start_matches('v'))))),
        "pause" => Some((&["-v"], |said, v| said.contains(v))),
        _ => None,
    }
}

#[test]
fn executables_in_the_store_say_the_versions_of_the_catalogue() {
    let there = Store::default_dir().ok().filter(|dir| dir.is_dir());
    let Some(store) = there.and_then(|dir| Store::open(&dir).ok()) else {
        eprintln!("SKIPPED: this machine has no store; `slipway artifacts fetch` makes one");
        return;
    };
    let (mut asked, mut absent) = (0, Vec::new());
    for set in catalogue::supported() {
        for &component in Component::ALL {
            let version = component.version(set);
            for binary in catalogue::binaries(component) {
                let Some((arguments, is_right)) = question(binary) else { continue };
                let Some(artifact) = store.lookup(component.name(), version, binary) else {
                    absent.push(format!("{component} {version} {binary}"));
                    continue;
                };
                store.check(&artifact).expect("what is run is checked before");
                let output = Command::new(&artifact.path).args(arguments).output().unwrap();
                // The plug-ins and the shim answer on standard error.
                let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(is_right(&said, version), "{} says {said:?}, not {version}", artifact.path.display());
                asked += 1;
            }
        }
    }
    eprintln!("{asked} executables asked; SKIPPED, as not in the store: {absent:?}");
}
