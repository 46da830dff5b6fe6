//! How machines may be changed: in place or by replacement, how many at once, and when.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How outdated machines come to run what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Strategy {
    /// The machine stays; its components are exchanged.
    #[default]
    InPlace,
    /// A new machine comes, the old one goes.
    Replace,
}

/// What an upgrade may do to machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Allow {
    /// In place or by replacement, as the strategy says and the change demands.
    #[default]
    Any,
    /// Whatever would replace a machine is refused before anything changes.
    InPlaceOnly,
}

/// A number of machines, or a share of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many of a hundred, 0 to 100.
    Percent(u32),
}

impl Amount {
    /// Of a pool of this size, rounded up (as surge is).
    #[must_use]
    pub fn rounded_up(self, size: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => size.saturating_mul(percent).div_ceil(100),
        }
    }

    /// Of a pool of this size, rounded down (as unavailability is).
    #[must_use]
    pub fn rounded_down(self, size: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => size.saturating_mul(percent) / 100,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// How a pool's machines are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUpgrade {
    /// In place or by replacement.
    pub strategy: Strategy,
    /// More machines than wanted, while replacing. Rounded up.
    pub max_surge: Amount,
    /// Fewer Ready machines than wanted. Rounded down; never both are 0.
    pub max_unavailable: Amount,
}

impl Default for PoolUpgrade {
    fn default() -> Self {
        Self { strategy: Strategy::InPlace, max_surge: Amount::Count(1), max_unavailable: Amount::Count(1) }
    }
}

/// When a worker counts as failed, beside what its cloud says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Seconds of an agent's silence (with a second witness) after which a machine is dead.
    pub agent_silent_seconds: u32,
    /// Node conditions that must not last.
    pub node_conditions: Vec<NodeConditionLimit>,
    /// Machines of the pool that are replaced at once for their health.
    pub max_replacing: Amount,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { agent_silent_seconds: 30, node_conditions: vec![], max_replacing: Amount::Percent(20) }
    }
}

/// A Node condition that makes its machine failed when it lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeConditionLimit {
    /// `Ready`, `DiskPressure`, …
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// For how long it may last, in seconds.
    pub seconds: u32,
}

/// A day of the week, as bits are numbered: Monday first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "days need no explanation")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// A time that comes again every week, in which machines may be disturbed. UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// On which days it begins; none: every day.
    pub days: Vec<Weekday>,
    /// Minutes after midnight, 0 to 1439.
    pub start: u32,
    /// How long it lasts, in minutes, 1 to 1440.
    pub minutes: u32,
}

/// Whether dead machines are replaced outside the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Healing {
    /// At any time, paused or not.
    #[default]
    Always,
    /// Only when machines may be disturbed anyway.
    InWindows,
}

/// When machines may be disturbed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Maintenance {
    /// Nothing that disturbs is begun.
    pub paused: bool,
    /// None: at any time.
    pub windows: Vec<Window>,
    /// Whether healing waits, too.
    pub healing: Healing,
}
