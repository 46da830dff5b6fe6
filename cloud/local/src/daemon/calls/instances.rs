//! Instances, and their power.

use super::{check_uid, host_error};
use crate::daemon::{Daemon, Machine, ZONES};
use crate::host;
use crate::records::{Kind, MachineRecord, Power};
use slipway_cloud_api::{CloudError, Instance, InstanceRequest};
use std::sync::Arc;

/// Longest user data.
const USER_DATA_MAX: usize = 256 << 10;

impl Daemon {
    pub(super) fn known_instances<'a>(&self, call: &str, uid: &str, mut ids: impl Iterator<Item = &'a String>) -> Result<(), CloudError> {
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

    pub(super) fn belongs(&self, id: &str, uid: &str) -> bool {
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
