//! Where everything of one daemon lies: paths in its state directory, names on the host, addresses in its range. Pure.
//!
//! ```text
//!   host ──<name>-host── [ <name>-core: br0 ] ──r1── [ <name>-r1: core, br0 ] ──i-4── [ <name>-i-4: eth0 ]
//!        .0.1                      .0.2        .0.11                     .1.1                   .1.10
//! ```

use crate::host::HostError;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// A daemon's settings that must not change while it has anything: kept in `<state>/config.json`, so that `remove` needs only the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Layout {
    /// State directory, absolute.
    pub state: PathBuf,
    /// The host's store of artifacts, absolute; machines see it at `/opt/slipway/store`.
    pub store: PathBuf,
    /// Prefix of all names on the host.
    pub name: String,
    /// Addresses to hand out; the first /24 is the core's, each further one a network's.
    pub range: Ipv4Net,
}

/// Networks are numbered from 1; the core's /24 has room for this many routers.
const NETWORKS_MAX: u32 = 240;
/// First address of machines within a network; those before are the router's and the load balancer's.
const FIRST_MACHINE: u8 = 10;

impl Layout {
    /// Checks what a person typed.
    pub fn new(state: &Path, store: &Path, name: &str, range: Ipv4Net) -> Result<Self, HostError> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || name.len() > 6 || !name.chars().all(fine) || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(HostError::Refused(format!(
                "--name {name:?}: it must be a lower-case letter and up to five more letters or digits; links and namespaces are named after it"
            )));
        }
        if range.prefix_len() > 23 || range.prefix_len() < 12 || range.trunc() != range {
            return Err(HostError::Refused(format!(
                "--range {range}: it must be a network of /12 to /23 without host bits, e.g. 198.18.0.0/20; each cluster takes a /24 of it"
            )));
        }
        let absolute = |path: &Path| std::path::absolute(path).map_err(|why| HostError::File { what: "finding", path: path.into(), why });
        Ok(Self { state: absolute(state)?, store: absolute(store)?, name: name.to_owned(), range })
    }

    // === paths ===

    /// Settings.
    pub fn config(&self) -> PathBuf {
        self.state.join("config.json")
    }
    /// Records of a kind: `networks`, `balancers`, `instances`.
    pub fn records(&self, kind: &str) -> PathBuf {
        self.state.join("records").join(kind)
    }
    /// Directory of a machine: `config.json` (the OCI bundle), `rootfs`, `console.log`, `user-data`.
    pub fn machine(&self, id: &str) -> PathBuf {
        self.state.join("machines").join(id)
    }
    /// Disks that wait for being removed.
    pub fn trash(&self) -> PathBuf {
        self.state.join("trash")
    }
    /// runc's own state.
    pub fn runc(&self) -> PathBuf {
        self.state.join("runc")
    }

    // === names ===

    /// Name of a machine's network namespace and container.
    pub fn container(&self, id: &str) -> String {
        format!("{}-{id}", self.name)
    }
    /// The core's network namespace.
    pub fn core(&self) -> String {
        format!("{}-core", self.name)
    }
    /// The host's end of the link to the core.
    pub fn host_link(&self) -> String {
        format!("{}-host", self.name)
    }
    /// The network namespace of a network's router.
    pub fn router(&self, network: u32) -> String {
        format!("{}-r{network}", self.name)
    }
    /// Parent of the machines' cgroups in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.name)
    }

    // === addresses ===

    fn at(&self, network: u32, host: u8) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()) + network * 256 + u32::from(host))
    }
    /// How many networks fit.
    pub fn networks(&self) -> u32 {
        ((1u32 << (24 - self.range.prefix_len().min(24))) - 1).min(NETWORKS_MAX)
    }
    /// The host's address; the daemon listens here.
    pub fn host_address(&self) -> Ipv4Addr {
        self.at(0, 1)
    }
    /// The core's.
    pub fn core_address(&self) -> Ipv4Addr {
        self.at(0, 2)
    }
    /// A router's address in the core.
    pub fn uplink(&self, network: u32) -> Ipv4Addr {
        self.at(0, 10 + u8::try_from(network).unwrap_or(u8::MAX - 10))
    }
    /// A network's range.
    pub fn cidr(&self, network: u32) -> Ipv4Net {
        Ipv4Net::new_assert(self.at(network, 0), 24)
    }
    /// A router's address in its network: everybody's default gateway.
    pub fn gateway(&self, network: u32) -> Ipv4Addr {
        self.at(network, 1)
    }
    /// The load balancer's.
    pub fn balancer(&self, network: u32) -> Ipv4Addr {
        self.at(network, 2)
    }
    /// The next free address for a machine: after the one given last, so that one just freed rests while others may still have it in
    /// their neighbour tables and connections.
    pub fn machine_address(&self, network: u32, last: Option<Ipv4Addr>, taken: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let all = || (FIRST_MACHINE..=254).map(|host| self.at(network, host));
        let after = all().filter(|a| last.is_some_and(|last| *a > last));
        after.chain(all()).find(|a| !taken.contains(a))
    }
    /// The lowest free network number.
    pub fn network_number(&self, taken: &[u32]) -> Option<u32> {
        (1..=self.networks()).find(|n| !taken.contains(n))
    }
    /// A machine's Ethernet address follows from its address: who remembers a predecessor's reaches the successor.
    pub fn mac(address: Ipv4Addr) -> String {
        let [a, b, c, d] = address.octets();
        format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn layout(range: &str) -> Layout {
        Layout::new(Path::new("/s"), Path::new("/t"), "slw", range.parse().unwrap()).unwrap()
    }

    #[test]
    fn addresses_stay_in_the_range_and_apart() {
        let l = layout("198.18.16.0/20");
        assert_eq!(l.networks(), 15);
        assert_eq!(l.host_address().to_string(), "198.18.16.1");
        assert_eq!(l.cidr(15).to_string(), "198.18.31.0/24");
        assert_eq!(l.uplink(15).to_string(), "198.18.16.25");
        assert_eq!(l.balancer(2).to_string(), "198.18.18.2");
        assert_eq!(layout("198.18.0.0/15").networks(), 240);
        assert_eq!(layout("198.18.0.0/15").uplink(240).to_string(), "198.18.0.250");
    }

    #[test]
    fn a_freed_address_rests_until_all_others_were_used() {
        let l = layout("198.18.0.0/20");
        let first = l.machine_address(1, None, &[]).unwrap();
        assert_eq!(first.to_string(), "198.18.1.10");
        assert_eq!(l.machine_address(1, Some(first), &[]).unwrap().to_string(), "198.18.1.11");
        let last = "198.18.1.254".parse().unwrap();
        assert_eq!(l.machine_address(1, Some(last), &[first, last]).unwrap().to_string(), "198.18.1.11");
        let all: Vec<Ipv4Addr> = (10..=254).map(|h| Ipv4Addr::new(198, 18, 1, h)).collect();
        assert_eq!(l.machine_address(1, Some(first), &all), None);
    }

    #[test]
    fn names_that_do_not_fit_links_are_refused() {
        for name in ["", "toolongname", "Caps", "1st", "a-b"] {
            assert!(Layout::new(Path::new("/s"), Path::new("/t"), name, "198.18.0.0/20".parse().unwrap()).is_err(), "{name}");
        }
        for range in ["198.18.0.0/24", "198.18.0.1/20", "0.0.0.0/0"] {
            assert!(Layout::new(Path::new("/s"), Path::new("/t"), "slw", range.parse().unwrap()).is_err(), "{range}");
        }
        // The longest link name is the host's end.
        assert!(Layout::new(Path::new("/s"), Path::new("/t"), "abcdef", "198.18.0.0/20".parse().unwrap()).unwrap().host_link().len() <= 15);
    }
}
