//! Specs and worlds for the tests.

use crate::time::{aged, older};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{
    Allow, ClusterSpec, ControlPlane, ControlPlaneVersions, DeletionPolicy, HealthCheck, KubernetesVersion, MachineVersions, Maintenance,
    Network, NodeVersions, Pace, Pool, PoolUpgrade, Provider, ProxyMode, Strategy,
};
use slipway_plan::{Fact, Observed, PreflightFacts, happen, happenings, outlook, plan, renders, seen, simulate};
use std::collections::BTreeMap;

/// When every test happens.
pub fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A control-plane machine's versions.
pub fn versions(kubernetes: &str, etcd: &str, containerd: &str) -> MachineVersions {
    let kubernetes: KubernetesVersion = kubernetes.parse().unwrap();
    let control_plane = ControlPlaneVersions { etcd: etcd.parse().unwrap(), api_server: kubernetes, controllers: kubernetes };
    let node = NodeVersions { kubelet: kubernetes, containerd: containerd.parse().unwrap() };
    MachineVersions { control_plane: Some(control_plane), node }
}

/// What every test begins with.
pub fn old() -> MachineVersions {
    versions("v1.36.4", "v3.6.14", "v2.3.4")
}

/// The next minor of everything.
pub fn new() -> MachineVersions {
    versions("v1.37.2", "v3.7.3", "v2.3.4")
}

/// The next patch of Kubernetes alone.
pub fn patched() -> MachineVersions {
    versions("v1.36.5", "v3.6.14", "v2.3.4")
}

/// A cluster called `demo` with one pool called `w`; without workers it has no pool.
pub fn spec(control_planes: u32, workers: u32) -> ClusterSpec {
    let pool = |replicas| Pool {
        name: "w".parse().unwrap(),
        replicas: Some(replicas),
        labels: BTreeMap::new(),
        taints: vec![],
        drain_timeout_seconds: 600,
        versions: of_workers(old()),
        upgrade: PoolUpgrade::default(),
        allow: Allow::Any,
        revision: "r1".into(),
        health: HealthCheck::default(),
    };
    ClusterSpec {
        name: "demo".parse().unwrap(),
        kubernetes_version: old().node.kubelet,
        provider: Provider::Local {},
        network: Network::new("10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap(), ProxyMode::Nftables, 10).unwrap(),
        control_plane: ControlPlane {
            replicas: control_planes,
            versions: old(),
            strategy: Strategy::InPlace,
            allow: Allow::Any,
            revision: "r1".into(),
        },
        pools: if workers > 0 { vec![pool(workers)] } else { vec![] },
        deletion_policy: DeletionPolicy::Delete,
        maintenance: Maintenance::default(),
        ignored_apis: Default::default(),
        pace: Pace::LOCAL,
    }
}

fn of_workers(versions: MachineVersions) -> MachineVersions {
    MachineVersions { control_plane: None, ..versions }
}

/// The same cluster, all of it at other versions.
pub fn at(mut spec: ClusterSpec, versions: MachineVersions) -> ClusterSpec {
    spec.kubernetes_version = versions.control_plane.unwrap().api_server;
    spec.control_plane.versions = versions;
    spec.pools.iter_mut().for_each(|p| p.versions = of_workers(versions));
    spec
}

/// The same cluster one minor on: v1.37.2 with etcd v3.7.3.
pub fn upgraded(spec: ClusterSpec) -> ClusterSpec {
    at(spec, new())
}

/// The same cluster, whose machines have to be replaced by such as only a new machine can be.
pub fn revised(mut spec: ClusterSpec) -> ClusterSpec {
    spec.control_plane.revision = "r2".into();
    spec.pools.iter_mut().for_each(|p| p.revision = "r2".into());
    spec
}

/// The same cluster, whose machines are told something else though no version changes.
pub fn rerendered(mut spec: ClusterSpec) -> ClusterSpec {
    spec.network.proxy_mode = ProxyMode::Iptables;
    spec
}

/// An empty world.
pub fn nothing() -> Observed {
    let mut world = Observed::nothing("uid-of-demo", now());
    look(&spec(1, 0), &mut world);
    world
}

/// What the operator looks at and renders because the spec says so: addons of its version, and what speaks against an upgrade to it.
pub fn look(spec: &ClusterSpec, world: &mut Observed) {
    world.wanted_addons = format!("addons for {}", spec.kubernetes_version);
    world.preflight = Fact::Known(PreflightFacts { to: Some(spec.control_plane.versions), ..PreflightFacts::default() });
    // What no record says.
    renders(world, (spec.network.proxy_mode != ProxyMode::Nftables).then_some("for another kube-proxy"));
}

/// One fault-free pass: what is planned is done, and everything that can happen happens. Says whether anything moved.
pub fn pass(spec: &ClusterSpec, world: &mut Observed, now: Timestamp) -> bool {
    let before = world.clone();
    for action in plan(spec, &seen(world), now).actions {
        let _ = simulate(spec, world, &action, now);
    }
    for happening in happenings(world) {
        happen(world, &happening, now);
    }
    *world != before
}

/// The world when nothing moves any more, however long one waits.
pub fn settled(spec: &ClusterSpec, mut world: Observed) -> Observed {
    look(spec, &mut world);
    for _ in 0..500 {
        if pass(spec, &mut world, now()) {
            continue;
        }
        match outlook(spec, &seen(&world), now()).1 {
            Some(pause) if !pause.is_zero() => world = older(&world, SignedDuration::try_from(pause).unwrap()),
            _ => return world,
        }
    }
    panic!("no rest after 500 passes: {:#?}", plan(spec, &seen(&world), now()));
}

/// A cluster that is complete, and has been for long.
pub fn complete(spec: &ClusterSpec) -> Observed {
    aged(&settled(spec, nothing()))
}
