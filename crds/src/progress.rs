//! What is being done and what is being waited for, as Cluster and Machine tell it in their status.

use k8s_openapi::jiff::Timestamp;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A step that is being taken now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What is being done, e.g. "CreateInstance demo-workers-0".
    pub what: String,
    /// On which machine, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Option<Timestamp>,
}

/// Something that is not done yet and that nothing but waiting helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// What for, e.g. "the machine to boot".
    pub what: String,
    /// Why, in one word that docs/troubleshooting.md explains.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// On which machine, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub since: Option<Timestamp>,
    /// What was last heard of it, if it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it is tried again. Without: as soon as something is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schemas::time")]
    pub next_try: Option<Timestamp>,
}

/// Why something was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// When it was begun.
    #[schemars(schema_with = "crate::schemas::time")]
    pub at: Timestamp,
    /// What was done.
    pub what: String,
    /// On which machine, if on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The facts and the rule it followed from.
    pub because: String,
}
