//! Networks and their pod routes.

use super::{check_uid, host_error};
use crate::daemon::Daemon;
use crate::records::NetworkRecord;
use slipway_cloud_api::{CloudError, ClusterKey, NetworkState, Route};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most routes in a network: one per machine.
const ROUTES_MAX: usize = 256;

impl Daemon {
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

    pub(super) async fn put_network(&self, call: &str, record: NetworkRecord) -> Result<(), CloudError> {
        self.store.put_network(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        if let Some(network) = self.world().networks.get_mut(&uid) {
            network.record = record;
            network.poke.notify_one();
        }
        self.bump(&uid);
        Ok(())
    }

    pub(super) fn network_of(&self, call: &str, cluster: &ClusterKey) -> Result<NetworkRecord, CloudError> {
        let found = self.world().networks.get(&cluster.uid).map(|n| n.record.clone());
        found.filter(|n| !n.deleting).ok_or_else(|| CloudError::wait(call, "the cluster has no network yet: make it first"))
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
}
