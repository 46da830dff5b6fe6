//! A snapshot that a person asks for: it holds what the cluster held, and outlives the cluster and the operator.

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
    ensure!(told["kubernetesVersion"] == "v1.36.4" && told["sha256"] == status["sha256"] && told["revision"] == status["revision"], "{told}");

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
    let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "EtcdSnapshot", "metadata": {"name": name}, "spec": {"cluster": "kept"}});
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
