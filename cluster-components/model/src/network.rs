//! A cluster's address ranges.

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// How kube-proxy programs Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// nftables, the default.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
    /// IPVS, deprecated upstream since 1.35.
    Ipvs,
}

impl ProxyMode {
    /// As KubeProxyConfiguration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// Ranges that passed [`Network::new`]: no host bits, disjoint, and room for every node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Network {
    /// Each Node gets a /24 of it (or a smaller share where it is smaller than a /20, see [`Network::node_mask`]).
    pub pod_cidr: Ipv4Net,
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// How Services are programmed.
    pub proxy_mode: ProxyMode,
}

/// Why two ranges are no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// An address with bits beyond its prefix.
    #[error("{field} {cidr} has host bits set: write {trunc}")]
    HostBits {
        /// The field of the Cluster.
        field: &'static str,
        /// As given.
        cidr: Ipv4Net,
        /// What was probably meant.
        trunc: Ipv4Net,
    },
    /// The two ranges share addresses.
    #[error("spec.network.podCIDR {pods} and spec.network.serviceCIDR {services} overlap: choose two disjoint ranges")]
    Overlap {
        /// Pods' range.
        pods: Ipv4Net,
        /// Services' range.
        services: Ipv4Net,
    },
    /// Not enough node ranges.
    #[error("spec.network.podCIDR {pods} has room for {room} nodes of /{mask}, and {nodes} are asked for: choose a larger range")]
    TooSmall {
        /// Pods' range.
        pods: Ipv4Net,
        /// How many nodes it can hold.
        room: u64,
        /// Prefix length of one node's share.
        mask: u8,
        /// How many nodes are wanted.
        nodes: u64,
    },
    /// Fewer addresses than a cluster's own Services need.
    #[error("spec.network.serviceCIDR {services} is too small: at least a /28 is needed")]
    ServicesTooSmall {
        /// Services' range.
        services: Ipv4Net,
    },
}

impl Network {
    /// Checks the ranges for `nodes` nodes (largest number that is asked for, surge included).
    pub fn new(pod_cidr: Ipv4Net, service_cidr: Ipv4Net, proxy_mode: ProxyMode, nodes: u64) -> Result<Self, NetworkError> {
        for (field, cidr) in [("spec.network.podCIDR", pod_cidr), ("spec.network.serviceCIDR", service_cidr)] {
            if cidr.trunc() != cidr {
                return Err(NetworkError::HostBits { field, cidr, trunc: cidr.trunc() });
            }
        }
        if pod_cidr.contains(&service_cidr) || service_cidr.contains(&pod_cidr) {
            return Err(NetworkError::Overlap { pods: pod_cidr, services: service_cidr });
        }
        if service_cidr.prefix_len() > 28 {
            return Err(NetworkError::ServicesTooSmall { services: service_cidr });
        }
        let network = Self { pod_cidr, service_cidr, proxy_mode };
        let mask = network.node_mask();
        let room = 1u64 << mask.saturating_sub(pod_cidr.prefix_len()).min(32);
        if pod_cidr.prefix_len() > mask || room < nodes {
            return Err(NetworkError::TooSmall { pods: pod_cidr, room: if pod_cidr.prefix_len() > mask { 0 } else { room }, mask, nodes });
        }
        Ok(network)
    }

    /// Prefix length of one node's share of the pod range, the cloud-controller-manager's `--node-cidr-mask-size`: a /24.
    #[must_use]
    pub fn node_mask(&self) -> u8 {
        24
    }

    /// `kubernetes.default`'s address: the first of the Service range.
    #[must_use]
    pub fn api_service_ip(&self) -> Ipv4Addr {
        self.nth_service(1)
    }

    /// The cluster DNS Service's address: the tenth.
    #[must_use]
    pub fn dns_service_ip(&self) -> Ipv4Addr {
        self.nth_service(10)
    }

    fn nth_service(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()).saturating_add(n))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn network(pods: &str, services: &str, nodes: u64) -> Result<Network, NetworkError> {
        Network::new(pods.parse().unwrap(), services.parse().unwrap(), ProxyMode::Nftables, nodes)
    }

    #[test]
    fn ranges_that_cannot_work_are_refused() {
        assert!(network("10.244.0.0/16", "10.96.0.0/16", 5).is_ok());
        assert!(matches!(network("10.244.0.1/16", "10.96.0.0/16", 5), Err(NetworkError::HostBits { .. })));
        assert!(matches!(network("10.96.0.0/12", "10.96.0.0/16", 5), Err(NetworkError::Overlap { .. })));
        assert!(matches!(network("10.244.0.0/23", "10.96.0.0/16", 5), Err(NetworkError::TooSmall { room: 2, .. })));
        assert!(matches!(network("10.244.0.0/28", "10.96.0.0/16", 1), Err(NetworkError::TooSmall { room: 0, .. })));
        assert!(matches!(network("10.244.0.0/16", "10.96.0.0/30", 1), Err(NetworkError::ServicesTooSmall { .. })));
    }

    #[test]
    fn well_known_services_have_their_addresses() {
        let n = network("10.244.0.0/16", "10.96.0.0/16", 5).unwrap();
        assert_eq!(n.api_service_ip().to_string(), "10.96.0.1");
        assert_eq!(n.dns_service_ip().to_string(), "10.96.0.10");
    }
}
