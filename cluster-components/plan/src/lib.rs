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
//! [`forecast`]; the model checker drives the same [`simulate`]. What is shown, checked and done is one function.

mod action;
mod agents;
mod conditions;
mod control_plane;
mod dead;
mod deletion;
mod departure;
mod draft;
mod drain;
mod facts;
mod forecast;
mod foretold;
mod happenings;
mod healing;
mod infrastructure;
mod machines;
mod maintenance;
mod membership;
mod outcome;
mod pools;
mod preflight;
mod quorum;
mod reasons;
mod reconfigure;
mod remediation;
mod rollout;
mod simulate;
mod size;
mod skew;
mod snapshots;
mod turn;
mod types;
mod wording;
mod zones;

pub use action::{Action, ActionKey, ActionKind, Removal};
pub use agents::may_try_build;
pub use dead::POWER_ON;
pub use draft::{BOOT_TIMEOUT, DEAD_AFTER, PROBE_API_SERVER, PROBE_ETCD};
pub use drain::{is_no_member, may_be_deleted};
pub use facts::{
    AgentBuild, AgentFacts, AgentState, CloudFacts, EtcdFacts, InstanceFacts, InstanceState, LoadBalancerFacts, MemberFacts, MemberId,
    MemberStatus, NodeFacts, PodFacts, PodKey, PreflightFacts, ProbeFacts, RefusedBuild, SnapshotFacts, Trouble,
};
pub use forecast::{End, Forecast, Quorum, Step, forecast, forecast_while};
pub use foretold::{Foretold, ToldEnd, ToldStep};
#[doc(hidden)]
pub use happenings::follow as world_follows;
pub use happenings::{Happening, happen, happenings};
pub use infrastructure::API_PORT;
pub use maintenance::{Closed, maintenance_open};
pub use membership::STABLE_FOR;
pub use outcome::{Condition, ConditionType, Decision, Plan, Status, Wait};
pub use quorum::is_of as is_member_of;
pub use reasons::Reason;
pub use rollout::is_upgrade_pending;
pub use simulate::{Refused, seen, simulate};
#[doc(hidden)]
pub use simulate::{arrives, falls_back, renders, what_runs};
pub use skew::{Running, SkewViolation, skew_allows, skew_lets_follow, skew_violations};
pub use types::{
    Certificates, ClusterFacts, Endpoint, Fact, Failure, InstanceRef, JoinRecord, MachineRecord, MachineSecrets, Observed, Ordinals,
    PoolRecord, SecretFacts, StoppedRoll, UpgradeRecord, VersionChange,
};

use jiff::Timestamp;
use slipway_model::{ClusterSpec, MachineName};

/// What may start now, what holds, and what is waited for.
#[must_use]
pub fn plan(spec: &ClusterSpec, observed: &Observed, now: Timestamp) -> Plan {
    draft(spec, observed, now).finish()
}

/// Machines that do not run, or are not made of, what the spec wants, whether or not anything is done about it now.
#[must_use]
pub fn outdated(spec: &ClusterSpec, observed: &Observed, now: Timestamp) -> Vec<MachineName> {
    rollout::behind(&draft::Draft::new(spec, observed, now)).into_iter().map(|m| m.name.clone()).collect()
}

/// [`Plan::actions`] and the pause after which time alone may bring others, for those who ask a hundred thousand times.
#[doc(hidden)]
#[must_use]
pub fn outlook(spec: &ClusterSpec, observed: &Observed, now: Timestamp) -> (Vec<Action>, Option<std::time::Duration>) {
    draft(spec, observed, now).into_outlook()
}

/// The table of contents of this crate.
fn draft<'a>(spec: &'a ClusterSpec, observed: &'a Observed, now: Timestamp) -> draft::Draft<'a> {
    let mut draft = draft::Draft::new(spec, observed, now);
    if let Some(since) = observed.cluster.deleting {
        deletion::cluster(&mut draft, since);
    } else if observed.cluster.finalizer {
        infrastructure::shared(&mut draft);
        infrastructure::strays(&mut draft);
        rollout::surge(&mut draft);
        control_plane::members(&mut draft);
        pools::records(&mut draft);
        pools::sizes(&mut draft);
        pools::sizeless(&mut draft);
        remediation::workers(&mut draft);
        rollout::roll(&mut draft);
        snapshots::asked_for(&mut draft);
        machines::forward(&mut draft);
        drain::leaving(&mut draft);
        control_plane::access(&mut draft);
        agents::certificates(&mut draft);
        agents::builds(&mut draft);
    } else {
        draft.start(Action::AddFinalizer);
    }
    draft
}
