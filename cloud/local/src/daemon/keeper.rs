//! Keepers: one task per network and per machine, each making the world what its record says, for as long as there is a record.
//!
//! ```text
//!   record ──poke──► look at the world ──► one step ──► phase, trouble ──► wait for: poke | PID 1's death | backoff
//! ```
//! A step that fails is told as `trouble` and tried again, later each time. Since each begins by looking, it does not matter whether this
//! daemon or a killed one began the work.

use super::{Daemon, Machine, Network, Phase};
use crate::balancer;
use crate::host::{self, HostError};
use crate::machine::{self, Boot, Running, image};
use crate::network;
use crate::records::{Kind, MachineRecord, NetworkRecord, Power};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// First and longest pause after a failed step.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
/// How often a load balancer that does not answer yet is asked.
const BALANCER_POLL: Duration = Duration::from_millis(20);

impl Daemon {
    /// Takes a network into care.
    pub(crate) fn keep_network(self: &Arc<Self>, record: NetworkRecord) {
        let uid = record.cluster.uid.clone();
        let poke = Arc::default();
        self.world().networks.insert(uid.clone(), Network { record, ready: false, trouble: None, poke: Arc::clone(&poke) });
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let mut backoff = BACKOFF.0;
            loop {
                let Some(record) = daemon.world().networks.get(&uid).map(|n| n.record.clone()) else { return };
                let done = daemon.network_step(&record).await;
                let failed = done.as_ref().err().map(ToString::to_string);
                let gone = matches!(done, Ok(true));
                {
                    let mut world = daemon.world();
                    if gone {
                        world.networks.remove(&uid);
                    } else if let Some(network) = world.networks.get_mut(&uid) {
                        network.ready = failed.is_none();
                        network.trouble.clone_from(&failed);
                        // Machines wait for their router.
                        let number = network.record.number;
                        world.machines.values().filter(|m| m.record.network == number).for_each(|m| m.poke.notify_one());
                    }
                }
                daemon.bump(&uid);
                match failed {
                    _ if gone => return,
                    Some(why) => {
                        tracing::warn!(network = record.number, "{why}; trying again in {backoff:?}");
                        let _ = tokio::time::timeout(backoff, poke.notified()).await;
                        backoff = (backoff * 2).min(BACKOFF.1);
                    }
                    None => {
                        backoff = BACKOFF.0;
                        poke.notified().await;
                    }
                }
            }
        });
    }

    /// True when the network is gone.
    async fn network_step(&self, record: &NetworkRecord) -> Result<bool, HostError> {
        if record.deleting {
            network::remove_router(&self.layout, record.number).await?;
            self.store.drop_network(&record.cluster.uid).await?;
            return Ok(true);
        }
        let ready = self.world().networks.get(&record.cluster.uid).is_some_and(|n| n.ready);
        if !ready || !network::exists(&self.layout.router(record.number)) {
            network::ensure_router(&self.layout, record.number).await?;
        }
        let wanted: BTreeMap<_, _> = {
            let world = self.world();
            let hop = |id: &String| world.machines.get(id).filter(|m| !m.record.deleting).map(|m| m.record.address);
            record.routes.iter().filter_map(|r| Some((r.destination, hop(&r.instance_id)?))).collect()
        };
        network::set_routes(&self.layout, record.number, &wanted).await?;
        Ok(false)
    }

    /// Takes a machine into care.
    pub(crate) fn keep_machine(self: &Arc<Self>, record: MachineRecord) {
        let (id, uid) = (record.id.clone(), record.cluster.uid.clone());
        let machine = Machine::new(record);
        let poke = Arc::clone(&machine.poke);
        self.world().machines.insert(id.clone(), machine);
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            let mut backoff = BACKOFF.0;
            loop {
                let Some(before) = daemon.world().machines.get(&id).map(|m| (m.record.clone(), m.phase, m.trouble.clone())) else { return };
                let (record, ..) = &before;
                let step = daemon.machine_step(record).await;
                let (phase, pid, trouble, pause, watched) = match step {
                    Ok(Step::Gone) => {
                        daemon.world().machines.remove(&id);
                        daemon.bump(&uid);
                        return;
                    }
                    Ok(Step::Waiting(why)) => (Phase::Pending, None, why, Some(backoff), None),
                    Ok(Step::Off) => (Phase::Stopped, None, None, None, None),
                    Ok(Step::On(running)) => (Phase::Running, Some(running.pid), None, None, Some(running.pidfd)),
                    Ok(Step::Starting(running)) => (Phase::Pending, Some(running.pid), None, Some(BALANCER_POLL), Some(running.pidfd)),
                    Err(e) => {
                        tracing::warn!(machine = id, "{e}; trying again in {backoff:?}");
                        (before.1, None, Some(e.to_string()), Some(backoff), None)
                    }
                };
                backoff = if trouble.is_some() { (backoff * 2).min(BACKOFF.1) } else { BACKOFF.0 };
                let news = {
                    let mut world = daemon.world();
                    let Some(machine) = world.machines.get_mut(&id) else { return };
                    machine.phase = phase;
                    machine.pid = pid;
                    machine.trouble = trouble;
                    before.1 != phase || before.2 != machine.trouble
                };
                if news {
                    daemon.bump(&uid);
                }
                tokio::select! {
                    () = poke.notified() => backoff = BACKOFF.0,
                    () = died(watched) => {}
                    () = pause_or_forever(pause) => {}
                }
            }
        });
    }

    async fn machine_step(&self, record: &MachineRecord) -> Result<Step, HostError> {
        let alive = machine::find(&self.layout, &record.id);
        if record.deleting {
            machine::power_off(&self.layout, &record.id, record.network).await?;
            let discarded = machine::discard_disk(&self.layout, &record.id)?;
            self.store.drop_machine(&record.id).await?;
            // In its own time: the name is free and the record gone; what is left of the disk is cleared at the next start at the latest.
            tokio::spawn(host::blocking(move || host::remove_tree(&discarded)));
            return Ok(Step::Gone);
        }
        match (record.power, alive) {
            (Power::Off, _) => {
                machine::power_off(&self.layout, &record.id, record.network).await?;
                Ok(Step::Off)
            }
            (Power::On, Some(running)) if running.boot == record.boot => self.running(record, running).await,
            // It ran, under this very kernel and in this very boot, and is dead: powered off from inside, or killed. As with any machine,
            // somebody has to press the button. (After a reboot of the host we do; and a load balancer is the cloud's own business.)
            (Power::On, None)
                if record.seen.as_deref() == Some(&format!("{}/{}", self.host_boot, record.boot))
                    && matches!(record.kind, Kind::Instance { .. }) =>
            {
                self.change_machine(&record.id, |r| {
                    r.power = Power::Off;
                    r.died = Some("it was running, and its PID 1 ended: powered off from inside, or killed".to_owned());
                })
                .await?;
                machine::power_off(&self.layout, &record.id, record.network).await?;
                Ok(Step::Off)
            }
            (Power::On, _) => {
                if !self.world().networks.get(&record.cluster.uid).is_some_and(|n| n.ready) {
                    let trouble = self.world().networks.get(&record.cluster.uid).and_then(|n| n.trouble.clone());
                    return Ok(Step::Waiting(trouble));
                }
                machine::power_off(&self.layout, &record.id, record.network).await?;
                let running = self.boot(record).await?;
                self.running(record, running).await
            }
        }
    }

    async fn boot(&self, record: &MachineRecord) -> Result<Running, HostError> {
        let layout = self.layout.clone();
        let owned = record.clone();
        if record.seen.is_none() {
            host::blocking(move || write_disk(&layout, &owned)).await?;
        }
        let (hostname, store, never_boot) = match &record.kind {
            Kind::Instance { name, never_boot, .. } => (name.as_str(), true, *never_boot),
            Kind::Balancer { .. } => (record.id.as_str(), false, false),
        };
        let boot =
            Boot { id: &record.id, hostname, network: record.network, address: record.address, boot: record.boot, store, never_boot };
        machine::boot(&self.layout, &boot).await
    }

    /// What is left to do with a machine that runs.
    async fn running(&self, record: &MachineRecord, running: Running) -> Result<Step, HostError> {
        let seen = format!("{}/{}", self.host_boot, record.boot);
        if record.seen.as_deref() != Some(&seen) {
            self.change_machine(&record.id, |r| r.seen = Some(seen)).await?;
        }
        let Kind::Balancer { port, targets } = &record.kind else { return Ok(Step::On(running)) };
        let wanted = self.target_addresses(targets);
        let root = self.layout.machine(&record.id).join("rootfs");
        if let Err(e) = balancer::apply(&root, running.pid, *port, &wanted).await {
            tracing::debug!(machine = record.id, "not yet: {e}");
            return Ok(Step::Starting(running));
        }
        let front = SocketAddr::from((record.address, *port));
        match tokio::time::timeout(Duration::from_secs(1), tokio::net::TcpStream::connect(front)).await {
            Ok(Ok(_)) => Ok(Step::On(running)),
            _ => Ok(Step::Starting(running)),
        }
    }

    fn target_addresses(&self, targets: &std::collections::BTreeSet<String>) -> Vec<Ipv4Addr> {
        let world = self.world();
        targets.iter().filter_map(|id| world.machines.get(id)).filter(|m| !m.record.deleting).map(|m| m.record.address).collect()
    }

    /// Changes a machine's record, on disk first.
    pub(crate) async fn change_machine(&self, id: &str, change: impl FnOnce(&mut MachineRecord)) -> Result<(), HostError> {
        let _unit = self.writer.lock().await;
        let Some(mut record) = self.world().machines.get(id).map(|m| m.record.clone()) else { return Ok(()) };
        change(&mut record);
        self.store.put_machine(&record).await?;
        if let Some(machine) = self.world().machines.get_mut(id) {
            machine.record = record;
        }
        Ok(())
    }
}

