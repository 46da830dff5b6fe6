//! The cloud's part: one inventory call, and a long poll that only rings.

use crate::bell::Bell;
use slipway_cloud_api::{Cloud, ClusterKey, InstanceState as Cloudy, Inventory};
use slipway_plan::{CloudFacts, Endpoint, InstanceFacts, InstanceState, LoadBalancerFacts};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// One inventory. A cloud that is slower is one that cannot be seen at the moment.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long one poll waits for news.
const POLL: Duration = Duration::from_secs(60);
/// After a poll that failed.
const PAUSE: Duration = Duration::from_secs(2);

/// The long poll of one cluster. Dropping it ends it.
pub struct CloudWatch(JoinHandle<()>);

impl Drop for CloudWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl CloudWatch {
    /// Begins to listen.
    #[must_use]
    pub fn open(cloud: Arc<dyn Cloud>, cluster: ClusterKey, bell: Arc<Bell>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                let begin = tokio::time::Instant::now();
                match cloud.changed(&cluster, POLL).await {
                    // Nothing happened in all that time.
                    Ok(()) if begin.elapsed() >= POLL => {}
                    Ok(()) => bell.fact(),
                    Err(error) => {
                        tracing::debug!(%error, "the cloud's changes are not heard");
                        tokio::time::sleep(PAUSE).await;
                        bell.word();
                    }
                }
            }
        }))
    }
}

/// As the planner sees it.
#[must_use]
pub fn facts(inventory: &Inventory) -> CloudFacts {
    CloudFacts {
        network: inventory.network.is_some(),
        load_balancer: inventory.load_balancer.as_ref().map(|lb| LoadBalancerFacts {
            endpoint: Endpoint { host: lb.address.to_string(), port: lb.port },
            targets: lb.targets.clone(),
            ready: lb.ready,
            trouble: lb.trouble.clone(),
        }),
        instances: inventory
            .instances
            .iter()
            .map(|i| InstanceFacts {
                id: i.id.clone(),
                machine_uid: i.machine_uid.clone(),
                machine: i.name.clone(),
                state: match i.state {
                    Cloudy::Pending => InstanceState::Pending,
                    Cloudy::Running => InstanceState::Running,
                    Cloudy::Stopped => InstanceState::Stopped,
                    Cloudy::Deleting => InstanceState::Deleting,
                },
                address: i.address,
                zone: Some(i.zone.clone()),
                trouble: i.trouble.clone(),
            })
            .collect(),
    }
}
