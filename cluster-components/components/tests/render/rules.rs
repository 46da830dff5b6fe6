//! What holds for every plan, whatever stands in it.

use crate::fixtures;
use slipway_components::{EtcdEndpoints, RenderError, machine};
use slipway_model::{MachinePlan, PoolName};
use std::collections::BTreeSet;

fn plans() -> Vec<MachinePlan> {
    let plans = |version| {
        [
            machine::control_plane(&fixtures::control_plane(version, 3)).unwrap(),
            machine::control_plane(&fixtures::control_plane(version, 1)).unwrap(),
            machine::control_plane(&fixtures::joiner(version)).unwrap(),
            machine::control_plane(&fixtures::retiring(version)).unwrap(),
            machine::worker(&fixtures::worker(version)).unwrap(),
            machine::management(&fixtures::management(version)).unwrap(),
        ]
    };
    fixtures::VERSIONS.into_iter().flat_map(plans).collect()
}

fn unique<'a>(what: &str, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let names: Vec<_> = names.into_iter().collect();
    let set: BTreeSet<_> = names.iter().copied().collect();
    assert_eq!(set.len(), names.len(), "{what} twice in {names:?}");
    set
}

/// Lines of a unit with continued ones joined.
fn lines(unit: &str) -> Vec<String> {
    unit.replace(" \\\n  ", " ").lines().map(str::to_owned).collect()
}

#[test]
fn nothing_is_named_twice_and_nothing_that_is_named_is_missing() {
    for plan in plans() {
        let files = unique("file", plan.files.iter().map(|f| f.path.as_str()));
        let artifacts = unique("artifact", plan.artifacts.iter().map(|a| a.name.as_str()));
        let units = unique("unit", plan.units.iter().map(|u| u.name.as_str()));
        let mut users = unique("user", plan.users.iter().map(|u| u.name.as_str()));
        users.insert("root");
        unique("probe", plan.probes.iter().map(|p| p.name.as_str()));
        unique("directory", plan.directories.iter().map(|d| d.path.as_str()));
        for unit in &plan.units {
            unique("file of a unit", unit.files.iter().map(String::as_str)).iter().for_each(|f| assert!(files.contains(f), "{f}"));
            unit.artifacts.iter().for_each(|a| assert!(artifacts.contains(a.as_str()), "{a}"));
            assert!(plan.probes.iter().any(|p| p.unit == unit.name), "{} has no probe", unit.name);
        }
        let mut used: BTreeSet<_> = plan.units.iter().flat_map(|u| &u.artifacts).map(String::as_str).collect();
        if used.contains("etcd") {
            used.extend(["etcdctl", "etcdutl"]);
        }
        assert_eq!(used, artifacts, "artifacts that no unit uses");
        let gated = plan.gate.iter().flat_map(|gate| &gate.units);
        gated.for_each(|unit| assert!(units.contains(unit.as_str()) && plan.probes.iter().any(|p| p.unit == *unit), "{unit}"));
        plan.probes.iter().for_each(|p| assert!(units.contains(p.unit.as_str()), "{}", p.unit));
        let owners = plan.files.iter().map(|f| &f.owner).chain(plan.directories.iter().map(|d| &d.owner));
        owners.for_each(|owner| assert!(users.contains(owner.as_str()), "{owner}"));
    }
}

#[test]
fn every_program_is_one_of_the_units_artifacts() {
    for plan in plans() {
        for unit in &plan.units {
            for line in lines(&unit.content) {
                let Some((key, command)) = line.split_once('=').filter(|(key, _)| key.starts_with("ExecStart")) else { continue };
                for word in command.split(' ').filter(|word| word.starts_with("/opt/slipway/bin/")) {
                    let name = word.rsplit('/').next().unwrap();
                    assert!(name == "slipway-agent" || unit.artifacts.iter().any(|a| a == name), "{}: {key} {word}", unit.name);
                }
                let program = command.split(' ').next().unwrap();
                assert!(program.starts_with("/opt/slipway/bin/") || program.starts_with("/usr/"), "{program}");
            }
        }
    }
}

