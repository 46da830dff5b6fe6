//! Which units restart on the way from one plan to the next.

use super::clusters::{Cluster, Machine, fingerprints, index, programs, spec, versions};
use super::golden::joined;
use crate::artifacts::CLOUD_CONTROLLER_MANAGER;
use crate::render::Error;
use slipway_model::{MachinePlan, Part};

const HA: &str = include_str!("../../../../examples/local-ha.yaml");

/// Units that restart or start, and those that end.
fn changes(from: &MachinePlan, to: &MachinePlan) -> (Vec<String>, Vec<String>) {
    let (before, after) = (fingerprints(from), fingerprints(to));
    let restarted = after.iter().filter(|(unit, print)| before.get(*unit) != Some(print)).map(|(unit, _)| unit.clone()).collect();
    let ended = before.keys().filter(|unit| !after.contains_key(*unit)).cloned().collect();
    (restarted, ended)
}

fn cluster(kubernetes: &str) -> Cluster {
    Cluster::new(spec(HA, kubernetes))
}

#[test]
fn a_part_restarts_its_own_units_and_no_others() {
    for (from, to, etcd) in [("v1.35.8", "v1.36.4", false), ("v1.36.4", "v1.37.2", true)] {
        // The spec has changed before the first machine is told.
        let cluster = cluster(to);
        let mut machine = Machine { versions: versions(from), ..cluster.machines[0].clone() };
        let mut plan = cluster.plan(&machine).unwrap();
        let mut step = |part| {
            machine.versions = machine.versions.with(part, &versions(to));
            let next = cluster.plan(&machine).unwrap();
            let (restarted, ended) = changes(&plan, &next);
            assert_eq!(ended, Vec::<String>::new());
            plan = next;
            restarted
        };
        assert_eq!(step(Part::Etcd), if etcd { vec!["etcd"] } else { vec![] }, "{from} to {to}");
        assert_eq!(step(Part::ApiServer), ["kube-apiserver"], "{from} to {to}");
        assert_eq!(step(Part::Controllers), ["kube-controller-manager", "kube-scheduler"], "{from} to {to}");
        assert_eq!(step(Part::Node), ["kube-proxy", "kubelet"], "{from} to {to}");
        assert_eq!(plan, cluster.plan(&cluster.machines[0]).unwrap(), "what was upgraded is what would have been made new");
    }
}

#[test]
fn a_new_spec_alone_changes_no_machine() {
    let (old, new) = (cluster("v1.36.4"), cluster("v1.37.2"));
    old.machines.iter().for_each(|machine| assert_eq!(old.plan(machine).unwrap(), new.plan(machine).unwrap()));
}

#[test]
fn containerd_restarts_alone_and_kills_no_pod() {
    let cluster = cluster("v1.36.4");
    let machine = cluster.machines[3].clone();
    let before = cluster.plan(&machine).unwrap();
    // Another build of it: the catalogue has one version.
    let mut after = before.clone();
    after
        .artifacts
        .iter_mut()
        .filter(|a| a.name == "containerd" || a.name == "containerd-shim-runc-v2")
        .for_each(|a| a.sha256 = "00".repeat(32));
    assert_eq!(changes(&before, &after), (vec!["containerd".to_owned()], vec![]));
    let unit = before.units.iter().find(|unit| unit.name == "containerd.service").unwrap();
    assert!(unit.content.lines().any(|line| line == "KillMode=process"));
    // What is merely started behind it stays when it restarts.
    before.units.iter().for_each(|unit| {
        let bound = ["Requires=", "BindsTo=", "PartOf="].iter().any(|key| unit.content.contains(key));
        assert!(!bound, "{} would be restarted with another unit", unit.name);
    });
}

#[test]
fn members_that_come_and_go_change_nobody_else() {
    let founding = cluster("v1.36.4");
    let later = joined(&founding);
    let mut later_on = cluster("v1.36.4");
    later_on.machines.retain(|m| m.name.as_str() != "demo-cp-1");
    later_on.machines.push(later.clone());
    for machine in &later_on.machines {
        assert_eq!(founding.plan(machine).unwrap(), later_on.plan(machine).unwrap(), "{}", machine.name);
    }
    let plan = later_on.plan(&later).unwrap();
    let etcd = &plan.units.iter().find(|unit| unit.name == "etcd.service").unwrap().content;
    for words in ["--initial-cluster-state=existing", "demo-cp-3=https://198.18.1.40:2380", "-demo-cp-0", "/var/lib/etcd/demo-cp-3"] {
        assert!(etcd.contains(words), "{words} is missing in {etcd}");
    }
    assert!(!etcd.contains("demo-cp-1="));
}

#[test]
fn a_machine_that_retires_ends_its_api_server_and_keeps_its_member() {
    let cluster = cluster("v1.36.4");
    for machine in [cluster.machines[0].clone(), joined(&cluster)] {
        let (before, after) = (cluster.plan(&machine).unwrap(), cluster.plan(&Machine { retiring: true, ..machine }).unwrap());
        let (restarted, ended) = changes(&before, &after);
        assert_eq!(restarted, ["kube-proxy", "kubelet"]);
        assert_eq!(ended, ["cloud-controller-manager", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]);
    }
}

#[test]
fn a_new_release_of_slipway_restarts_nothing() {
    let cluster = cluster("v1.36.4");
    let machine = cluster.machines[0].clone();
    let plan = cluster.plan(&machine).unwrap();
    let ccm = |plan: &MachinePlan| plan.artifacts.iter().find(|a| a.name == CLOUD_CONTROLLER_MANAGER).unwrap().clone();
    // The index has another build than the one that the machine was born with.
    assert_eq!(ccm(&plan).sha256, programs()[0].sha256);
    assert_ne!(index().own(CLOUD_CONTROLLER_MANAGER).unwrap().sha256, programs()[0].sha256);
    // It comes with the controllers.
    let next = cluster.plan(&Machine { programs: index().programs(), ..machine }).unwrap();
    assert_eq!(changes(&plan, &next), (vec!["cloud-controller-manager".to_owned()], vec![]));
}

#[test]
fn a_control_plane_without_a_birth_is_not_rendered() {
    let cluster = cluster("v1.36.4");
    let stranger = Machine { name: "demo-cp-4".parse().unwrap(), ..cluster.machines[0].clone() };
    assert!(matches!(cluster.plan(&stranger), Err(Error::NoMember(name)) if name.as_str() == "demo-cp-4"));
    let mut worker = cluster.machines[0].clone();
    worker.versions.control_plane = None;
    assert!(matches!(cluster.plan(&worker), Err(Error::NoVersions(_))));
}
