//! The operator dies after each of its effects, and the cloud fails and forgets: the end is the same, and nothing is left.

use anyhow::{Result, ensure};
use slipway_tests::{Plane, until};
use std::time::Duration;

#[test]
fn a_create_survives_the_operator_dying_after_each_effect() {
    dying().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn a_cloud_that_fails_and_loses_replies_only_costs_time() {
    flaky().unwrap_or_else(|error| panic!("{error:#}"));
}

/// Asks the operator to die right after its n-th effect from now; 0 calls it off. The file is on the management machine.
fn die_after(plane: &Plane, effects: u32) -> Result<()> {
    plane.slipway(&["local", "die-after", &effects.to_string()])?.must("slipway local die-after")?;
    Ok(())
}

/// How often the operator died since it was asked to.
fn deaths(plane: &Plane) -> Result<u32> {
    Ok(plane.slipway(&["local", "die-after", "--deaths"])?.must("slipway local die-after")?.out.trim().parse()?)
}

fn dying() -> Result<()> {
    let plane = Plane::up()?;
    // Every effect in `--full`; else every third, which still meets each kind of effect but the many add-ons.
    let step = if crate::full() { 1 } else { 3 };
    let mut effects = 0;
    for n in (1..200).step_by(step) {
        let before = deaths(&plane)?;
        die_after(&plane, n)?;
        plane.apply_cluster("crash", "v1.36.4", 1, 0)?;
        plane.wait_ready("crash", Duration::from_secs(120))?;
        let died = deaths(&plane)? > before;
        die_after(&plane, 0)?;
        let machines = plane.machines("crash", "cp")?;
        ensure!(machines.len() == 1, "after effect {n}: {machines:?}");
        plane.kubectl(&["delete", "cluster", "crash", "--timeout=60s"])?.must("kubectl delete")?;
        gone(&plane)?;
        if !died {
            break;
        }
        effects = n;
        println!("    died after effect {n}: the same end");
    }
    ensure!(effects >= 10, "the operator died {effects} times only: creating a cluster has more effects");
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

fn flaky() -> Result<()> {
    let plane = Plane::up()?;
    plane
        .slipway(&["local", "faults", "--error-rate", "0.15", "--lost-reply-rate", "0.15", "--delay", "100ms"])?
        .must("slipway local faults")?;
    plane.apply_cluster("flaky", "v1.36.4", 1, 2)?;
    plane.wait_ready("flaky", Duration::from_secs(240))?;
    ensure!(plane.machines("flaky", "workers")?.len() == 2);
    plane.kubectl(&["delete", "cluster", "flaky", "--timeout=120s"])?.must("kubectl delete")?;
    gone(&plane)?;
    let traces = plane.down()?;
    ensure!(traces.is_empty(), "left on the host after `slipway down`: {traces:#?}");
    Ok(())
}

/// The cloud holds nothing but the management plane.
fn gone(plane: &Plane) -> Result<()> {
    until("the cloud holds the management plane only", Duration::from_secs(20), || {
        let status = plane.slipway(&["local", "status", "--output", "json"]).map_err(|e| e.to_string())?;
        let value: serde_json::Value = serde_json::from_str(&status.out).map_err(|e| format!("{e}: {}", status.out))?;
        let machines: Vec<String> =
            value["machines"].as_array().into_iter().flatten().filter_map(|m| m["name"].as_str().map(str::to_owned)).collect();
        if machines == ["management-cp-0"] { Ok(()) } else { Err(format!("machines {machines:?}")) }
    })
}
