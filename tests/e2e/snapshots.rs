//! A snapshot that a person asks for holds what the cluster held, and outlives the cluster and the operator. An upgrade takes one by itself, when nothing
//! speaks against it any more; until then it has not begun, and can be taken back as long as it is not over.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use slipway_tests::cluster::{Cluster, spec};
use slipway_tests::{Plane, until};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_snapshot_holds_what_the_cluster_held_and_outlives_it() {
    snapshot().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn an_upgrade_waits_for_what_speaks_against_it_and_can_be_called_off() {
    preflight().unwrap_or_else(|error| panic!("{error:#}"));
}

fn preflight() -> Result<()> {
    let plane = Plane::up()?;
    let cluster = Cluster::create(&plane, "waits", &spec("v1.36.4", 1, 0))?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: only, namespace: default, labels: { app: only } }\nspec:\n  tolerations: [{ operator: Exists }]\n  containers:\n  - { name: only, image: \"slipway.dev/test-client:1\", imagePullPolicy: Never, args: [sleep] }\n";
    let budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: { name: never, namespace: default }\nspec: { minAvailable: 1, selector: { matchLabels: { app: only } } }\n";
    plane.apply_inside("waits", pod)?.must("kubectl apply")?;
    plane.apply_inside("waits", budget)?.must("kubectl apply")?;
    plane.inside("waits", &["wait", "pod/only", "--for=condition=Ready", "--timeout=60s"])?.must("kubectl wait")?;
    let version = |v: &str| {
        plane.kubectl(&["patch", "cluster", "waits", "--type=merge", &format!("--patch={}", json!({"spec": {"kubernetesVersion": v}}))])
    };

    version("v1.37.2")?.must("kubectl patch")?;
    let told = |words: &str| {
        let status = plane.object("cluster", "waits").map_err(|e| e.to_string())?.unwrap_or_default()["status"].clone();
        if status.to_string().contains(words) { Ok(()) } else { Err(status["conditions"].to_string()) }
    };
    until("the budget to be named", Duration::from_secs(60), || told("PodDisruptionBudget default/never allows no disruption"))?;
    ensure!(plane.object("etcdsnapshot", "waits-before-v1.37.2-1")?.is_none(), "a snapshot was taken of an upgrade that cannot begin");
    println!("    what was not begun is taken back, and asked for again");
    version("v1.36.4")?.must("kubectl patch")?;
    version("v1.37.2")?.must("kubectl patch")?;

    plane.inside("waits", &["delete", "pdb", "never"])?.must("kubectl delete")?;
    until("the upgrade to begin", Duration::from_secs(60), || told("\"snapshot\":\"waits-before-v1.37.2-1\""))?;
    let taken = plane.object("etcdsnapshot", "waits-before-v1.37.2-1")?.context("it began without a snapshot")?;
    ensure!(taken["status"]["sha256"].is_string() && taken["metadata"]["labels"]["slipway.dev/cluster"] == "waits", "{taken}");
    let refused = version("v1.35.8")?;
    ensure!(
        refused.code != 0 && refused.err.contains("but back to \"v1.36.4\", which the upgrade under way began with"),
        "{}",
        refused.err
    );
    version("v1.36.4")?.must("calling the upgrade off")?;
    cluster.delete()?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

fn snapshot() -> Result<()> {
    let plane = Plane::up()?;
    let cluster = Cluster::create(&plane, "kept", &spec("v1.36.4", 1, 0))?;
    let marker = "remember-this-one-only";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "marker", "namespace": "default"}, "data": {"marker": marker}});
    plane.apply_inside("kept", &map.to_string())?.must("kubectl apply")?;
    let status = taken(&plane, "monday")?;
    let data = found(&plane, "monday.db")?;
    ensure!(sha256(&data)? == status["sha256"], "{} is not what {status} says", data.display());
    ensure!(status["etcdVersion"] == "v3.6.14" && status["machine"] == "kept-cp-0", "{status}");
    ensure!(status["location"] == "file:///var/lib/slipway-operator/".to_owned() + &below(&data)?, "{status}");
    let bytes = std::fs::read(&data)?;
    ensure!(bytes.windows(marker.len()).any(|w| w == marker.as_bytes()), "{} does not hold the marker", data.display());
    let told: Value = serde_json::from_slice(&std::fs::read(data.with_extension("json"))?)?;
    ensure!(
        told["kubernetesVersion"] == "v1.36.4" && told["sha256"] == status["sha256"] && told["revision"] == status["revision"],
        "{told}"
    );

    println!("    an operator that comes anew takes another and leaves the first as it is");
    let operator = plane.process_of("management-cp-0", "slipway-operator")?;
    ensure!(Command::new("kill").args(["-9", &operator.pid.to_string()]).status()?.success(), "kill -9 {}", operator.pid);
    let second = taken(&plane, "tuesday")?;
    ensure!(second["revision"].as_i64() >= status["revision"].as_i64(), "{second}");
    let first = plane.object("etcdsnapshot", "monday")?.context("EtcdSnapshot monday is gone")?;
    ensure!(first["status"] == status && sha256(&data)? == status["sha256"], "{first}");

    cluster.delete()?;
    ensure!(plane.object("etcdsnapshot", "monday")?.is_some() && data.exists(), "a snapshot went with its cluster");
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// Asks for one as a person does; its status when it is complete.
fn taken(plane: &Plane, name: &str) -> Result<Value> {
    let object =
        json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "EtcdSnapshot", "metadata": {"name": name}, "spec": {"cluster": "kept"}});
    plane.apply(&object.to_string())?.must("kubectl apply")?;
    until(&format!("EtcdSnapshot {name} to be complete"), Duration::from_secs(60), || {
        let object = plane.object("etcdsnapshot", name).map_err(|e| e.to_string())?.unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let complete = conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True");
        if complete { Ok(object["status"].clone()) } else { Err(object["status"].to_string()) }
    })
}

/// Where the host has a file of the management machine's.
fn found(plane: &Plane, name: &str) -> Result<PathBuf> {
    let out = Command::new("find").arg(plane.state()).args(["-path", "*/var/lib/slipway-operator/*", "-name", name]).output()?;
    let path = String::from_utf8(out.stdout)?.lines().next().map(PathBuf::from);
    path.with_context(|| format!("{name} is nowhere on the management machine's disk"))
}

fn below(data: &Path) -> Result<String> {
    let text = data.to_string_lossy().into_owned();
    text.split_once("/var/lib/slipway-operator/").map(|(_, rest)| rest.to_owned()).context(text)
}

fn sha256(path: &Path) -> Result<Value> {
    let out = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8(out.stdout)?;
    Ok(json!(text.split_whitespace().next().context("sha256sum printed nothing")?))
}
