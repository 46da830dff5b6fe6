//! The daemon: records, what it knows of the world, and the calls that change them. One keeper task per resource makes it so.
//!
//! A call writes a record and pokes a keeper; it never waits for an effect. Everything runs on one thread: the state is behind a mutex
//! that is never held over an `.await`, and `writer` makes read-decide-record of one call a unit.

pub mod calls;
mod faults;
mod keeper;
pub mod serve;
mod server;

use crate::host::HostError;
use crate::layout::Layout;
use crate::records::{Counters, Kind, MachineRecord, NetworkRecord, Power, Store};
use slipway_cloud_api::{ClusterKey, Instance, InstanceState, Inventory, LoadBalancerState, NetworkState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// What a keeper found out; lost with the daemon and found out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet made.
    Pending,
    /// Runs; a load balancer listens and forwards to what it was told.
    Running,
    /// Does not run.
    Stopped,
}

/// A network and its keeper.
pub(crate) struct Network {
    pub record: NetworkRecord,
    pub ready: bool,
    pub trouble: Option<String>,
    pub poke: Arc<Notify>,
}

/// A machine and its keeper.
pub(crate) struct Machine {
    pub record: MachineRecord,
    pub phase: Phase,
    pub trouble: Option<String>,
    pub pid: Option<i32>,
    pub poke: Arc<Notify>,
}

/// All there is.
#[derive(Default)]
pub(crate) struct World {
    pub counters: Counters,
    /// By cluster UID.
    pub networks: BTreeMap<String, Network>,
    /// By id.
    pub machines: BTreeMap<String, Machine>,
    /// Newest revision of each cluster that ever changed since this start.
    pub revisions: BTreeMap<String, u64>,
    pub revision: u64,
}

/// One daemon.
pub struct Daemon {
    pub(crate) layout: Layout,
    pub(crate) endpoint: SocketAddr,
    pub(crate) store: Store,
    pub(crate) pki: crate::tls::Authority,
    /// `boot_id` of the host.
    pub(crate) host_boot: String,
    world: Mutex<World>,
    pub(crate) writer: tokio::sync::Mutex<()>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) faults: faults::Injector,
}

impl Daemon {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits for a change of that cluster's.
    pub(crate) fn bump(&self, uid: &str) {
        let mut world = self.world();
        world.revision += 1;
        let revision = world.revision;
        world.revisions.insert(uid.to_owned(), revision);
        drop(world);
        self.changed.send_replace(revision);
    }

    /// Newest revision of a cluster. One that never changed since this start has the start's, which differs from any before.
    pub(crate) fn revision(&self, uid: &str, start: u64) -> u64 {
        self.world().revisions.get(uid).copied().unwrap_or(start)
    }
}

// === views ===

impl Network {
    pub fn view(&self, layout: &Layout) -> NetworkState {
        NetworkState {
            id: format!("net-{}", self.record.number),
            cidr: layout.cidr(self.record.number),
            routes: self.record.routes.iter().cloned().collect(),
        }
    }
}

impl Machine {
    /// As an instance, where it is one.
    pub fn instance(&self) -> Option<Instance> {
        let record = &self.record;
        let Kind::Instance { name, machine_uid, zone, .. } = &record.kind else { return None };
        let state = match (record.deleting, self.phase) {
            (true, _) => InstanceState::Deleting,
            (false, Phase::Pending) => InstanceState::Pending,
            (false, Phase::Running) => InstanceState::Running,
            (false, Phase::Stopped) => InstanceState::Stopped,
        };
        Some(Instance {
            id: record.id.clone(),
            name: name.clone(),
            machine_uid: machine_uid.clone(),
            state,
            address: record.address,
            zone: zone.clone(),
            instance_type: INSTANCE_TYPE.to_owned(),
            provider_id: format!("local://{}/{}", record.cluster.uid, record.id),
            trouble: self.trouble.clone().or_else(|| record.died.clone()),
        })
    }

    /// As a load balancer, where it is one.
    pub fn load_balancer(&self) -> Option<LoadBalancerState> {
        let record = &self.record;
        let Kind::Balancer { port, targets } = &record.kind else { return None };
        Some(LoadBalancerState {
            id: record.id.clone(),
            address: record.address,
            port: *port,
            targets: targets.iter().cloned().collect(),
            ready: self.phase == Phase::Running && !record.deleting,
            trouble: self.trouble.clone().or_else(|| record.died.clone()),
        })
    }
}

/// The one kind of machines.
pub const INSTANCE_TYPE: &str = "container";
/// The region of everything.
pub const REGION: &str = "local";
/// Failure domains, handed out in turn. They fail together with the host, but are told apart as real ones would be.
pub const ZONES: [&str; 3] = ["local-a", "local-b", "local-c"];

impl World {
    /// A cluster's part.
    pub fn inventory(&self, layout: &Layout, uid: &str) -> Inventory {
        let mine = || self.machines.values().filter(|m| m.record.cluster.uid == uid);
        Inventory {
            network: self.networks.get(uid).filter(|n| !n.record.deleting).map(|n| n.view(layout)),
            load_balancer: mine().find_map(Machine::load_balancer),
            instances: mine().filter_map(Machine::instance).collect(),
        }
    }

    /// Clusters that have anything.
    pub fn clusters(&self) -> Vec<ClusterKey> {
        let networks = self.networks.values().map(|n| n.record.cluster.clone());
        let all: std::collections::BTreeSet<_> = networks.chain(self.machines.values().map(|m| m.record.cluster.clone())).collect();
        all.into_iter().collect()
    }

    /// Addresses in use in a network.
    pub fn addresses(&self, network: u32) -> Vec<std::net::Ipv4Addr> {
        self.machines.values().filter(|m| m.record.network == network).map(|m| m.record.address).collect()
    }
}

impl Machine {
    pub fn new(record: MachineRecord) -> Self {
        let phase = if record.power == Power::Off { Phase::Stopped } else { Phase::Pending };
        Self { record, phase, trouble: None, pid: None, poke: Arc::default() }
    }
}

/// The host's boot, by the kernel's word.
pub(crate) fn host_boot() -> Result<String, HostError> {
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    crate::host::file("reading", path, std::fs::read_to_string(path)).map(|s| s.trim().to_owned())
}
