//! Specs and worlds for the tests.

use jiff::Timestamp;
use slipway_model::{ClusterSpec, ComponentVersions, ControlPlane, DeletionPolicy, Network, Pool, Provider, ProxyMode};
use slipway_plan::{Observed, happen, happenings, plan, seen, simulate};
use std::collections::BTreeMap;

/// When every test happens.
pub fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A cluster called `demo` with one pool called `w`; without workers it has no pool.
pub fn spec(control_planes: u32, workers: u32) -> ClusterSpec {
    let pool = |replicas| Pool {
        name: "w".parse().unwrap(),
        replicas: Some(replicas),
        labels: BTreeMap::new(),
        taints: vec![],
        drain_timeout_seconds: 600,
    };
    ClusterSpec {
        name: "demo".parse().unwrap(),
        kubernetes_version: "v1.36.4".parse().unwrap(),
        provider: Provider::Local {},
        network: Network::new("10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap(), ProxyMode::Nftables, 10).unwrap(),
        control_plane: ControlPlane { replicas: control_planes },
        pools: if workers > 0 { vec![pool(workers)] } else { vec![] },
        component_versions: ComponentVersions::default(),
        deletion_policy: DeletionPolicy::Delete,
    }
}

/// An empty world.
pub fn nothing() -> Observed {
    Observed::nothing("uid-of-demo", now())
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

/// The world when nothing moves any more.
pub fn settled(spec: &ClusterSpec, mut world: Observed) -> Observed {
    for _ in 0..100 {
        if !pass(spec, &mut world, now()) {
            return world;
        }
    }
    panic!("no rest after 100 passes: {:#?}", plan(spec, &seen(&world), now()));
}

/// A cluster that is complete.
pub fn complete(spec: &ClusterSpec) -> Observed {
    settled(spec, nothing())
}
