//! Two clusters of different versions with the same pod range on one host.

use crate::workload;
use anyhow::{Result, ensure};
use slipway_tests::Plane;
use std::time::Duration;

#[test]
fn two_versions_live_side_by_side_with_the_same_pod_range() {
    both().unwrap_or_else(|error| panic!("{error:#}"));
}

fn both() -> Result<()> {
    let plane = Plane::up()?;
    for (name, version) in [("older", "v1.36.4"), ("newer", "v1.37.2")] {
        plane.apply_cluster(name, version, 1, 2)?;
    }
    for (name, version) in [("older", "v1.36.4"), ("newer", "v1.37.2")] {
        plane.wait_ready(name, Duration::from_secs(240))?;
        plane.fetch_kubeconfig(name)?;
        let nodes = plane
            .inside(name, &["get", "nodes", "--output=jsonpath={.items[*].status.nodeInfo.kubeletVersion}"])?
            .must("kubectl get nodes")?;
        ensure!(
            nodes.out.split_whitespace().count() == 3 && nodes.out.split_whitespace().all(|v| v == version),
            "kubelets of {name}: {}",
            nodes.out
        );
        let servers = workload::start(&plane, name, 2)?;
        workload::traffic_flows(&plane, name, &servers)?;
    }
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}