#[test]
fn every_file_that_a_unit_names_is_in_the_plan_and_restarts_it() {
    for plan in plans() {
        for unit in &plan.units {
            let words: Vec<_> = lines(&unit.content).iter().flat_map(|l| l.split(' ').map(str::to_owned).collect::<Vec<_>>()).collect();
            let paths = words.iter().filter_map(|word| word.rsplit('=').next()).filter(|word| word.starts_with("/etc/"));
            for path in paths.filter(|path| !plan.directories.iter().any(|d| d.path == **path)) {
                assert!(unit.files.iter().any(|file| file == path), "{} uses {path} and is not restarted by it", unit.name);
            }
        }
    }
}

#[test]
fn every_file_lies_in_a_directory_that_its_unit_may_enter() {
    for plan in plans() {
        for file in plan.files.iter().filter(|file| file.path.starts_with("/etc/kubernetes")) {
            let parent = file.path.rsplit_once('/').unwrap().0;
            let directory = plan.directories.iter().find(|d| d.path == parent).unwrap_or_else(|| panic!("no {parent}"));
            assert!(directory.owner == file.owner || directory.mode & 0o005 == 0o005, "{}", file.path);
        }
        let position = |path: &str| plan.directories.iter().position(|d| d.path == path);
        for directory in &plan.directories {
            let parent = position(directory.path.rsplit_once('/').unwrap().0);
            assert!(parent <= position(&directory.path), "{} before its parent", directory.path);
        }
    }
}

#[test]
fn keys_are_read_by_their_owner_alone_and_that_is_who_the_unit_runs_as() {
    for plan in plans() {
        for file in &plan.files {
            let text = String::from_utf8(file.content.0.clone()).unwrap();
            if text.contains("PRIVATE KEY") || text.contains("client-key-data") {
                assert_eq!(file.mode & 0o077, 0, "{}", file.path);
            }
        }
        for unit in &plan.units {
            let user = unit.content.lines().find_map(|line| line.strip_prefix("User=")).unwrap_or("root");
            for path in &unit.files {
                let file = plan.files.iter().find(|file| file.path == *path).unwrap();
                assert!(file.owner == user || file.mode & 0o004 != 0, "{}: {path} belongs to {}", unit.name, file.owner);
            }
        }
    }
}

#[test]
fn only_nodes_run_anything_as_root() {
    let node = ["slipway-host", "containerd", "slipway-sandbox-image", "slipway-images", "kubelet", "kube-proxy"];
    for unit in plans().iter().flat_map(|plan| &plan.units) {
        let root = !unit.content.contains("\nUser=");
        assert_eq!(root, node.iter().any(|name| unit.name == format!("{name}.service")), "{}", unit.name);
        assert_eq!(root, !unit.content.contains("NoNewPrivileges=yes"), "{}", unit.name);
    }
}

#[test]
fn a_worker_holds_no_key_of_the_control_planes() {
    let plan = machine::worker(&fixtures::worker("v1.36.4")).unwrap();
    let text: String = plan.files.iter().map(|file| String::from_utf8_lossy(&file.content.0).into_owned()).collect();
    for foreign in ["KEY: cluster CA", "etcd", "apiserver", "scheduler", "service accounts", "front"] {
        assert!(!text.contains(foreign), "{foreign}");
    }
}

#[test]
fn rendering_is_the_same_every_time() {
    let render = || machine::control_plane(&fixtures::control_plane("v1.36.4", 3)).unwrap().digest();
    assert_eq!(render(), render());
}

/// Units that an agent would restart on the way from one plan to the other.
fn restarted(from: &MachinePlan, to: &MachinePlan) -> Vec<String> {
    let changed = |unit: &&slipway_model::Unit| {
        let file = |plan: &MachinePlan, path: &String| plan.files.iter().find(|f| f.path == *path).cloned();
        let artifact = |plan: &MachinePlan, name: &String| plan.artifacts.iter().find(|a| a.name == *name).cloned();
        from.units.iter().all(|old| old != *unit)
            || unit.files.iter().any(|path| file(from, path) != file(to, path))
            || unit.artifacts.iter().any(|name| artifact(from, name) != artifact(to, name))
    };
    to.units.iter().filter(changed).map(|unit| unit.name.trim_end_matches(".service").to_owned()).collect()
}

