//! Version skew: the rules in a table, and random changes that pass the guard and never break a rule, whatever machines have made real by then.

use crate::build::versions;
use crate::traces::config;
use proptest::prelude::*;
use slipway_model::{ControlPlaneVersions, KubernetesVersion, MachineName, MachineVersions, NodeVersions};
use slipway_plan::{Running, SkewViolation, skew_allows, skew_violations};

fn name(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

fn minor(minor: u32) -> KubernetesVersion {
    KubernetesVersion { minor, patch: 1 }
}

fn plane(etcd: &str, api_server: u32, controllers: u32, kubelet: u32) -> MachineVersions {
    let control_plane =
        ControlPlaneVersions { etcd: etcd.parse().unwrap(), api_server: minor(api_server), controllers: minor(controllers) };
    MachineVersions { control_plane: Some(control_plane), node: node(kubelet) }
}

fn worker(kubelet: u32) -> MachineVersions {
    MachineVersions { control_plane: None, node: node(kubelet) }
}

fn node(kubelet: u32) -> NodeVersions {
    NodeVersions { kubelet: minor(kubelet), containerd: "v2.3.4".parse().unwrap() }
}

fn runs(rest: &str, versions: MachineVersions) -> Running {
    Running::only(name(rest), versions)
}

/// Three control planes and a worker at v1.36.
fn cluster() -> Vec<Running> {
    let plane = plane("v3.6.14", 36, 36, 36);
    vec![runs("cp-0", plane), runs("cp-1", plane), runs("cp-2", plane), runs("w-0", worker(36))]
}

#[test]
fn what_goes_first_is_allowed_and_what_follows_is_not_before_it() {
    let cluster = cluster();
    let cp0 = name("cp-0");
    assert_eq!(skew_allows(&cluster, &cp0, plane("v3.7.3", 36, 36, 36)), Ok(()), "etcd one minor on");
    assert!(matches!(skew_allows(&cluster, &cp0, plane("v3.8.0", 36, 36, 36)), Err(SkewViolation::Etcd { .. })), "etcd skips a minor");
    assert!(matches!(skew_allows(&cluster, &cp0, plane("v4.6.14", 36, 36, 36)), Err(SkewViolation::Etcd { .. })), "another major");
    assert_eq!(skew_allows(&cluster, &cp0, plane("v3.6.14", 37, 36, 36)), Ok(()), "an API server one minor on");
    assert!(matches!(skew_allows(&cluster, &cp0, plane("v3.6.14", 38, 36, 36)), Err(SkewViolation::ApiServers { .. })), "two minors on");
    assert!(
        matches!(skew_allows(&cluster, &cp0, plane("v3.6.14", 37, 37, 36)), Err(SkewViolation::Controllers { .. })),
        "controllers together with their API server: they may be the first of the two to come up"
    );
    assert!(matches!(skew_allows(&cluster, &cp0, plane("v3.6.14", 36, 36, 37)), Err(SkewViolation::Kubelet { .. })), "a kubelet first");
    assert!(matches!(skew_allows(&cluster, &name("w-0"), worker(37)), Err(SkewViolation::Kubelet { .. })), "a worker first");
}

#[test]
fn a_worker_waits_for_every_api_server_and_a_control_plane_for_its_own() {
    let mut cluster = cluster();
    for machine in &mut cluster[..2] {
        machine.versions = [plane("v3.6.14", 37, 36, 36)].into();
    }
    assert_eq!(skew_allows(&cluster, &name("cp-0"), plane("v3.6.14", 37, 37, 37)), Ok(()));
    assert!(skew_allows(&cluster, &name("w-0"), worker(37)).is_err(), "cp-2 is v1.36 still");
    cluster[2].versions.insert(plane("v3.6.14", 37, 36, 36));
    assert!(skew_allows(&cluster, &name("w-0"), worker(37)).is_err(), "cp-2 was told, and may be v1.36 still");
    cluster[2].versions = [plane("v3.6.14", 37, 36, 36)].into();
    assert_eq!(skew_allows(&cluster, &name("w-0"), worker(37)), Ok(()));
}

#[test]
fn a_pool_may_stay_three_minors_behind_and_no_more() {
    let cluster: Vec<Running> = vec![runs("cp-0", plane("v3.6.14", 37, 37, 37)), runs("w-0", worker(34))];
    assert!(matches!(skew_allows(&cluster, &name("cp-0"), plane("v3.6.14", 38, 37, 37)), Err(SkewViolation::Kubelet { .. })));
    assert_eq!(skew_allows(&cluster, &name("w-1"), worker(34)), Ok(()), "one more of the same");
    assert!(skew_allows(&cluster, &name("w-1"), worker(33)).is_err());
}

#[test]
fn a_new_control_plane_may_be_new_throughout_because_it_uses_its_own_api_server() {
    assert_eq!(skew_allows(&cluster(), &name("cp-3"), plane("v3.7.3", 37, 37, 37)), Ok(()));
    let text = skew_allows(&cluster(), &name("cp-3"), plane("v3.7.3", 38, 38, 38)).unwrap_err().to_string();
    insta::assert_snapshot!(text, @"kube-apiserver v1.38.1 of demo-cp-3 and v1.36.1 of demo-cp-0 would be more than one minor apart");
}

#[test]
fn what_is_broken_already_may_be_mended() {
    let cluster = vec![runs("cp-0", plane("v3.6.14", 37, 37, 37)), runs("w-0", worker(32))];
    assert_eq!(skew_violations(&cluster).len(), 1);
    assert_eq!(skew_allows(&cluster, &name("w-0"), worker(34)), Ok(()));
    assert!(skew_allows(&cluster, &name("w-0"), worker(33)).is_err(), "that would not mend it");
}

#[test]
fn that_it_may_not_have_followed_is_no_reason_to_tell_a_machine_its_old_versions_again() {
    let mut cluster = cluster();
    let (old, new) = (plane("v3.6.14", 36, 36, 36), plane("v3.6.14", 37, 36, 36));
    cluster[..3].iter_mut().for_each(|m| m.versions = [new].into());
    cluster[0].before = Some(old);
    assert_eq!(skew_allows(&cluster, &name("cp-0"), old), Ok(()), "nobody has followed it");
    cluster[3].versions = [worker(37)].into();
    assert_eq!(skew_violations(&cluster).len(), 1, "as far as is known, and worker 0 would not have been told otherwise");
    assert!(matches!(skew_allows(&cluster, &name("cp-0"), old), Err(SkewViolation::Kubelet { .. })));
}

#[test]
fn two_that_are_too_far_apart_already_hide_no_third() {
    let mut cluster = cluster();
    cluster[0].versions = [plane("v3.8.0", 38, 38, 38)].into();
    cluster[2].versions = [plane("v3.7.3", 37, 37, 37)].into();
    let to = |etcd, api_server| skew_allows(&cluster, &name("cp-2"), plane(etcd, api_server, 37, 37));
    assert!(matches!(to("v3.6.14", 37), Err(SkewViolation::Etcd { .. })));
    assert!(matches!(to("v3.7.3", 36), Err(SkewViolation::ApiServers { .. })));
    assert_eq!(to("v3.7.4", 37), Ok(()));
}

/// The rules once more, said in another way: of one choice of what each machine runs.
fn rules_hold(world: &[(bool, MachineVersions)]) -> bool {
    let planes: Vec<_> = world.iter().filter_map(|(_, v)| v.control_plane.map(|c| (c, v.node.kubelet.minor))).collect();
    let near = |a: u32, b: u32, older: u32| a <= b && b - a <= older;
    planes.iter().all(|(a, kubelet)| {
        let (api, controllers) = (a.api_server.minor, a.controllers.minor);
        let peers = planes.iter().all(|(b, _)| {
            b.api_server.minor.abs_diff(api) <= 1 && a.etcd.major == b.etcd.major && a.etcd.minor.abs_diff(b.etcd.minor) <= 1
        });
        let workers = world.iter().filter(|(plane, _)| !plane).all(|(_, w)| near(w.node.kubelet.minor, api, 3));
        peers && workers && near(controllers, api, 1) && near(*kubelet, api, 3)
    })
}

#[derive(Debug, Clone)]
enum Move {
    /// A machine is to be told, part by part where each choice is an offset of minors.
    Tell { machine: usize, etcd: i32, api_server: i32, controllers: i32, kubelet: i32 },
    /// A machine has made real what it was told.
    Follows(usize),
    /// One that followed is silent: nobody can say any more that it did.
    FallsSilent(usize),
}

fn moves() -> impl Strategy<Value = Move> {
    let step = || prop_oneof![3 => Just(0), 2 => Just(1), 1 => Just(-1), 1 => -3..=3i32];
    prop_oneof![
        3 => (0..5usize, step(), step(), step(), step())
            .prop_map(|(machine, etcd, api_server, controllers, kubelet)| Move::Tell { machine, etcd, api_server, controllers, kubelet }),
        2 => (0..5usize).prop_map(Move::Follows),
        1 => (0..5usize).prop_map(Move::FallsSilent),
    ]
}

fn moved(versions: &MachineVersions, etcd: i32, api_server: i32, controllers: i32, kubelet: i32) -> MachineVersions {
    let shift = |v: &mut u32, by: i32| *v = v.saturating_add_signed(by);
    let mut to = *versions;
    if let Some(v) = &mut to.control_plane {
        shift(&mut v.etcd.minor, etcd);
        shift(&mut v.api_server.minor, api_server);
        shift(&mut v.controllers.minor, controllers);
    }
    shift(&mut to.node.kubelet.minor, kubelet);
    to
}

proptest! {
    #![proptest_config(config(200, 20_000))]

    /// At every moment a machine may be running what it was told before, what it was told last, or any mixture of both; and one that is silent runs what
    /// it followed to, though that is not known.
    #[test]
    fn no_walk_that_passes_the_guard_ever_breaks_a_rule(moves in proptest::collection::vec(moves(), 1..200), mixes in proptest::collection::vec(any::<u32>(), 8)) {
        let start = versions("v1.36.4", "v3.6.14", "v2.3.4");
        let begin = |rest: &str, plane: bool| runs(rest, MachineVersions { control_plane: start.control_plane.filter(|_| plane), ..start });
        let mut world = vec![begin("cp-0", true), begin("cp-1", true), begin("cp-2", true), begin("w-0", false), begin("w-1", false)];
        let mut told: Vec<MachineVersions> = world.iter().map(|m| *m.versions.first().unwrap()).collect();
        let mut told_before = told.clone();
        for step in moves {
            match step {
                Move::Tell { machine, etcd, api_server, controllers, kubelet } => {
                    let to = moved(&told[machine], etcd, api_server, controllers, kubelet);
                    let name = world[machine].machine.clone();
                    if skew_allows(&world, &name, to).is_ok() {
                        world[machine].versions.insert(to);
                        told_before[machine] = std::mem::replace(&mut told[machine], to);
                    }
                }
                Move::Follows(machine) => world[machine] = Running::only(world[machine].machine.clone(), told[machine]),
                Move::FallsSilent(machine) if world[machine].versions.len() == 1 => world[machine].before = Some(told_before[machine]),
                Move::FallsSilent(_) => {}
            }
            for mix in &mixes {
                let chosen: Vec<(bool, MachineVersions)> = world.iter().enumerate().map(|(n, m)| mixture(m, mix.rotate_left(5 * n as u32))).collect();
                prop_assert!(rules_hold(&chosen), "{chosen:#?} of {world:#?}");
            }
        }
    }
}

/// One of the things that a machine may be running, part by part.
fn mixture(machine: &Running, mix: u32) -> (bool, MachineVersions) {
    let all: Vec<&MachineVersions> = machine.versions.iter().collect();
    let pick = |bits: u32| all[(bits as usize) % all.len()];
    let mut chosen = *pick(mix);
    chosen.node = pick(mix >> 8).node;
    if let (Some(v), Some(other), Some(third)) = (&mut chosen.control_plane, pick(mix >> 16).control_plane, pick(mix >> 24).control_plane) {
        v.api_server = other.api_server;
        v.controllers = third.controllers;
    }
    (chosen.control_plane.is_some(), chosen)
}
