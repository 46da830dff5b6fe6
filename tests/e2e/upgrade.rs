//! A cluster upgraded in place while clients count: what was shown is what is done, nobody is disturbed, and it can be called off half-way by an operator
//! that dies all the time.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use slipway_tests::cluster::Cluster;
use slipway_tests::prober::Prober;
use slipway_tests::skew::{SkewWatch, version_of};
use slipway_tests::trials::calm;
use slipway_tests::trials::upgrade::{NODES, Way, once};
use slipway_tests::writers::Writers;
use slipway_tests::{Plane, until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn an_upgrade_does_what_was_shown_and_disturbs_nobody() {
    shown().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn an_upgrade_is_called_off_half_way_while_the_operator_dies() {
    called_off().unwrap_or_else(|error| panic!("{error:#}"));
}

fn way() -> Way {
    let etcd = "v3.6.14".to_owned();
    Way { from: "v1.36.4".into(), to: "v1.37.2".into(), etcd_from: etcd.clone(), etcd_to: etcd }
}

/// Machine, and what it was told one after the other.
type Told = BTreeMap<String, Vec<String>>;

fn shown() -> Result<()> {
    let plane = Plane::up()?;
    let way = way();
    let cluster = Cluster::create(&plane, "up", &way.before(3, 2))?;
    let prober = Prober::start(cluster.api())?;
    let writers = Writers::start("upgrade", &cluster.ways_in()?)?;
    let shown = forecast(&plane, &cluster, &way)?;
    ensure!(shown.len() == 5, "the forecast changes {} of 5 machines: {shown:#?}", shown.len());
    calm(&prober)?;
    let stop = AtomicBool::new(false);
    let (round, done) = std::thread::scope(|scope| -> Result<_> {
        let watching = scope.spawn(|| follow(&cluster, &stop));
        let round = once(&cluster, &prober, &way);
        stop.store(true, Ordering::Relaxed);
        let done = watching.join().map_err(|_| anyhow::anyhow!("the thread that follows Machines ended early"))?;
        Ok((round?, done?))
    })?;
    println!("      {:?}; longest gap {:.2} s", round.times, round.seen.longest_gap());
    // None fails on a machine that has nothing else to do (`cargo xtask bench upgrade`); on a busy one a second may be too short for one in a hundred.
    let probes = round.seen.read.probes + round.seen.write.probes;
    ensure!(round.seen.failed() * 100 <= probes, "{} of {probes} requests failed: {:#?}", round.seen.failed(), round.failures);
    ensure!(round.times.contains_key(NODES), "{:?}", round.times);
    ensure!(done == shown, "shown was {shown:#?}, done was {done:#?}");
    let snapshots = plane.kubectl(&["get", "etcdsnapshots", "--output=json"])?.must("kubectl get etcdsnapshots")?;
    let snapshots: Value = serde_json::from_str(&snapshots.out)?;
    let complete = |s: &Value| s["status"]["sha256"].is_string() && s["status"]["completed"].is_string();
    let mine = snapshots["items"].as_array().into_iter().flatten().filter(|s| s["spec"]["cluster"] == "up" && complete(s)).count();
    ensure!(mine == 1, "{mine} complete snapshots were taken before the upgrade: {snapshots}");
    let checked = writers.finish(&plane.state().join("history.jsonl"))?;
    println!("      {} writes acknowledged, none lost", checked.acknowledged);
    drop(prober);
    cluster.delete()?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// What `slipway plan` says that each machine will be told, in order.
fn forecast(plane: &Plane, cluster: &Cluster<'_>, way: &Way) -> Result<Told> {
    let mut spec = cluster.object()?["spec"].clone();
    for (field, value) in way.change().as_object().context("no object")? {
        spec[field] = value.clone();
    }
    let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": cluster.name()}, "spec": spec});
    let file = plane.state().join("new.json");
    std::fs::write(&file, object.to_string())?;
    let planned = plane.slipway(&["plan", "--file", &file.to_string_lossy(), "--output", "json"])?;
    ensure!(planned.code == 6, "slipway plan ended with {}: {}{}", planned.code, planned.out, planned.err);
    let rows: Value = serde_json::from_str(&planned.out)?;
    ensure!(rows[0]["from"] == "operator", "the operator itself was not asked: {}", planned.err);
    let mut told = Told::new();
    for action in rows[0]["steps"].as_array().into_iter().flatten().flat_map(|s| s["actions"].as_array().cloned().unwrap_or_default()) {
        // "exchange kube-apiserver on up-cp-0: etcd v3.6.14, kube-apiserver v1.37.2, …"
        let text = action.as_str().unwrap_or_default();
        let Some((before, versions)) = text.strip_prefix("exchange ").and_then(|t| t.split_once(": ")) else { continue };
        let machine = before.rsplit(' ').next().unwrap_or_default();
        told.entry(machine.to_owned()).or_default().push(versions.to_owned());
    }
    Ok(told)
}

/// What each machine is told, from its record, until it is asked to stop.
fn follow(cluster: &Cluster<'_>, stop: &AtomicBool) -> Result<Told> {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut told = Told::new();
    loop {
        let ending = stop.load(Ordering::Relaxed);
        for machine in cluster.machines()? {
            let versions = worded(&machine.versions);
            if last.insert(machine.name.clone(), versions.clone()).is_some_and(|before| before != versions) {
                told.entry(machine.name).or_default().push(versions);
            }
        }
        if ending {
            return Ok(told);
        }
        std::thread::sleep(Duration::from_millis(200)); // between two looks
    }
}

/// Versions as the forecast words them.
fn worded(versions: &Value) -> String {
    let parts = [
        ("etcd", "etcd"),
        ("apiServer", "kube-apiserver"),
        ("controllers", "controllers"),
        ("kubelet", "kubelet"),
        ("containerd", "containerd"),
    ];
    let all: Vec<String> = parts.iter().filter_map(|(field, word)| Some(format!("{word} {}", versions[*field].as_str()?))).collect();
    all.join(", ")
}

fn called_off() -> Result<()> {
    let plane = Plane::up()?;
    let way = way();
    let cluster = Cluster::create(&plane, "off", &way.before(3, 1))?;
    let prober = Prober::start(cluster.api())?;
    calm(&prober)?;
    let skew = SkewWatch::start(&cluster)?;
    let at = Instant::now();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let killing = scope.spawn(|| keep_killing(&plane, &stop));
        let there_and_back = there_and_back(&cluster, &way);
        stop.store(true, Ordering::Relaxed);
        let killed = killing.join().map_err(|_| anyhow::anyhow!("the thread that kills ended early"))?;
        there_and_back?;
        println!("      the operator was killed {killed} times");
        ensure!(killed >= 5, "the operator was killed {killed} times only");
        Ok(())
    })?;
    cluster.settle("the cluster", Duration::from_secs(120))?;
    let seen = prober.report(at);
    println!("      longest gap {:.2} s, {} failed; versions compared {} times", seen.longest_gap(), seen.failed(), skew.finish()?);
    let probes = seen.read.probes + seen.write.probes;
    ensure!(seen.failed() * 100 <= probes, "{} of {probes} requests failed: {:#?}", seen.failed(), prober.failures(at));
    for machine in cluster.machines()? {
        ensure!(machine.versions["kubelet"] == way.from.as_str(), "{} is told {}", machine.name, machine.versions);
    }
    drop(prober);
    cluster.delete()?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

fn there_and_back(cluster: &Cluster<'_>, way: &Way) -> Result<()> {
    let servers = || -> Result<Vec<Option<String>>, String> {
        let machines = cluster.control_planes().map_err(|e| format!("{e:#}"))?;
        Ok(machines.iter().map(|m| version_of(&cluster.server(m))).collect())
    };
    cluster.patch(&way.change())?;
    until("all API servers are new", Duration::from_secs(240), || {
        let versions = servers()?;
        if versions.iter().all(|v| v.as_deref() == Some(&way.to)) { Ok(()) } else { Err(format!("{versions:?}")) }
    })?;
    cluster.patch(&json!({"kubernetesVersion": way.from}))?;
    until("all API servers are old again", Duration::from_secs(240), || {
        let versions = servers()?;
        if versions.iter().all(|v| v.as_deref() == Some(&way.from)) { Ok(()) } else { Err(format!("{versions:?}")) }
    })?;
    until("the upgrade is over in the record", Duration::from_secs(120), || {
        let upgrade = cluster.object().map_err(|e| format!("{e:#}"))?["status"]["recorded"]["upgrade"].clone();
        if upgrade.is_null() { Ok(()) } else { Err(upgrade.to_string()) }
    })
}

/// Kills the operator again and again, a while after it came back. The whiles differ, so that it dies at different steps.
fn keep_killing(plane: &Plane, stop: &AtomicBool) -> usize {
    let mut killed = 0;
    while !stop.load(Ordering::Relaxed) {
        let pause = Duration::from_millis(1_200 + (killed as u64 * 1_733) % 3_500);
        let until_then = Instant::now() + pause;
        while Instant::now() < until_then && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100)); // the pace of the fault
        }
        if let Ok(operator) = plane.process_of("management-cp-0", "slipway-operator")
            && kill(Pid::from_raw(operator.pid), Signal::SIGKILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}
