//! What goes over the wire between [`crate::LocalClient`] and the daemon, beside the types of `slipway-cloud-api`.
//!
//! Every answer that is not 2xx has a [`slipway_cloud_api::CloudError`] as its body. Unknown fields are refused.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use slipway_cloud_api::{ClusterKey, Route};
use std::collections::BTreeMap;

/// Header of an inventory's answer: the revision that it shows. [`Changes`] says when there is a newer one.
pub const REVISION_HEADER: &str = "slipway-revision";

/// Where the daemon listens, when it is not told otherwise: on the host's end of the core link.
pub const DEFAULT_PORT: u16 = 7450;

/// What the daemon says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Prefix of all that it makes on the host.
    pub name: String,
    /// Addresses that it hands out.
    pub range: Ipv4Net,
    /// `https://IP:PORT`.
    pub endpoint: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Networks, load balancers and instances that have a record.
    pub networks: usize,
    /// Load balancers.
    pub load_balancers: usize,
    /// Instances.
    pub instances: usize,
}

/// The whole list of targets of a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Targets {
    /// Instance ids.
    pub targets: Vec<String>,
}

/// The whole list of routes of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Routes {
    /// Routes, in any order.
    pub routes: Vec<Route>,
}

/// Answer of the long poll: something of the cluster's changed after the revision asked for, or the time was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changes {
    /// Newest revision.
    pub revision: u64,
}

/// Clusters that have anything here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clusters {
    /// Sorted by UID.
    pub clusters: Vec<ClusterKey>,
}

/// Text of a console or journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Text {
    /// The last lines.
    pub text: String,
}

/// Asks for a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRequest {
    /// `admin`, `operator` or `ccm:<cluster uid>`.
    pub role: String,
}

/// A client certificate and its key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// PEM.
    pub cert: String,
    /// PEM; secret.
    pub key: String,
    /// PEM of the daemon's CA.
    pub ca: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Faults to be injected, by call name; the whole set is replaced. Call names are those of the trait and of the extras (`create_instance`,
/// `set_targets`, `inventory`, `set_routes`, …); `*` stands for each that has no entry of its own. `status`, `faults` and `set_faults` never fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// By call name.
    pub calls: BTreeMap<String, CallFault>,
    /// This many of the next instances are made and never get up: their user data does not run.
    pub never_boot: u32,
    /// Instances made for machines of these names never get up, either.
    pub never_boot_machines: Vec<String>,
    /// Seed of the dice.
    pub seed: u64,
}

/// What happens to a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CallFault {
    /// Share of calls that fail without effect, 0 to 1.
    pub error_rate: f64,
    /// Share of calls that have their effect and whose reply is lost (the connection is cut), 0 to 1.
    pub lost_reply_rate: f64,
    /// The next N calls fail without effect.
    pub fail_next: u32,
    /// The replies of the next N calls are lost.
    pub lose_next: u32,
    /// Every call takes this much longer, in milliseconds.
    pub delay_ms: u64,
}