#[test]
fn a_change_restarts_what_it_must_and_nothing_else() {
    let machine = fixtures::control_plane("v1.36.4", 3);
    let before = machine::control_plane(&machine).unwrap();
    let restarts = |change: &dyn Fn(&mut slipway_components::ControlPlaneMachine)| {
        let mut machine = machine.clone();
        change(&mut machine);
        restarted(&before, &machine::control_plane(&machine).unwrap())
    };
    assert_eq!(restarts(&|_| ()), Vec::<String>::new());
    assert_eq!(restarts(&|m| m.credentials.node.kube_proxy = fixtures::credential("renewed")), ["kube-proxy"]);
    assert_eq!(restarts(&|m| m.credentials.etcd_peer = fixtures::credential("renewed")), ["etcd"]);
    assert_eq!(restarts(&|m| m.credentials.etcd_client = fixtures::credential("renewed")), ["kube-apiserver"]);
    assert_eq!(restarts(&|m| drop(m.machine.labels.insert("a".into(), "b".into()))), ["kubelet"]);
    assert_eq!(restarts(&|m| m.artifacts.get_mut("runc").unwrap().sha256 = "another".into()), ["containerd"]);
    assert_eq!(restarts(&|m| m.artifacts.get_mut("kubelet").unwrap().sha256 = "another".into()), ["kubelet"]);
    assert_eq!(restarts(&|m| m.artifacts.get_mut("etcdctl").unwrap().sha256 = "another".into()), Vec::<String>::new());
    assert_eq!(restarts(&|m| m.cluster.images.others.truncate(1)), ["slipway-images"]);
    assert_eq!(restarts(&|m| m.cluster.profile.leader_election.lease = 60), ["kube-controller-manager", "kube-scheduler"]);
    let etcds = vec!["198.18.1.11".parse().unwrap()];
    assert_eq!(restarts(&|m| m.etcd_endpoints = EtcdEndpoints::All(etcds.clone())), ["kube-apiserver"]);
}

#[test]
fn a_machine_that_retires_keeps_its_member_and_its_node() {
    let (serving, retiring) = (fixtures::control_plane("v1.36.4", 3), fixtures::retiring("v1.36.4"));
    let (serving, retiring) = (machine::control_plane(&serving).unwrap(), machine::control_plane(&retiring).unwrap());
    let names = |plan: &MachinePlan| plan.units.iter().map(|u| u.name.trim_end_matches(".service").to_owned()).collect::<BTreeSet<_>>();
    let ended: Vec<_> = names(&serving).difference(&names(&retiring)).cloned().collect();
    assert_eq!(ended, ["cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    assert_eq!(names(&retiring).difference(&names(&serving)).count(), 0);
    assert_eq!(restarted(&serving, &retiring), ["kubelet", "kube-proxy"]);
    let text: String = retiring.files.iter().map(|file| String::from_utf8_lossy(&file.content.0).into_owned()).collect();
    assert!(serving.gate.is_some() && retiring.gate.is_none());
    assert!(!text.contains("127.0.0.1:6443") && !text.contains("KEY: cluster CA") && !text.contains("service accounts"));
}

#[test]
fn what_cannot_be_rendered_says_why() {
    let mut machine = fixtures::worker("v1.36.4");
    machine.artifacts.remove("kubelet");
    let missing = RenderError::MissingArtifact { name: "kubelet".into(), unit: "kubelet.service".into() };
    assert_eq!(machine::worker(&machine).unwrap_err(), missing);
    let mut machine = fixtures::control_plane("v1.36.4", 3);
    machine.machine.node = "demo-cp-9".into();
    assert!(machine::control_plane(&machine).unwrap_err().to_string().contains("demo-cp-9=198.18.1.10"));
}

#[test]
fn control_plane_nodes_are_tainted_and_pools_keep_their_own_taints() {
    let kubelet = |plan: &MachinePlan| {
        let file = plan.files.iter().find(|file| file.path == "/etc/kubernetes/kubelet.json").unwrap().clone();
        serde_json::from_slice::<serde_json::Value>(&file.content.0).unwrap()["registerWithTaints"].clone()
    };
    let mut worker = fixtures::worker("v1.36.4");
    let own = serde_json::json!([{ "key": "dedicated", "value": "red", "effect": "PreferNoSchedule" }]);
    assert_eq!(kubelet(&machine::worker(&worker).unwrap()), own);
    worker.machine.pool = PoolName::control_plane();
    worker.machine.taints.clear();
    let taint = serde_json::json!([{ "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule" }]);
    assert_eq!(kubelet(&machine::worker(&worker).unwrap()), taint);
}
