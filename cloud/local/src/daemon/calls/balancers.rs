//! Load balancers and their targets.

use crate::balancer::TARGETS_MAX;
use crate::daemon::Daemon;
use crate::records::{Kind, MachineRecord, Power};
use slipway_cloud_api::{CloudError, LoadBalancerRequest, LoadBalancerState};
use std::collections::BTreeSet;
use std::sync::Arc;

impl Daemon {
    pub(super) fn balancer_of(&self, uid: &str) -> Option<(MachineRecord, Option<LoadBalancerState>)> {
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

    /// Removes a load balancer.
    pub async fn delete_load_balancer(&self, uid: &str) -> Result<(), CloudError> {
        let _unit = self.writer.lock().await;
        let Some((mut record, _)) = self.balancer_of(uid).filter(|(r, _)| !r.deleting) else { return Ok(()) };
        record.deleting = true;
        self.put_machine("delete the load balancer", record).await
    }
}
