//! A disk that is full.

use super::{Fault, Healed, Trial};
use crate::until;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

pub(super) const FULL: Fault = Fault {
    name: "disk-full",
    what: "an etcd follower's disk is full when it starts again",
    // As for any process that is stopped: it is, while its data is copied.
    gap: Some(5.0),
    heals: "whole after space was made",
    healed: 30.0,
    quick: false,
    run: full,
};

fn full(trial: &Trial<'_>) -> Result<Healed> {
    let cluster = trial.cluster;
    let machine = cluster.etcd_leader()?.1.pop().context("no follower")?.name;
    let data = format!("/var/lib/etcd/{machine}");
    // Stopped while its data is copied to a small file system of its own, killed before it goes on: a copy that a crash could have left.
    let before = cluster.signal(&machine, "etcd", Signal::SIGSTOP)?;
    // Neither a byte nor a name is left: etcd has its log's next piece on disk already, and would run for a while with no byte left only.
    among_files(
        trial,
        &machine,
        &format!(
            "test -d {data}; size=$(du -sm {data} | cut -f1); names=$(find {data} | wc -l); mkdir -p /run/small; \
             mount -t tmpfs -o size=$((size + 4))m,nr_inodes=$((names + 20)),mode=700,uid=2379,gid=2379 small /run/small; \
             cp -a {data}/. /run/small/; mount --bind /run/small {data}; umount /run/small; mkdir {data}/ballast; \
             dd if=/dev/zero of={data}/ballast/bytes bs=4k status=none 2>/dev/null || true; \
             n=0; while [ $n -lt 100 ] && touch {data}/ballast/$n 2>/dev/null; do n=$((n + 1)); done; ! touch {data}/ballast/more 2>/dev/null"
        ),
    )?;
    cluster.signal(&machine, "etcd", Signal::SIGKILL)?;
    until("etcd says that there is no space", Duration::from_secs(60), || {
        let journal = cluster.plane().slipway(&["logs", &machine, "etcd.service", "--lines", "60"]).map_err(|e| e.to_string())?;
        if journal.out.contains("no space left on device") { Ok(()) } else { Err(format!("{}{}", journal.out, journal.err)) }
    })?;
    until("the Cluster names the member that is not well", Duration::from_secs(60), || {
        let object = cluster.object().map_err(|e| format!("{e:#}"))?;
        let told = [&object["status"]["conditions"], &object["status"]["waits"]].iter().any(|list| {
            list.as_array()
                .into_iter()
                .flatten()
                .any(|entry| entry["status"] != "True" && entry.to_string().contains(&machine) && entry.to_string().contains("etcd"))
        });
        if told { Ok(()) } else { Err(object["status"]["conditions"].to_string()) }
    })?;
    std::thread::sleep(trial.lasts(20)); // the fault itself
    ensure!(cluster.control_planes()?.iter().any(|m| m.name == machine && !m.leaving), "{machine} was given up because a disk was full");
    among_files(trial, &machine, &format!("rm -r {data}/ballast; mount -o remount,size=2g,nr_inodes=0 {data}"))?;
    let at = Instant::now();
    until("etcd runs again", Duration::from_secs(60), || cluster.runs_anew(&machine, "etcd", &before))?;
    Ok(Healed { seconds: trial.whole(at, Duration::from_secs(120))?, notes: vec![] })
}

/// A shell's work among a machine's files: PID 1's mounts are the machine's.
fn among_files(trial: &Trial<'_>, machine: &str, script: &str) -> Result<()> {
    let init = trial.cluster.process(machine, "systemd")?.pid.to_string();
    let done = Command::new("nsenter").args(["--mount", "--root", "--target", &init, "sh", "-ec", script]).output()?;
    ensure!(done.status.success(), "in {machine}: {script}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
