//! The calls, without HTTP: validate, decide, record, poke. Every one may be repeated.

use super::{Daemon, Machine, ZONES};
use crate::balancer::TARGETS_MAX;
use crate::host::{self, HostError};
use crate::machine;
use crate::network;
use crate::records::{Kind, MachineRecord, NetworkRecord, Power};
use crate::tls::Role;
use crate::wire::{Certificate, Status};
use slipway_cloud_api::{CloudError, ClusterKey, Instance, InstanceRequest, LoadBalancerRequest, LoadBalancerState, NetworkState, Route};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Names of the calls that faults can be injected into.
pub const NAMES: &[&str] = &[
    "inventory",
    "changed",
    "clusters",
    "ensure_network",
    "delete_network",
    "ensure_load_balancer",
    "set_targets",
    "delete_load_balancer",
    "create_instance",
    "start_instance",
    "power_off",
    "reboot",
    "delete_instance",
    "set_routes",
    "journal",
    "console",
    "issue_certificate",
];

/// Longest user data.
const USER_DATA_MAX: usize = 256 << 10;
/// Most routes in a network: one per machine.
const ROUTES_MAX: usize = 256;
/// Longest wait for a change in one call.
const CHANGES_MAX: Duration = Duration::from_secs(300);
/// Most lines of a journal, and bytes of a console.
const LINES_MAX: u32 = 10_000;
const CONSOLE_MAX: u64 = 1 << 20;

/// UIDs become file names: letters, digits and dashes, as Kubernetes makes them.
pub fn valid_uid(uid: &str) -> bool {
    (1..=64).contains(&uid.len()) && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn check_uid(call: &str, what: &str, uid: &str) -> Result<(), CloudError> {
    if valid_uid(uid) { Ok(()) } else { Err(CloudError::terminal(call, format!("{what} {uid:?} must be 1 to 64 letters, digits or '-'"))) }
}

/// A failure of the host's may pass by itself.
fn host_error(call: &str) -> impl Fn(HostError) -> CloudError + '_ {
    move |e| CloudError::retry(call, e)
}

