//! The artifacts of one pass.

use crate::artifacts::Artifacts;
use slipway_model::MachinePlan;
use std::collections::HashMap;
use tokio::sync::OnceCell;

/// Each is checked once, whoever asks first.
pub(super) struct Checks<'a> {
    plan: &'a MachinePlan,
    artifacts: &'a Artifacts,
    done: HashMap<&'a str, OnceCell<Result<(), String>>>,
}

impl<'a> Checks<'a> {
    pub fn new(plan: &'a MachinePlan, artifacts: &'a Artifacts) -> Self {
        let done = plan.artifacts.iter().map(|artifact| (artifact.name.as_str(), OnceCell::new())).collect();
        Self { plan, artifacts, done }
    }

    pub async fn named<'n>(&self, name: &'n str) -> (&'n str, Result<(), String>) {
        (name, self.ensure(name).await)
    }

    pub async fn ensure(&self, name: &str) -> Result<(), String> {
        let wanted = self.plan.artifacts.iter().find(|artifact| artifact.name == name);
        let (Some(wanted), Some(done)) = (wanted, self.done.get(name)) else { return Err(format!("artifact {name} is not in the plan")) };
        done.get_or_init(|| async { self.artifacts.ensure(wanted).await.map_err(|why| format!("artifact {name}: {why}")) }).await.clone()
    }
}
