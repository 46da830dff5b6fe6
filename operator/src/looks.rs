//! What the last pass over each cluster saw: for forecasts and metrics, which ask nobody themselves.

use crate::compose::World;
use crate::context::ClusterRef;
use crate::validate::Invalid;
use jiff::Timestamp;
use slipway_model::ClusterSpec;
use slipway_plan::{Observed, outdated};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one pass saw of a cluster.
#[derive(Debug, Clone)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// `metadata.generation` of the Cluster.
    pub generation: Option<i64>,
    /// What it asks for.
    pub spec: Arc<ClusterSpec>,
    /// What there is.
    pub observed: Observed,
    /// How many machines do not run, or are not made of, what the spec wants.
    pub outdated: usize,
}

impl Look {
    /// Of a pass that is over.
    pub(crate) fn of(world: World, now: Timestamp) -> Self {
        let (spec, observed) = (world.scene.spec.clone(), world.observed);
        let outdated = outdated(&spec, &observed, now).len();
        Self { at: now, generation: world.seen.cluster.metadata.generation, spec, observed, outdated }
    }
}

/// What is known of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// What was last seen of it.
    pub look: Option<Arc<Look>>,
    /// Why its spec, as it is now, cannot be acted on.
    pub refused: Option<Invalid>,
}

/// The last look at every cluster. One per process.
#[derive(Debug, Default)]
pub struct Looks(Mutex<BTreeMap<ClusterRef, Known>>);

impl Looks {
    /// A pass saw this.
    pub fn keep(&self, cluster: &ClusterRef, look: Look) {
        self.all().insert(cluster.clone(), Known { look: Some(Arc::new(look)), refused: None });
    }

    /// A pass could not act on the spec. What was seen before stays.
    pub fn refuse(&self, cluster: &ClusterRef, invalid: &Invalid) {
        self.all().entry(cluster.clone()).or_default().refused = Some(invalid.clone());
    }

    /// There is no such cluster any more.
    pub fn forget(&self, cluster: &ClusterRef) {
        self.all().remove(cluster);
    }

    /// What is known of a cluster; `None`: nothing, not even that there is one.
    #[must_use]
    pub fn of(&self, cluster: &ClusterRef) -> Option<Known> {
        self.all().get(cluster).cloned()
    }

    /// Every look.
    #[must_use]
    pub fn each(&self) -> Vec<(ClusterRef, Arc<Look>)> {
        self.all().iter().filter_map(|(cluster, known)| Some((cluster.clone(), known.look.clone()?))).collect()
    }

    /// Nothing that is done under the lock can leave the map half-changed.
    fn all(&self) -> MutexGuard<'_, BTreeMap<ClusterRef, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
