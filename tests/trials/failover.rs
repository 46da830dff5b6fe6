//! What a client sees when one thing dies: round after round, each kind of thing once a round.

use super::calm;
use crate::cluster::{Cluster, Machine, spec};
use crate::prober::open_loop::{OpenLoop, Taken};
use crate::prober::{Prober, Report};
use crate::{Plane, until};
use anyhow::{Context, Result, ensure};
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

/// What is done.
pub struct Way {
    /// Kubernetes version.
    pub version: String,
    /// How often each thing dies.
    pub rounds: usize,
    /// How long the client with one request under way waits for it.
    pub patience: Duration,
    /// Only these die; all where empty.
    pub only: Vec<String>,
}

/// The two clients that count.
struct Clients {
    prober: Prober,
    open_loop: OpenLoop,
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
    /// What a writer saw beside them that waits for nobody.
    pub open_loop: Taken,
    /// Failures, one line each; not the open loop's.
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
pub fn run(way: &Way, logs: &Path) -> Result<Vec<Deaths>> {
    let victims = chosen(&way.only)?;
    let plane = Plane::up()?;
    let cluster = Cluster::create(&plane, "trial", &spec(&way.version, 3, 2))?;
    let clients = Clients { prober: Prober::with_patience(cluster.api(), way.patience)?, open_loop: OpenLoop::start(cluster.api())? };
    let mut all: Vec<Deaths> = victims.iter().map(|v| Deaths { what: v.what(), rounds: vec![] }).collect();
    for round in 0..way.rounds {
        for (victim, deaths) in victims.iter().zip(&mut all) {
            let seen = once(&cluster, &clients, *victim, round).with_context(|| format!("{}, round {}", victim.what(), round + 1))?;
            tell(*victim, round, way.patience, &seen);
            deaths.rounds.push(seen);
        }
    }
    clients.prober.finish(Some(&logs.join("probes.jsonl")))?;
    clients.open_loop.finish(&logs.join("open-loop.jsonl"))?;
    cluster.delete()?;
    plane.down()?;
    Ok(all)
}

/// The victims that are named, or all.
fn chosen(only: &[String]) -> Result<Vec<Victim>> {
    for name in only {
        let all = || Victim::ALL.map(Victim::what).join(", ");
        ensure!(Victim::ALL.iter().any(|v| v.what() == name), "nothing dies as {name:?}: {}", all());
    }
    Ok(Victim::ALL.into_iter().filter(|v| only.is_empty() || only.iter().any(|name| name == v.what())).collect())
}

fn tell(victim: Victim, round: usize, patience: Duration, round_seen: &Round) {
    let (seen, open_loop) = (&round_seen.seen, &round_seen.open_loop);
    println!(
        "    {} on {}, round {}: longest gap {:.2} s reading, {:.2} s writing ({patience:?} of patience), {} failed, whole after {:.1} s",
        victim.what(),
        round_seen.machine,
        round + 1,
        seen.read.longest_gap,
        seen.write.longest_gap,
        seen.failed(),
        round_seen.healed
    );
    println!(
        "      open loop: writes taken again after {:.2} s; of {}, {} got no answer and {} failed",
        open_loop.longest_gap, open_loop.writes, open_loop.unanswered, open_loop.failed
    );
    round_seen.failures.iter().for_each(|failure| println!("      {failure}"));
}

fn once(cluster: &Cluster<'_>, clients: &Clients, victim: Victim, round: usize) -> Result<Round> {
    let prober = &clients.prober;
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
    let whole = Instant::now();
    let healed = whole.duration_since(at).as_secs_f64();
    until("clients have asked anew", Duration::from_secs(60), || prober.asked_since(whole))?;
    calm(prober)?;
    let open_loop = clients.open_loop.report(at)?;
    Ok(Round { machine, seen: prober.report(at), open_loop, failures: prober.failures(at), healed, new_leader })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_dies_is_named_as_in_the_table_or_not_at_all() {
        assert_eq!(chosen(&[]).unwrap(), Victim::ALL);
        assert_eq!(chosen(&["kill -9 etcd leader".to_owned()]).unwrap(), [Victim::EtcdLeader]);
        assert!(chosen(&["etcd".to_owned()]).unwrap_err().to_string().contains("kill -9 etcd follower"));
    }
}
