//! The pure planner: what a cluster needs next, decided from what was observed, and from nothing else.
//!
//! ```text
//!  ClusterSpec ─┐
//!  Observed ────┼─► plan ─► Plan { actions, conditions, waits, requeue }
//!  now ─────────┘     ▲            │
//!                     │            ▼ simulate: what each action does to the world
//!                     └──────── Observed'        (forecast folds this to the end; the tests explore it)
//! ```
//! No I/O, no clock, no randomness, no environment. The operator executes [`Plan::actions`] and writes [`Plan::conditions`]; people see
//! `forecast`; the model checker drives the same `simulate`. What is shown, checked and done is one function.

mod action;
mod outcome;
mod reasons;
mod types;

pub use action::{Action, ActionKey, ActionKind, Removal};
pub use outcome::{Condition, ConditionType, Plan, Status, Wait};
pub use reasons::Reason;
pub use types::{
    AgentFacts, AgentState, CloudFacts, ClusterFacts, Endpoint, Fact, Failure, InstanceFacts, InstanceRef, InstanceState,
    LoadBalancerFacts, MachineRecord, MachineSecrets, NodeFacts, Observed, Ordinals, PodFacts, PodKey, PoolRecord, ProbeFacts, SecretFacts,
    Trouble,
};

use jiff::Timestamp;
use slipway_model::ClusterSpec;

/// What may start now.
#[must_use]
pub fn plan(spec: &ClusterSpec, observed: &Observed, now: Timestamp) -> Plan {
    let _ = (spec, observed, now);
    Plan { actions: vec![], conditions: vec![], waits: vec![], requeue: None }
}
