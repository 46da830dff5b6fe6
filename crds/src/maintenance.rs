//! When and how machines may be changed: the windows of a Cluster, what an upgrade may do without, and how a control plane and a pool are rolled.

use crate::upgrade::Amount;
use crate::{rules, schemas};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use slipway_model::{Allow, Healing, Strategy, Weekday};

/// What an upgrade of the control plane may do without.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeChecks {
    /// APIs that the new version does not serve any more and whose use holds no upgrade up, each as the refusal names it: `group/version resource`, e.g.
    /// `policy/v1beta1 podsecuritypolicies`. Every other one still does. For uses that are known to have ended: API servers forget them only when they are
    /// started again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 253)))]
    #[x_kube(validation = rules::removed_apis())]
    pub ignore_removed_apis: Vec<String>,
}

impl UpgradeChecks {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When machines may be disturbed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// While true, nothing that disturbs machines is begun. What was begun is finished.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Times of the week in which machines may be disturbed. None: at any time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub windows: Vec<Window>,
    /// Whether dead machines are replaced while machines may not be disturbed. Always: at any time, paused or not. InWindows: as everything else.
    #[serde(default)]
    #[schemars(schema_with = "schemas::healing")]
    pub healing: Healing,
}

impl Maintenance {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A time that comes again every week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Days on which it begins. None: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schemas::weekdays")]
    pub days: Vec<Weekday>,
    /// When it begins, as hours and minutes in UTC, e.g. 02:30.
    #[schemars(length(max = 16))]
    #[x_kube(validation = rules::time_of_day())]
    pub start: String,
    /// How long it lasts, in minutes, up to a whole day.
    #[schemars(with = "i32")]
    #[x_kube(validation = rules::window_minutes())]
    pub minutes: u32,
}

/// How control-plane machines are changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneUpgrade {
    /// InPlace: the machine stays and its components are exchanged, one at a time. Replace: a new machine joins, then an old one leaves.
    #[serde(default)]
    #[schemars(schema_with = "schemas::strategy")]
    pub strategy: Strategy,
    /// InPlaceOnly: whatever would replace a machine is refused before anything changes.
    #[serde(default)]
    #[schemars(schema_with = "schemas::allow")]
    pub allow: Allow,
}

impl ControlPlaneUpgrade {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a pool's machines are changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::surge_or_unavailable())]
pub struct PoolUpgrade {
    /// InPlace: the machine is drained, its components are exchanged, and pods may come back. Replace: a new machine comes, the old one is drained and goes.
    #[serde(default)]
    #[schemars(schema_with = "schemas::strategy")]
    pub strategy: Strategy,
    /// How many machines more than wanted there may be while machines are replaced: a number, or a percentage of the pool (rounded up).
    #[serde(default = "one_machine")]
    #[schemars(schema_with = "schemas::amount")]
    pub max_surge: Amount,
    /// How many machines fewer than wanted may be Ready while the pool is changed: a number, or a percentage of the pool (rounded down).
    #[serde(default = "one_machine")]
    #[schemars(schema_with = "schemas::amount")]
    pub max_unavailable: Amount,
    /// InPlaceOnly: whatever would replace a machine is refused before anything changes.
    #[serde(default)]
    #[schemars(schema_with = "schemas::allow")]
    pub allow: Allow,
}

impl Default for PoolUpgrade {
    fn default() -> Self {
        Self { strategy: Strategy::default(), max_surge: one_machine(), max_unavailable: one_machine(), allow: Allow::default() }
    }
}

impl PoolUpgrade {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn one_machine() -> Amount {
    Amount::Int(1)
}