/// Where a step left a machine.
enum Step {
    /// Removed, with its record.
    Gone,
    /// Something else must be there first.
    Waiting(Option<String>),
    /// Powered off.
    Off,
    /// Runs.
    On(Running),
    /// Runs, and does not serve yet.
    Starting(Running),
}

/// Writes a machine's disk, once: from then on it is the machine's.
fn write_disk(layout: &crate::layout::Layout, record: &MachineRecord) -> Result<(), HostError> {
    let directory = layout.machine(&record.id);
    let (hostname, uid) = match &record.kind {
        Kind::Instance { name, machine_uid, .. } => (name.as_str(), machine_uid.as_str()),
        Kind::Balancer { .. } => (record.id.as_str(), record.id.as_str()),
    };
    let script = directory.join("user-data");
    let (user_data, config) = match &record.kind {
        Kind::Instance { .. } => (host::file("reading", &script, std::fs::read_to_string(&script))?, String::new()),
        Kind::Balancer { port, .. } => (String::new(), balancer::render(*port, &[])),
    };
    let role = match &record.kind {
        Kind::Instance { .. } => image::Role::Instance { user_data: &user_data },
        Kind::Balancer { .. } => image::Role::Balancer { config: &config },
    };
    image::write(&directory.join("rootfs"), &image::Identity { hostname, address: record.address, uid }, &role)
}

/// Ends when the process does; never for none.
async fn died(pidfd: Option<OwnedFd>) {
    // Deprecated for types whose descriptor may change or close under way; an `OwnedFd` given away does neither, and its successor is unsafe.
    #[allow(deprecated)]
    let watched = pidfd.and_then(|fd| AsyncFd::new(fd).ok());
    if let Some(watched) = watched {
        let _ = watched.readable().await;
    } else {
        std::future::pending::<()>().await;
    }
}

async fn pause_or_forever(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
