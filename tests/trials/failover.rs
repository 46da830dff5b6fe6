//! What a client sees when one thing dies: round after round, each kind of thing once a round.

use super::calm;
use crate::cluster::{Cluster, Machine, spec};
use crate::prober::{Prober, Report};
use crate::{Plane, until};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// What dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    ApiServer,
    EtcdFollower,
    EtcdLeader,
    ControllerManagerLeader,
    SchedulerLeader,
    Machine,
}

impl Victim {
    const ALL: [Self; 6] =
        [Self::ApiServer, Self::EtcdFollower, Self::EtcdLeader, Self::ControllerManagerLeader, Self::SchedulerLeader, Self::Machine];

    fn what(self) -> &'static str {
        match self {
            Self::ApiServer => "kill -9 kube-apiserver",
            Self::EtcdFollower => "kill -9 etcd follower",
            Self::EtcdLeader => "kill -9 etcd leader",
            Self::ControllerManagerLeader => "kill -9 kube-controller-manager leader",
            Self::SchedulerLeader => "kill -9 kube-scheduler leader",
            Self::Machine => "control-plane machine gone (etcd leader)",
        }
    }
}

/// One death.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// Which machine it was on.
    pub machine: String,
    /// What clients saw.
    #[serde(flatten)]
    pub seen: Report,
    /// Failures, one line each.
    pub failures: Vec<String>,
    /// Seconds until the control plane was whole again.
    pub healed: f64,
    /// Seconds until somebody else led, where a leader of a lease died.
    pub new_leader: Option<f64>,
}

/// All deaths of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct Deaths {
    /// What died.
    pub what: &'static str,
    /// Round by round.
    pub rounds: Vec<Round>,
}

/// Makes a cluster of three control planes and two workers and lets each kind of thing die so many times.
pub fn run(version: &str, rounds: usize, logs: &Path) -> Result<Vec<Deaths>> {
    let plane = Plane::up()?;
    let cluster = Cluster::create(&plane, "trial", &spec(version, 3, 2))?;
    let prober = Prober::start(cluster.api())?;
    let mut all: Vec<Deaths> = Victim::ALL.iter().map(|v| Deaths { what: v.what(), rounds: vec![] }).collect();
    for round in 0..rounds {
        for (victim, deaths) in Victim::ALL.into_iter().zip(&mut all) {
            let seen = once(&cluster, &prober, victim, round).with_context(|| format!("{}, round {}", victim.what(), round + 1))?;
            println!(
                "    {} on {}, round {}: longest gap {:.2} s reading, {:.2} s writing, {} failed, whole after {:.1} s",
                victim.what(),
                seen.machine,
                round + 1,
                seen.seen.read.longest_gap,
                seen.seen.write.longest_gap,
                seen.seen.failed(),
                seen.healed
            );
            seen.failures.iter().for_each(|failure| println!("      {failure}"));
            deaths.rounds.push(seen);
        }
    }
    prober.finish(Some(&logs.join("probes.jsonl")))?;
    cluster.delete()?;
    plane.down()?;
    Ok(all)
}

fn once(cluster: &Cluster<'_>, prober: &Prober, victim: Victim, round: usize) -> Result<Round> {
    cluster.settle("the cluster", Duration::from_secs(180))?;
    calm(prober)?;
    let (leader, followers) = cluster.etcd_leader()?;
    let of = |machines: &[Machine]| machines.get(round % machines.len().max(1)).map(|m| m.name.clone()).context("no such machine");
    let (machine, program, lease) = match victim {
        Victim::ApiServer => (of(&cluster.control_planes()?)?, "kube-apiserver", None),
        Victim::EtcdFollower => (of(&followers)?, "etcd", None),
        Victim::EtcdLeader | Victim::Machine => (leader.name.clone(), "etcd", None),
        Victim::ControllerManagerLeader => {
            (cluster.holder("kube-controller-manager")?.0, "kube-controller-manager", Some("kube-controller-manager"))
        }
        Victim::SchedulerLeader => (cluster.holder("kube-scheduler")?.0, "kube-scheduler", Some("kube-scheduler")),
    };
    let held = lease.map(|lease| cluster.holder(lease)).transpose()?;
    let at = Instant::now();
    let before = if victim == Victim::Machine {
        cluster.power_off(&leader)?;
        vec![]
    } else {
        cluster.signal(&machine, program, Signal::SIGKILL)?
    };
    let mut new_leader = None;
    if let (Some(lease), Some((_, identity))) = (lease, held) {
        until("somebody leads", Duration::from_secs(60), || match cluster.holder(lease) {
            Ok((_, now)) if now != identity => Ok(()),
            other => Err(format!("{other:?}")),
        })?;
        new_leader = Some(at.elapsed().as_secs_f64());
    }
    let limit = if victim == Victim::Machine { 240 } else { 60 };
    until("the control plane is whole", Duration::from_secs(limit), || {
        if victim != Victim::Machine {
            cluster.runs_anew(&machine, program, &before)?;
        }
        cluster.control_plane_whole()
    })?;
    let healed = at.elapsed().as_secs_f64();
    calm(prober)?;
    Ok(Round { machine, seen: prober.report(at), failures: prober.failures(at), healed, new_leader })
}
