//! A cloud in memory: refuses what the real one refuses, and counts what it is asked.

use async_trait::async_trait;
use slipway_cloud_api::{
    Cloud, CloudError, ClusterKey, Instance, InstanceRequest, InstanceState, Inventory, LoadBalancerRequest, LoadBalancerState,
    NetworkState,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Default)]
struct Held {
    networks: BTreeMap<String, Inventory>,
    ids: u32,
    calls: BTreeMap<String, usize>,
    /// Fail this many of the next mutating calls, after having done them.
    lose: usize,
}

/// The cloud. Clones share it.
#[derive(Clone, Default)]
pub struct FakeCloud {
    held: Arc<Mutex<Held>>,
    changed: Arc<Notify>,
}

impl FakeCloud {
    pub fn inventory_of(&self, uid: &str) -> Inventory {
        self.held.lock().unwrap().networks.get(uid).cloned().unwrap_or_default()
    }

    pub fn all_instances(&self) -> Vec<Instance> {
        self.held.lock().unwrap().networks.values().flat_map(|i| i.instances.clone()).collect()
    }

    pub fn instance_at(&self, address: std::net::Ipv4Addr) -> Option<Instance> {
        self.all_instances().into_iter().find(|i| i.address == address)
    }

    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.held.lock().unwrap().calls.clone()
    }

    pub fn lose_answers(&self, n: usize) {
        self.held.lock().unwrap().lose = n;
    }

    /// Everything of every cluster.
    pub fn is_empty(&self) -> bool {
        self.held.lock().unwrap().networks.values().all(|i| *i == Inventory::default())
    }

    pub fn set_state(&self, uid: &str, machine: &str, state: InstanceState) {
        let mut held = self.held.lock().unwrap();
        let inventory = held.networks.get_mut(uid).unwrap();
        inventory.instances.iter_mut().find(|i| i.name.as_str() == machine).unwrap().state = state;
        drop(held);
        self.changed.notify_waiters();
    }

    /// A machine is gone, and nobody asked for it.
    pub fn lose(&self, uid: &str, machine: &str) {
        let mut held = self.held.lock().unwrap();
        held.networks.get_mut(uid).unwrap().instances.retain(|i| i.name.as_str() != machine);
        drop(held);
        self.changed.notify_waiters();
    }

    fn act<T>(
        &self,
        call: &str,
        cluster: &ClusterKey,
        act: impl FnOnce(&mut Inventory, &mut u32) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let mut held = self.held.lock().unwrap();
        *held.calls.entry(call.to_owned()).or_default() += 1;
        let mut ids = held.ids;
        let result = act(held.networks.entry(cluster.uid.clone()).or_default(), &mut ids);
        held.ids = ids;
        if held.lose > 0 {
            held.lose -= 1;
            return Err(CloudError::retry(call, "the answer was lost"));
        }
        drop(held);
        self.changed.notify_waiters();
        result
    }
}

#[async_trait]
impl Cloud for FakeCloud {
    async fn inventory(&self, cluster: &ClusterKey) -> Result<Inventory, CloudError> {
        Ok(self.inventory_of(&cluster.uid))
    }

    async fn changed(&self, _: &ClusterKey, at_most: Duration) -> Result<(), CloudError> {
        let _ = tokio::time::timeout(at_most, self.changed.notified()).await;
        Ok(())
    }

    async fn ensure_network(&self, cluster: &ClusterKey) -> Result<NetworkState, CloudError> {
        self.act("ensure network", cluster, |held, _| {
            let network = held.network.get_or_insert_with(|| NetworkState {
                id: "net-1".into(),
                cidr: "198.18.1.0/24".parse().unwrap(),
                routes: vec![],
            });
            Ok(network.clone())
        })
    }

    async fn ensure_load_balancer(&self, request: &LoadBalancerRequest) -> Result<LoadBalancerState, CloudError> {
        self.act("ensure load balancer", &request.cluster, |held, _| {
            if held.network.is_none() {
                return Err(CloudError::terminal("ensure load balancer", "there is no network"));
            }
            let lb = held.load_balancer.get_or_insert_with(|| LoadBalancerState {
                id: "lb-1".into(),
                address: "198.18.1.2".parse().unwrap(),
                port: request.port,
                targets: vec![],
                ready: true,
                trouble: None,
            });
            Ok(lb.clone())
        })
    }

    async fn set_targets(&self, cluster: &ClusterKey, targets: &[String]) -> Result<(), CloudError> {
        self.act("set targets", cluster, |held, _| {
            let unknown = targets.iter().find(|t| !held.instances.iter().any(|i| i.id == **t));
            if let Some(unknown) = unknown {
                return Err(CloudError::terminal("set targets", format!("there is no instance {unknown}")));
            }
            let lb = held.load_balancer.as_mut().ok_or_else(|| CloudError::terminal("set targets", "there is no load balancer"))?;
            lb.targets = targets.to_vec();
            lb.targets.sort();
            Ok(())
        })
    }

    async fn create_instance(&self, request: &InstanceRequest) -> Result<Instance, CloudError> {
        self.act("create instance", &request.cluster, |held, ids| {
            if held.network.is_none() {
                return Err(CloudError::terminal("create instance", "there is no network"));
            }
            if let Some(found) = held.instances.iter().find(|i| i.machine_uid == request.machine_uid) {
                return Ok(found.clone());
            }
            *ids += 1;
            let id = format!("i-{ids}");
            let instance = Instance {
                id: id.clone(),
                name: request.name.clone(),
                machine_uid: request.machine_uid.clone(),
                state: InstanceState::Running,
                address: format!("198.18.1.{}", 10 + *ids).parse().unwrap(),
                zone: "local-a".into(),
                instance_type: "container".into(),
                provider_id: format!("local://{}/{id}", request.cluster.uid),
                trouble: None,
            };
            held.instances.push(instance.clone());
            Ok(instance)
        })
    }

    async fn start_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        self.act("start instance", cluster, |held, _| {
            let found =
                held.instances.iter_mut().find(|i| i.id == id).ok_or_else(|| CloudError::terminal("start instance", "no such instance"))?;
            found.state = InstanceState::Running;
            Ok(())
        })
    }

    async fn delete_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        self.act("delete instance", cluster, |held, _| {
            held.instances.retain(|i| i.id != id);
            if let Some(lb) = &mut held.load_balancer {
                lb.targets.retain(|t| t != id);
            }
            Ok(())
        })
    }

    async fn delete_load_balancer(&self, cluster: &ClusterKey) -> Result<(), CloudError> {
        self.act("delete load balancer", cluster, |held, _| {
            held.load_balancer = None;
            Ok(())
        })
    }

    async fn delete_network(&self, cluster: &ClusterKey) -> Result<(), CloudError> {
        self.act("delete network", cluster, |held, _| {
            if !held.instances.is_empty() || held.load_balancer.is_some() {
                return Err(CloudError::wait("delete network", "something is in it"));
            }
            held.network = None;
            Ok(())
        })
    }
}
