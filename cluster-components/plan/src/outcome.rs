//! What the planner says: [`Plan`], its conditions, and every wait with what it is for.

use crate::{Action, ActionKey, Reason};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_model::MachineName;
use std::fmt;
use std::time::Duration;

/// What may start now, what holds, what is waited for, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Plan {
    /// Independent of each other, sorted; they may all start now, concurrently.
    pub actions: Vec<Action>,
    /// One per [`ConditionType`], in its order.
    pub conditions: Vec<Condition>,
    /// Everything that is not done yet and has no action now.
    pub waits: Vec<Wait>,
    /// Why actions were chosen, where that is not plain from the action itself: what `explain` tells.
    pub decisions: Vec<Decision>,
    /// Look again after this, even if nothing is heard. `None`: only an event can change anything.
    pub requeue: Option<Duration>,
}

impl Plan {
    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, kind: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}

/// Why an action was chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decision {
    /// Which.
    pub action: ActionKey,
    /// The facts and the rule, in one sentence.
    pub because: String,
}

/// Conditions of a Cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// All that the spec asks for is there and works.
    Ready,
    /// Network, load balancer and every machine exist.
    InfrastructureReady,
    /// The API answers: every API server is healthy (a quorum of them at least).
    ControlPlaneAvailable,
    /// Every etcd member is healthy.
    EtcdHealthy,
    /// Every wanted worker has a Ready Node.
    WorkersReady,
    /// Every machine runs what the spec says.
    UpToDate,
    /// Something is being changed. False once all is done or nothing can go on.
    Progressing,
}

impl ConditionType {
    /// All, in the order of [`Plan::conditions`].
    pub const ALL: [Self; 7] = [
        Self::Ready,
        Self::InfrastructureReady,
        Self::ControlPlaneAvailable,
        Self::EtcdHealthy,
        Self::WorkersReady,
        Self::UpToDate,
        Self::Progressing,
    ];

    /// As written in the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::InfrastructureReady => "InfrastructureReady",
            Self::ControlPlaneAvailable => "ControlPlaneAvailable",
            Self::EtcdHealthy => "EtcdHealthy",
            Self::WorkersReady => "WorkersReady",
            Self::UpToDate => "UpToDate",
            Self::Progressing => "Progressing",
        }
    }
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl Status {
    /// As written in the object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A condition as the status writer puts it into the object; transition times and observedGeneration are added there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Condition {
    /// Which.
    pub kind: ConditionType,
    /// Whether it holds.
    pub status: Status,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: what, on which machine, since when, last error, next try. Changes only when the facts do, never with the clock alone.
    pub message: String,
}

/// Something not done yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wait {
    /// On which machine, if on one.
    pub machine: Option<MachineName>,
    /// Why, for programs.
    pub reason: Reason,
    /// For what, e.g. `the machine to boot`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// What was last heard of it.
    pub last_error: Option<String>,
    /// When it is tried again; `None`: as soon as something is heard.
    pub next_try: Option<Timestamp>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(machine) = &self.machine {
            write!(f, "{machine}: ")?;
        }
        write!(f, "waiting for {} since {}", self.what, seconds(self.since))?;
        if let Some(error) = &self.last_error {
            write!(f, "; last error: {error}")?;
        }
        if let Some(at) = self.next_try {
            write!(f, "; next try {}", seconds(at))?;
        }
        Ok(())
    }
}

/// A time to the second: people need no more, and messages change less.
pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
