//! What the operator would do, step by step to the end, for those who ask before they apply something.
//!
//! ```text
//! a pass ──► Looks ──► GET  /plan/NAMESPACE/NAME   the stored Cluster   ─┐
//!              └─────► POST /plan/NAMESPACE/NAME   a candidate           ├─► slipway_plan::forecast ──► Foreseen: JSON, or text
//! objects' statuses ──► of_records, where the operator cannot be asked ──┘
//! ```
//! Both ways end in the same function and the same words. What the operator saw itself says more than what it wrote down: what agents and etcd said last.

mod admission;
pub mod ask;
mod records;
mod serve;

pub use records::Present;
pub use serve::{Desk, router};

use crate::looks::Look;
use crate::records::RecordError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_crds::Cluster;
use slipway_model::{ClusterSpec, PlanDigest};
use slipway_plan::{Foretold, Observed, forecast, forecast_while};
use std::fmt;

/// A forecast in words, and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// The forecast.
    #[serde(flatten)]
    pub told: Foretold,
    /// Who saw the world that it begins with.
    pub from: Source,
    /// When the operator last saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
    /// The `metadata.generation` of the Cluster that the operator saw then; none where there was no such Cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// Where a forecast begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// With what the operator itself saw last.
    Operator,
    /// With what the operator last wrote into the objects' statuses.
    Records,
}

impl fmt::Display for Foreseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whence = match self.from {
            Source::Operator => "",
            Source::Records => " (from its records)",
        };
        write!(f, "Cluster {}{whence}:\n{}", self.told.cluster, self.told)
    }
}

/// Foresees from the records what becomes of `present` once `wanted` is applied.
pub fn of_records(wanted: &Cluster, present: &Present, now: Timestamp) -> Result<Foreseen, RecordError> {
    let spec = crate::records::spec(wanted)?;
    let foreseen = forecast(&spec, &records::observed(&spec, present, now)?, now);
    Ok(Foreseen { told: Foretold::new(spec.name.as_str(), &foreseen), from: Source::Records, seen: None, generation: None })
}

/// Foresees from what the operator saw what becomes of it once `spec` is applied. `None`: `go_on` called it off.
fn of_look(spec: &ClusterSpec, look: Option<&Look>, now: Timestamp, go_on: impl FnMut() -> bool) -> Option<Foreseen> {
    let mut world = look.map_or_else(|| Observed::nothing("to-be", now), |look| look.observed.clone());
    if look.is_some_and(|look| renders_otherwise(&look.spec, spec)) {
        render_otherwise(&mut world);
    }
    let foreseen = forecast_while(spec, &world, now, go_on)?;
    Some(Foreseen {
        told: Foretold::new(spec.name.as_str(), &foreseen),
        from: Source::Operator,
        seen: look.map(|l| l.at),
        generation: look.and_then(|l| l.generation),
    })
}

/// Whether machines that are there would be configured otherwise: by what every configuration is rendered from.
fn renders_otherwise(before: &ClusterSpec, after: &ClusterSpec) -> bool {
    let pools = |spec: &ClusterSpec| spec.pools.iter().map(|p| (p.name.clone(), p.labels.clone(), p.taints.clone())).collect::<Vec<_>>();
    let (old, new) = (pools(before), pools(after));
    before.network != after.network || old.iter().any(|pool| new.iter().any(|n| n.0 == pool.0 && n != pool))
}

/// As if every machine were to be told another configuration than it was.
fn render_otherwise(world: &mut Observed) {
    world.wanted.values_mut().for_each(|digest| *digest = PlanDigest(format!("{digest} changed")));
}

#[cfg(test)]
mod tests;
