//! The executables in this machine's store say the versions that the catalogue says. Where the store has none of a version,
//! that is skipped, and said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use slipway_artifacts::{Component, Store, catalogue};

/// What to ask `binary` with, and what its answer must have if it is of `version`.
fn question(binary: &str, version: &str) -> Option<(&'static [&'static str], String)> {
    let plain = version.trim_start_matches('v');
    match binary {
        "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kubelet" | "kube-proxy" => {
            Some((&["--version"], format!("Kubernetes {version}\n")))
        }
        "kubectl" => Some((&["version", "--client"], format!("Client Version: {version}\n"))),
        "etcd" => Some((&["--version"], format!("etcd Version: {plain}\n"))),
        "etcdctl" | "etcdutl" => Some((&["version"], format!("version: {plain}\n"))),
        "containerd" | "ctr" => Some((&["--version"], format!(" {version}"))),
        "containerd-shim-runc-v2" => Some((&["-v"], format!(" {version}\n"))),
        "runc" => Some((&["--version"], format!("runc version {plain}\n"))),
        "bridge" | "host-local" | "loopback" | "portmap" => Some((&["--version"], format!(" plugin {version}\n"))),
        "coredns" => Some((&["-version"], format!("CoreDNS-{plain}\n"))),
        "pause" => Some((&["-v"], format!("pause {version} "))),
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
                let Some((arguments, expected)) = question(binary, version) else { continue };
                let Some(artifact) = store.lookup(component.name(), version, binary) else {
                    absent.push(format!("{component} {version} {binary}"));
                    continue;
                };
                store.check(&artifact).expect("what is run is checked before");
                let output = Command::new(&artifact.path).args(arguments).output().unwrap();
                // The plug-ins and the shim answer on standard error.
                let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
                assert!(said.contains(&expected), "{} says {said:?}, not {expected:?}", artifact.path.display());
                asked += 1;
            }
        }
    }
    eprintln!("{asked} executables asked; SKIPPED, as not in the store: {absent:?}");
}