impl Daemon {
    /// What there is to say about this daemon.
    pub fn status(&self) -> Status {
        let world = self.world();
        let balancers = world.machines.values().filter(|m| matches!(m.record.kind, Kind::Balancer { .. })).count();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self.layout.name.clone(),
            range: self.layout.range,
            endpoint: format!("https://{}", self.endpoint),
            pid: std::process::id(),
            networks: world.networks.len(),
            load_balancers: balancers,
            instances: world.machines.len() - balancers,
        }
    }

    /// Waits for a change of a cluster's after `since`, at most so long; gives the newest revision.
    pub async fn changes(&self, uid: &str, since: u64, at_most: Duration, start: u64) -> u64 {
        let mut news = self.changed.subscribe();
        let wait = async {
            while self.revision(uid, start) == since {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        // Running out of time is an answer, too.
        let _ = tokio::time::timeout(at_most.min(CHANGES_MAX), wait).await;
        self.revision(uid, start)
    }

    /// Makes a network, or finds it.
    pub async fn ensure_network(self: &Arc<Self>, cluster: &ClusterKey) -> Result<NetworkState, CloudError> {
        let call = format!("make the network of {}", cluster.name);
        check_uid(&call, "cluster uid", &cluster.uid)?;
        let _unit = self.writer.lock().await;
        let (found, number) = {
            let world = self.world();
            let taken: Vec<u32> = world.networks.values().map(|n| n.record.number).collect();
            let found = world.networks.get(&cluster.uid).map(|n| (n.record.deleting, n.view(&self.layout), n.trouble.clone()));
            (found, self.layout.network_number(&taken))
        };
        match found {
            Some((true, ..)) => return Err(CloudError::wait(&call, "the network of the same cluster is still being removed")),
            Some((false, _, Some(trouble))) => return Err(CloudError::retry(&call, trouble)),
            Some((false, view, None)) => return Ok(view),
            None => {}
        }
        let Some(number) = number else {
            let why = format!(
                "all {} networks of {} are taken: delete a cluster, or start slipway-local with a larger --range",
                self.layout.networks(),
                self.layout.range
            );
            return Err(CloudError::wait(&call, why));
        };
        let record = NetworkRecord { cluster: cluster.clone(), number, last_address: None, routes: BTreeSet::new(), deleting: false };
        self.store.put_network(&record).await.map_err(host_error(&call))?;
        self.keep_network(record);
        self.bump(&cluster.uid);
        let world = self.world();
        world.networks.get(&cluster.uid).map(|n| n.view(&self.layout)).ok_or_else(|| CloudError::retry(&call, "it vanished"))
    }

    /// Removes a network, if nothing is in it.
    pub async fn delete_network(&self, uid: &str) -> Result<(), CloudError> {
        let call = format!("delete the network of {uid}");
        let _unit = self.writer.lock().await;
        let Some(mut record) = self.world().networks.get(uid).map(|n| n.record.clone()) else { return Ok(()) };
        let left: Vec<String> =
            self.world().machines.values().filter(|m| m.record.cluster.uid == uid).map(|m| m.record.id.clone()).collect();
        if !left.is_empty() {
            return Err(CloudError::wait(&call, format!("still in it: {}", left.join(", "))));
        }
        record.deleting = true;
        self.put_network(&call, record).await
    }

    async fn put_network(&self, call: &str, record: NetworkRecord) -> Result<(), CloudError> {
        self.store.put_network(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        if let Some(network) = self.world().networks.get_mut(&uid) {
            network.record = record;
            network.poke.notify_one();
        }
        self.bump(&uid);
        Ok(())
    }

    async fn put_machine(&self, call: &str, record: MachineRecord) -> Result<(), CloudError> {
        self.store.put_machine(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        if let Some(machine) = self.world().machines.get_mut(&record.id) {
            machine.record = record;
            machine.poke.notify_one();
        }
        self.bump(&uid);
        Ok(())
    }

    /// A number never given before. Written before it is used.
    async fn next_id(&self, call: &str) -> Result<u64, CloudError> {
        let mut counters = self.world().counters.clone();
        counters.last_id += 1;
        self.store.put_counters(&counters).await.map_err(host_error(call))?;
        let id = counters.last_id;
        self.world().counters = counters;
        Ok(id)
    }

    fn network_of(&self, call: &str, cluster: &ClusterKey) -> Result<NetworkRecord, CloudError> {
        let found = self.world().networks.get(&cluster.uid).map(|n| n.record.clone());
        found.filter(|n| !n.deleting).ok_or_else(|| CloudError::wait(call, "the cluster has no network yet: make it first"))
    }

    fn balancer_of(&self, uid: &str) -> Option<(MachineRecord, Option<LoadBalancerState>)> {
        let world = self.world();
        let found = world.machines.values().find(|m| m.record.cluster.uid == uid && matches!(m.record.kind, Kind::Balancer { .. }));
        found.map(|m| (m.record.clone(), m.load_balancer()))
    }

    /// Makes a load balancer, or finds it.
    pub async fn ensure_load_balancer(self: &Arc<Self>, request: &LoadBalancerRequest) -> Result<LoadBalancerState, CloudError> {
        let LoadBalancerRequest { cluster, port } = request;
        let call = format!("make the load balancer of {}", cluster.name);
        if *port == 0 {
            return Err(CloudError::terminal(&call, "port 0: a load balancer needs a port from 1 to 65535"));
        }
        let _unit = self.writer.lock().await;
        match self.balancer_of(&cluster.uid) {
            Some((record, _)) if record.deleting => return Err(CloudError::wait(&call, "the one before it is still being removed")),
            Some((_, Some(state))) if state.port != *port => {
                return Err(CloudError::terminal(&call, format!("it is there, on port {}: a port cannot be changed", state.port)));
            }
            Some((_, Some(state))) => return Ok(state),
            Some((_, None)) | None => {}
        }
        let network = self.network_of(&call, cluster)?;
        let record = MachineRecord {
            id: format!("lb-{}", self.next_id(&call).await?),
            cluster: cluster.clone(),
            network: network.number,
            address: self.layout.balancer(network.number),
            power: Power::On,
            boot: 1,
            seen: None,
            died: None,
            deleting: false,
            kind: Kind::Balancer { port: *port, targets: BTreeSet::new() },
        };
        self.add_machine(&call, record).await?;
        self.balancer_of(&cluster.uid).and_then(|(_, state)| state).ok_or_else(|| CloudError::retry(&call, "it vanished"))
    }

    async fn add_machine(self: &Arc<Self>, call: &str, record: MachineRecord) -> Result<(), CloudError> {
        self.store.put_machine(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        self.keep_machine(record);
        self.bump(&uid);
        Ok(())
    }

    /// Sets a load balancer's targets.
    pub async fn set_targets(&self, uid: &str, targets: Vec<String>) -> Result<(), CloudError> {
        let call = format!("set targets of the load balancer of {uid}");
        let _unit = self.writer.lock().await;
        let Some((mut record, _)) = self.balancer_of(uid).filter(|(r, _)| !r.deleting) else {
            return Err(CloudError::wait(&call, "the cluster has no load balancer yet: make it first"));
        };
        let targets: BTreeSet<String> = targets.into_iter().collect();
        if targets.len() > TARGETS_MAX {
            return Err(CloudError::terminal(&call, format!("{} targets: at most {TARGETS_MAX}", targets.len())));
        }
        self.known_instances(&call, uid, targets.iter())?;
        let Kind::Balancer { targets: current, .. } = &mut record.kind else { return Ok(()) };
        if *current == targets {
            return Ok(());
        }
        *current = targets;
        self.put_machine(&call, record).await
    }

    fn known_instances<'a>(&self, call: &str, uid: &str, mut ids: impl Iterator<Item = &'a String>) -> Result<(), CloudError> {
        let world = self.world();
        let known = |id: &&String| {
            world
                .machines
                .get(*id)
                .is_some_and(|m| m.record.cluster.uid == uid && !m.record.deleting && matches!(m.record.kind, Kind::Instance { .. }))
        };
        match ids.find(|id| !known(id)) {
            Some(id) => Err(CloudError::wait(call, format!("the cluster has no instance {id:?}: read the inventory again"))),
            None => Ok(()),
        }
    }

    /// Makes an instance, or finds the one of the same Machine.
    pub async fn create_instance(self: &Arc<Self>, request: &InstanceRequest) -> Result<Instance, CloudError> {
        let call = format!("create instance {}", request.name);
        check_uid(&call, "machine uid", &request.machine_uid)?;
        if request.user_data.len() > USER_DATA_MAX {
            return Err(CloudError::terminal(&call, format!("user data of {} bytes: at most {USER_DATA_MAX}", request.user_data.len())));
        }
        if let Some(zone) = request.zone.as_deref().filter(|z| !ZONES.contains(z)) {
            return Err(CloudError::terminal(&call, format!("zone {zone:?}: there are {}", ZONES.join(", "))));
        }
        let _unit = self.writer.lock().await;
        if let Some(found) = self.instance_of_machine(&request.machine_uid) {
            if found.name != request.name || !self.belongs(&found.id, &request.cluster.uid) {
                return Err(CloudError::terminal(
                    &call,
                    format!("machine uid {} is taken by {} ({})", request.machine_uid, found.name, found.id),
                ));
            }
            return Ok(found);
        }
        let mut network = self.network_of(&call, &request.cluster)?;
        let (taken, zones) = {
            let world = self.world();
            let zones: Vec<String> = world
                .machines
                .values()
                .filter(|m| m.record.network == network.number)
                .filter_map(Machine::instance)
                .map(|i| i.zone)
                .collect();
            (world.addresses(network.number), zones)
        };
        let Some(address) = self.layout.machine_address(network.number, network.last_address, &taken) else {
            return Err(CloudError::wait(&call, format!("no address is free in {}: delete instances", self.layout.cidr(network.number))));
        };
        let emptiest =
            || ZONES.iter().min_by_key(|z| zones.iter().filter(|used| used == *z).count()).map_or_else(String::new, |z| (*z).to_owned());
        let zone = request.zone.clone().unwrap_or_else(emptiest);
        let id = format!("i-{}", self.next_id(&call).await?);
        network.last_address = Some(address);
        self.store.put_network(&network).await.map_err(host_error(&call))?;
        if let Some(known) = self.world().networks.get_mut(&request.cluster.uid) {
            known.record = network.clone();
        }
        let (script, text) = (self.layout.machine(&id).join("user-data"), request.user_data.clone());
        host::blocking(move || {
            if let Some(directory) = script.parent() {
                host::file("creating", directory, std::fs::create_dir_all(directory))?;
            }
            host::write_durable(&script, text.as_bytes())
        })
        .await
        .map_err(host_error(&call))?;
        let never_boot = self.faults.never_boots(request.name.as_str());
        let kind = Kind::Instance { name: request.name.clone(), machine_uid: request.machine_uid.clone(), zone, never_boot };
        let record = MachineRecord {
            id: id.clone(),
            cluster: request.cluster.clone(),
            network: network.number,
            address,
            power: Power::On,
            boot: 1,
            seen: None,
            died: None,
            deleting: false,
            kind,
        };
        self.add_machine(&call, record).await?;
        self.instance_of_machine(&request.machine_uid).ok_or_else(|| CloudError::retry(&call, "it vanished"))
    }

    /// The living instance of a Machine. One that is being deleted is not it: the Machine's record outlived it, and gets another.
    fn instance_of_machine(&self, machine_uid: &str) -> Option<Instance> {
        self.world().machines.values().filter(|m| !m.record.deleting).filter_map(Machine::instance).find(|i| i.machine_uid == machine_uid)
    }

    fn belongs(&self, id: &str, uid: &str) -> bool {
        self.world().machines.get(id).is_some_and(|m| m.record.cluster.uid == uid)
    }

    fn instance_record(&self, call: &str, uid: &str, id: &str) -> Result<MachineRecord, CloudError> {
        let found = self.world().machines.get(id).map(|m| m.record.clone());
        found
            .filter(|r| r.cluster.uid == uid && !r.deleting && matches!(r.kind, Kind::Instance { .. }))
            .ok_or_else(|| CloudError::terminal(call, format!("the cluster has no instance {id:?}")))
    }

    /// Power: on, off, or off and on.
    pub async fn power(&self, uid: &str, id: &str, press: Press) -> Result<(), CloudError> {
        let call = format!("{press:?} instance {id}");
        let _unit = self.writer.lock().await;
        let mut record = self.instance_record(&call, uid, id)?;
        let before = record.clone();
        match press {
            Press::Start if record.power == Power::On => {}
            Press::Start | Press::Reboot => {
                record.power = Power::On;
                record.boot += 1;
                record.died = None;
            }
            Press::PowerOff => record.power = Power::Off,
        }
        if record == before { Ok(()) } else { self.put_machine(&call, record).await }
    }

    /// Removes an instance, its disk, its routes, and its place among the load balancer's targets.
    pub async fn delete_instance(&self, uid: &str, id: &str) -> Result<(), CloudError> {
        let call = format!("delete instance {id}");
        let _unit = self.writer.lock().await;
        let Ok(mut record) = self.instance_record(&call, uid, id) else { return Ok(()) };
        record.deleting = true;
        self.put_machine(&call, record).await?;
        if let Some((mut balancer, _)) = self.balancer_of(uid)
            && let Kind::Balancer { targets, .. } = &mut balancer.kind
            && targets.remove(id)
        {
            self.put_machine(&call, balancer).await?;
        }
        let network = self.world().networks.get(uid).map(|n| n.record.clone());
        if let Some(mut network) = network.filter(|n| n.routes.iter().any(|r| r.instance_id == id)) {
            network.routes.retain(|r| r.instance_id != id);
            self.put_network(&call, network).await?;
        }
        Ok(())
    }

    /// Removes a load balancer.
    pub async fn delete_load_balancer(&self, uid: &str) -> Result<(), CloudError> {
        let _unit = self.writer.lock().await;
        let Some((mut record, _)) = self.balancer_of(uid).filter(|(r, _)| !r.deleting) else { return Ok(()) };
        record.deleting = true;
        self.put_machine("delete the load balancer", record).await
    }

    /// Sets a network's pod routes.
    pub async fn set_routes(&self, uid: &str, routes: Vec<Route>) -> Result<(), CloudError> {
        let call = format!("set routes of {uid}");
        let _unit = self.writer.lock().await;
        let found = self.world().networks.get(uid).map(|n| n.record.clone()).filter(|n| !n.deleting);
        let Some(mut record) = found else { return Err(CloudError::wait(&call, "the cluster has no network")) };
        if routes.len() > ROUTES_MAX {
            return Err(CloudError::terminal(&call, format!("{} routes: at most {ROUTES_MAX}", routes.len())));
        }
        let mut destinations = BTreeSet::new();
        for Route { destination, .. } in &routes {
            let range = self.layout.range;
            if destination.trunc() != *destination || destination.contains(&range) || range.contains(destination) {
                return Err(CloudError::terminal(
                    &call,
                    format!("destination {destination}: it must be a network without host bits and outside of {range}"),
                ));
            }
            if !destinations.insert(*destination) {
                return Err(CloudError::terminal(&call, format!("destination {destination} is there twice")));
            }
        }
        self.known_instances(&call, uid, routes.iter().map(|r| &r.instance_id))?;
        let routes: BTreeSet<Route> = routes.into_iter().collect();
        if record.routes == routes {
            return Ok(());
        }
        record.routes = routes;
        self.put_network(&call, record).await
    }

    /// The last lines of a running instance's journal.
    pub async fn journal(&self, uid: &str, id: &str, unit: Option<&str>, lines: u32) -> Result<String, CloudError> {
        let call = format!("read the journal of {id}");
        let pid = {
            let world = self.world();
            world.machines.get(id).filter(|m| m.record.cluster.uid == uid).and_then(|m| m.pid)
        };
        let Some(pid) = pid else { return Err(CloudError::wait(&call, "it does not run; its journal is in memory")) };
        if unit.is_some_and(|u| !u.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)) || u.starts_with('-')) {
            return Err(CloudError::terminal(&call, "the unit's name has characters that no unit's has"));
        }
        let directory = format!("--directory=/proc/{pid}/root/run/log/journal");
        let lines = format!("--lines={}", lines.min(LINES_MAX));
        let mut args = vec![directory, "--quiet".into(), "--no-pager".into(), "--output=short-precise".into(), lines];
        args.extend(unit.map(|u| format!("--unit={u}")));
        host::run("journalctl", &args, "").await.map_err(host_error(&call))
    }

    /// The end of an instance's console.
    pub async fn console(&self, uid: &str, id: &str) -> Result<String, CloudError> {
        use std::io::{Read, Seek, SeekFrom};
        let call = format!("read the console of {id}");
        if !self.belongs(id, uid) {
            return Err(CloudError::terminal(&call, "the cluster has no such instance"));
        }
        let path = self.layout.machine(id).join("console.log");
        let read = host::blocking(move || {
            let mut text = Vec::new();
            let Ok(mut console) = std::fs::File::open(&path) else { return Ok(text) };
            let length = host::file("reading", &path, console.metadata())?.len();
            host::file("reading", &path, console.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_MAX))))?;
            host::file("reading", &path, console.take(CONSOLE_MAX).read_to_end(&mut text))?;
            Ok(text)
        });
        read.await.map(|text| String::from_utf8_lossy(&text).into_owned()).map_err(host_error(&call))
    }

    /// A client certificate.
    pub fn issue_certificate(&self, role: &str) -> Result<Certificate, CloudError> {
        let call = format!("issue a certificate for {role:?}");
        if Role::parse(role).is_none() {
            return Err(CloudError::terminal(&call, "roles are admin, operator and ccm:<cluster uid>"));
        }
        let (cert, key) = self.pki.client(role).map_err(|e| CloudError::retry(&call, e))?;
        Ok(Certificate { cert, key, ca: self.pki.ca_pem().to_owned() })
    }

    /// Begins with what is on disk: clears what has no record, and takes into care what has.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), HostError> {
        network::ensure_core(&self.layout).await?;
        let (networks, machines) = (self.store.networks()?, self.store.machines()?);
        let known: BTreeSet<&str> = machines.iter().map(|m| m.id.as_str()).collect();
        for entry in std::fs::read_dir(self.layout.state.join("machines")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(id.as_str()) {
                machine::discard_disk(&self.layout, &id)?;
            }
        }
        tracing::info!(networks = networks.len(), machines = machines.len(), "taking into care");
        networks.into_iter().for_each(|record| self.keep_network(record));
        machines.into_iter().for_each(|record| self.keep_machine(record));
        Ok(())
    }
}

/// A machine's button.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// Start it if it is off.
    Start,
    /// Pull the plug.
    PowerOff,
    /// Pull the plug and put it back.
    Reboot,
}
