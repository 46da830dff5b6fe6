//! `slipway` as people and scripts call it.

use anyhow::{Result, ensure};
use slipway_tests::Plane;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn one_command_makes_a_cluster_and_one_takes_it_away() {
    one_command().unwrap_or_else(|error| panic!("{error:#}"));
}

fn one_command() -> Result<()> {
    let plane = Plane::reserve()?;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let example = root.join("examples/local-ha.yaml").to_string_lossy().into_owned();

    println!("    refused before anything changes");
    let bad = plane.slipway(&["up", "--range", "10.0.0.1/20"])?;
    ensure!(bad.code == 2 || bad.code == 3, "a range with host bits: {bad:?}");
    ensure!(!plane.state().exists(), "a refused `up` left {}", plane.state().display());
    ensure!(plane.slipway(&["frobnicate"])?.code == 2);

    println!("    up, with the example of the README");
    let first = plane.slipway(&["up", "--file", &example])?.must("slipway up")?;
    for expected in ["kubeconfig", "CoreDNS", "Service"] {
        ensure!(first.out.contains(expected), "{expected} is missing in\n{}", first.out);
    }
    let again = plane.slipway(&["up", "--file", &example])?.must("slipway up, again")?;
    ensure!(again.out.contains("nothing to do") || again.out.contains("nothing changed"), "the second `up` said\n{}", again.out);
    println!("      up: {:.1} s; again: {:.1} s", first.took.as_secs_f64(), again.took.as_secs_f64());

    println!("    looking");
    let clusters = plane.slipway(&["get", "clusters", "--output", "json"])?.must("slipway get")?;
    let list: serde_json::Value = serde_json::from_str(&clusters.out)?;
    ensure!(list.to_string().contains("\"demo\""), "{}", clusters.out);
    let described = plane.slipway(&["describe", "demo"])?.must("slipway describe")?;
    for expected in ["demo-cp-0", "demo-cp-2", "demo-workers-1", "kubelet"] {
        ensure!(described.out.contains(expected), "{expected} is missing in\n{}", described.out);
    }
    let svg = plane.state().join("timeline.svg");
    plane.slipway(&["describe", "demo", "--timeline", "--svg", &svg.to_string_lossy()])?.must("slipway describe --timeline")?;
    ensure!(std::fs::read_to_string(&svg)?.contains("</svg>"));
    let logs = plane.slipway(&["logs", "demo-cp-0", "kubelet.service", "--lines", "5"])?.must("slipway logs")?;
    ensure!(logs.out.lines().count() >= 1, "no lines of kubelet's journal");
    let alien = plane.slipway(&["logs", "demo-cp-0", "sshd.service"])?;
    ensure!(alien.code == 3 && alien.err.contains("sshd.service"), "logs of a unit that is none of ours: {alien:?}");

    println!("    kubeconfig: merged beside what was there");
    let file = plane.state().join("merged");
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: Config\ncurrent-context: other\ncontexts: [{name: other, context: {cluster: other, user: other}}]\nclusters: [{name: other, cluster: {server: 'https://other'}}]\nusers: [{name: other, user: {token: t}}]\n",
    )?;
    let mut merge = plane.slipway_command(&["kubeconfig", "demo", "--merge"]);
    ensure!(merge.env("KUBECONFIG", &file).status()?.success());
    let merged = std::fs::read_to_string(&file)?;
    ensure!(
        merged.contains("https://other") && merged.contains("demo"),
        "{}",
        merged.lines().filter(|l| !l.contains("data")).collect::<Vec<_>>().join("\n")
    );

    println!("    plan and wait");
    let nothing = plane.slipway(&["plan", "--file", &example])?;
    ensure!(nothing.code == 0, "nothing to do, yet: {nothing:?}");
    let wider = std::fs::read_to_string(&example)?.replace("replicas: 2", "replicas: 3");
    let file = plane.state().join("wider.yaml");
    std::fs::write(&file, wider)?;
    let more = plane.slipway(&["plan", "--file", &file.to_string_lossy()])?;
    ensure!(more.code == 6 && more.out.contains("demo-workers-2"), "one more worker, and the plan says {more:?}");
    ensure!(plane.slipway(&["wait", "demo", "--for", "condition=Ready", "--timeout", "5s"])?.code == 0);
    ensure!(plane.slipway(&["wait", "demo", "--for", "condition=Ready=False", "--timeout", "2s"])?.code == 4);

    println!("    bad input, at the door");
    for (yaml, expected) in [("replicas: 3", "replicas: 2"), ("v1.36.4", "v1.34.1")].map(|(from, to)| {
        (std::fs::read_to_string(&example).unwrap_or_default().replace("name: demo", "name: bad").replacen(from, to, 1), to)
    }) {
        let refused = plane.apply(&yaml)?;
        ensure!(refused.code != 0, "{expected} was accepted");
    }
    ensure!(plane.object("cluster", "bad")?.is_none());

    println!("    down, and down again");
    let removed = plane.slipway(&["down"])?.must("slipway down")?;
    println!("      down: {:.1} s", removed.took.as_secs_f64());
    plane.slipway(&["down"])?.must("slipway down, again")?;
    let traces = plane.traces();
    ensure!(traces.is_empty(), "left on the host: {traces:#?}");
    ensure!(removed.took < Duration::from_secs(60));
    Ok(())
}
