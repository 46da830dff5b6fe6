//! What the operator applies to a new cluster, in order.

use crate::Image;
use serde_json::Value;
use slipway_model::Network;

/// What the addons depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonSettings {
    /// Address ranges; the DNS Service has a fixed place in them.
    pub network: Network,
    /// CoreDNS's image, imported on every node.
    pub coredns: Image,
}

/// Objects in the order in which they are applied (server-side apply, field manager `slipway`), and their identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Addons {
    /// Complete objects with apiVersion and kind.
    pub objects: Vec<Value>,
    /// sha256 over all of them, hex: equal digests need no new apply.
    pub digest: String,
}

/// Renders them.
#[must_use]
pub fn render(_settings: &AddonSettings) -> Addons {
    Addons { objects: vec![], digest: String::new() }
}
