//! What people do to clusters beside making them: budgets, `kubectl scale`, deleting Machines, calling a create off, orphaning.

use crate::workload;
use anyhow::{Result, bail, ensure};
use serde_json::Value;
use slipway_tests::{Plane, until};
use std::time::Duration;

const CLUSTER: &str = "life";

#[test]
fn clusters_follow_what_people_do_to_them() {
    life().unwrap_or_else(|error| panic!("{error:#}"));
}

const GUARDED: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: guarded }
spec:
  replicas: 2
  selector: { matchLabels: { app: guarded } }
  template:
    metadata: { labels: { app: guarded } }
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints: [{ maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: { matchLabels: { app: guarded } } }]
      containers: [{ name: c, image: "slipway.dev/test-client:1", imagePullPolicy: Never, args: [serve, --port, "8080"] }]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: { name: guarded }
spec: { maxUnavailable: 0, selector: { matchLabels: { app: guarded } } }
"#;

/// A volume of no driver's, attached to a Node.
fn attachment(node: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: PersistentVolume
metadata: {{ name: held }}
spec: {{ capacity: {{ storage: 1Mi }}, accessModes: [ReadWriteOnce], hostPath: {{ path: /var/tmp/held }} }}
---
apiVersion: storage.k8s.io/v1
kind: VolumeAttachment
metadata: {{ name: held-by-hand }}
spec: {{ attacher: none.example.com, nodeName: {node}, source: {{ persistentVolumeName: held }} }}
"#
    )
}

/// One control plane and a pool whose size is the NodePool's own affair.
const OPEN: &str = r#"
apiVersion: slipway.dev/v1alpha1
kind: Cluster
metadata: { name: life }
spec:
  kubernetesVersion: v1.36.4
  provider: { local: {} }
  controlPlane: { replicas: 1 }
  pools: [{ name: workers }]
"#;

