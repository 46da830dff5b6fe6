//! What turned by itself since the last pass: machines that became ready or ceased to be, etcd's quorum, the cluster's first readiness. What was so before this operator
//! began is what the statuses say.

use super::{Tiding, cluster_reference, reference};
use crate::compose::World;
use kube::ResourceExt;
use slipway_crds::{Cluster, Machine};
use slipway_plan::{ConditionType, Fact, Plan, Reason, Status};
use std::collections::BTreeMap;

/// What is known to people.
#[derive(Debug, Default)]
pub struct Told {
    /// Whether each machine is ready, by UID.
    ready: BTreeMap<String, bool>,
    /// Of the cluster; `None`: not looked yet.
    cluster: Option<OfCluster>,
}

#[derive(Debug, Clone, Copy)]
struct OfCluster {
    /// It was ready once.
    completed: bool,
    /// etcd has no quorum.
    lost: bool,
    deleting: bool,
}

impl OfCluster {
    fn before(cluster: &Cluster) -> Self {
        let conditions = cluster.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let condition = |kind: ConditionType| conditions.iter().find(|c| c.type_ == kind.as_str());
        let creating =
            |c: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| c.status != "True" && c.reason == Reason::Creating.as_str();
        Self {
            completed: !conditions.is_empty() && condition(ConditionType::Progressing).filter(creating).is_none(),
            lost: condition(ConditionType::EtcdHealthy).is_some_and(|c| c.reason == Reason::QuorumLost.as_str()),
            deleting: cluster.metadata.deletion_timestamp.is_some(),
        }
    }
}

impl Told {
    /// What turned.
    pub fn turned(&mut self, world: &World, plan: &Plan) -> Vec<Tiding> {
        let mut turned = vec![];
        turned.extend(self.of_cluster(world, plan));
        if world.observed.cluster.deleting.is_none() {
            turned.extend(self.of_machines(world));
        }
        turned
    }

    fn of_cluster(&mut self, world: &World, plan: &Plan) -> Vec<Tiding> {
        let before = *self.cluster.get_or_insert_with(|| OfCluster::before(&world.seen.cluster));
        let mut after = before;
        let mut turned = vec![];
        let mut tell = |reason, action: &str, note: String, warns: bool| {
            let tiding = Tiding::new(cluster_reference(&world.scene), reason, action, note);
            turned.push(if warns { tiding.warning() } else { tiding });
        };
        if let Some(ready) = plan.condition(ConditionType::Ready).filter(|c| c.status == Status::True && !before.completed) {
            after.completed = true;
            tell("ClusterReady", "Create", format!("everything that the spec asks for is there and works: {}", ready.message), false);
        }
        if let Some(etcd) = plan.condition(ConditionType::EtcdHealthy) {
            match (etcd.status, etcd.reason) {
                (Status::False, Reason::QuorumLost) if !before.lost => {
                    after.lost = true;
                    tell("QuorumLost", "Observe", etcd.message.clone(), true);
                }
                (Status::True, _) | (Status::False, Reason::QuorumHealthy) if before.lost => {
                    after.lost = false;
                    tell("QuorumRegained", "Observe", etcd.message.clone(), false);
                }
                // What nobody can ask may be either.
                _ => {}
            }
        }
        after.deleting = world.observed.cluster.deleting.is_some();
        if after.deleting && !before.deleting {
            tell("Deleting", "Delete", "the cluster is being deleted".to_owned(), false);
        }
        self.cluster = Some(after);
        turned
    }

    fn of_machines(&mut self, world: &World) -> Vec<Tiding> {
        self.ready.retain(|uid, _| world.seen.machines.iter().any(|m| m.metadata.uid.as_deref() == Some(uid)));
        // Before this operator's own first status says what it does not see yet.
        for machine in &world.seen.machines {
            self.ready.entry(machine.uid().unwrap_or_default()).or_insert_with(|| was_ready(machine));
        }
        // While Nodes cannot be seen nothing is known of any of them.
        let Fact::Known(nodes) = &world.observed.nodes else { return vec![] };
        let mut turned = vec![];
        for machine in world.seen.machines.iter().filter(|m| m.metadata.deletion_timestamp.is_none()) {
            let (name, uid) = (machine.name_any(), machine.uid().unwrap_or_default());
            let node = nodes.iter().find(|n| n.machine.as_ref().is_some_and(|m| m.as_str() == name));
            let ready = node.is_some_and(|n| n.ready);
            if self.ready.insert(uid.clone(), ready) == Some(ready) {
                continue;
            }
            let about = reference(&world.scene, "Machine", &name, &uid);
            turned.push(if ready {
                Tiding::new(about, "MachineReady", "Join", format!("the Node of {name} is Ready"))
            } else {
                let why = node.map_or("its Node is gone", |n| n.message.as_str());
                Tiding::new(about, "MachineNotReady", "Observe", format!("the Node of {name} is not Ready any more: {why}")).warning()
            });
        }
        turned
    }
}

fn was_ready(machine: &Machine) -> bool {
    let conditions = machine.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