fn life() -> Result<()> {
    let plane = Plane::up()?;
    plane.apply(OPEN)?.must("kubectl apply")?;
    plane.wait_ready(CLUSTER, Duration::from_secs(180))?;
    plane.fetch_kubeconfig(CLUSTER)?;

    println!("    kubectl scale nodepool");
    plane.kubectl(&["scale", "nodepool", "life-workers", "--replicas=2"])?.must("kubectl scale")?;
    workers(&plane, 2)?;
    plane.wait_ready(CLUSTER, Duration::from_secs(60))?;

    println!("    a budget holds a drain up, says so, and lets it go");
    plane.apply_inside(CLUSTER, GUARDED)?.must("kubectl apply")?;
    plane.inside(CLUSTER, &["rollout", "status", "deployment/guarded", "--timeout=90s"])?.must("kubectl rollout status")?;
    plane.kubectl(&["scale", "nodepool", "life-workers", "--replicas=1"])?.must("kubectl scale")?;
    until("the budget is named", Duration::from_secs(40), || {
        let described = plane.slipway(&["describe", CLUSTER]).map_err(|e| e.to_string())?.out;
        if described.contains("guarded") { Ok(()) } else { Err(described) }
    })?;
    ensure!(plane.machines(CLUSTER, "workers")?.len() == 2, "a machine went although the budget forbade it");

    println!("    so does a volume that stays attached when the pods have left");
    let leaving = leaving_worker(&plane)?;
    plane.apply_inside(CLUSTER, &attachment(&leaving))?.must("kubectl apply")?;
    plane.inside(CLUSTER, &["delete", "poddisruptionbudget", "guarded"])?.must("kubectl delete pdb")?;
    until("the volume is named", Duration::from_secs(40), || {
        let machine =
            plane.object("machine", &leaving).map_err(|e| e.to_string())?.ok_or("the machine went although a volume is attached")?;
        let waits = machine["status"]["waits"].as_array().cloned().unwrap_or_default();
        let told =
            |w: &Value| w["reason"] == "VolumesAttached" && w["what"].as_str().is_some_and(|s| s.contains("volume held to be detached"));
        if waits.iter().any(told) { Ok(()) } else { Err(format!("{waits:?}")) }
    })?;
    let pods = plane.inside(CLUSTER, &["get", "pods", "--field-selector", &format!("spec.nodeName={leaving}"), "--output=name"])?;
    ensure!(pods.must("kubectl get pods")?.out.is_empty(), "volumes were waited for before the pods had left");
    plane.inside(CLUSTER, &["delete", "volumeattachment", "held-by-hand"])?.must("kubectl delete volumeattachment")?;
    workers(&plane, 1)?;
    plane.inside(CLUSTER, &["delete", "deployment", "guarded"])?.must("kubectl delete deployment")?;

    println!("    deleting a Machine replaces it");
    let before = plane.machines(CLUSTER, "workers")?[0].clone();
    plane.kubectl(&["delete", "machine", &before, "--timeout=120s"])?.must("kubectl delete machine")?;
    workers(&plane, 1)?;
    ensure!(plane.machines(CLUSTER, "workers")?[0] != before, "an ordinal was used twice");

    println!("    where the Cluster decides, a scaled NodePool is put back, with an event");
    set_replicas(&plane, 1)?;
    plane.kubectl(&["scale", "nodepool", "life-workers", "--replicas=3"])?.must("kubectl scale")?;
    until("put back", Duration::from_secs(30), || {
        let pool = plane.object("nodepool", "life-workers").map_err(|e| e.to_string())?;
        let replicas = pool.map(|p| p["spec"]["replicas"].clone());
        if replicas == Some(1.into()) { Ok(()) } else { Err(format!("{replicas:?}")) }
    })?;
    until("an event says so", Duration::from_secs(20), || {
        let events = plane.slipway(&["events", CLUSTER]).map_err(|e| e.to_string())?.out;
        if events.contains("life-workers") || events.contains("workers") { Ok(()) } else { Err(events) }
    })?;
    workers(&plane, 1)?;

    println!("    a create that is called off leaves nothing");
    plane.apply_cluster("short", "v1.36.4", 3, 1)?;
    until("its first machine", Duration::from_secs(30), || match plane.machines("short", "cp") {
        Ok(machines) if !machines.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    plane.kubectl(&["delete", "cluster", "short", "--timeout=60s"])?.must("kubectl delete")?;
    until("nothing left of it", Duration::from_secs(15), || {
        let out = plane.slipway(&["local", "status", "--output", "json"]).map_err(|e| e.to_string())?.out;
        if out.contains("\"short-") { Err(out) } else { Ok(()) }
    })?;

    println!("    orphaned machines live on");
    plane
        .kubectl(&["patch", "cluster", CLUSTER, "--type=merge", "--patch", r#"{"spec":{"deletionPolicy":"Orphan"}}"#])?
        .must("kubectl patch")?;
    plane.kubectl(&["delete", "cluster", CLUSTER, "--timeout=60s"])?.must("kubectl delete")?;
    ensure!(plane.machines(CLUSTER, "cp")?.is_empty(), "records of an orphaned cluster are left");
    ensure!(plane.object("secret", "life-kubeconfig")?.is_some(), "the orphaned cluster's kubeconfig is gone");
    ensure!(workload::ready_nodes(&plane, CLUSTER).is_ok_and(|n| n.len() == 2), "the orphaned cluster does not answer");

    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// The worker whose Machine is being deleted.
fn leaving_worker(plane: &Plane) -> Result<String> {
    for name in plane.machines(CLUSTER, "workers")? {
        if plane.object("machine", &name)?.is_some_and(|m| m["metadata"]["deletionTimestamp"].is_string()) {
            return Ok(name);
        }
    }
    bail!("no Machine is being deleted")
}

fn set_replicas(plane: &Plane, replicas: u32) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"pools":[{{"name":"workers","replicas":{replicas}}}]}}}}"#);
    plane.kubectl(&["patch", "cluster", CLUSTER, "--type=merge", "--patch", &patch])?.must("kubectl patch").map(drop)
}

fn workers(plane: &Plane, wanted: usize) -> Result<()> {
    until(&format!("{wanted} workers"), Duration::from_secs(120), || {
        let machines = plane.machines(CLUSTER, "workers").map_err(|e| e.to_string())?;
        let ready = workload::ready_nodes(plane, CLUSTER)?;
        let there = machines.iter().filter(|m| ready.contains(m)).count();
        if machines.len() == wanted && there == wanted { Ok(()) } else { Err(format!("Machines {machines:?}, Nodes Ready {ready:?}")) }
    })
}
