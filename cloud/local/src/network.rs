//! Namespaces, links and routes: the core that joins host and networks, a router per network, a plug per machine.
//!
//! Only `ip` is used, in batches that can be run again. Forwarding happens in these namespaces alone: the host forwards nothing for us,
//! and no namespace has a route to anything but the range and its own cluster's pods. Every place where pod addresses of one network
//! could reach another (or the host) filters by reverse path: a source that has no route back through that link is dropped.

use crate::host::{self, HostError};
use crate::layout::Layout;
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

/// Routing protocol number that marks pod routes in a router.
const POD_ROUTE: &str = "201";

/// Where `ip` keeps named network namespaces.
pub const NAMESPACES: &str = "/var/run/netns";

/// Whether a network namespace of that name exists.
pub fn exists(namespace: &str) -> bool {
    Path::new(NAMESPACES).join(namespace).exists()
}

async fn sysctl(namespace: &str, settings: &[&str]) -> Result<(), HostError> {
    let mut args = vec!["netns", "exec", namespace, "sysctl", "-qw"];
    args.extend(settings);
    host::run("ip", &args, "").await.map(drop)
}

/// Refuses a range that something else on this host uses.
pub fn check_range(layout: &Layout) -> Result<(), HostError> {
    if let Some(conflict) = range_conflict(layout.range, &layout.host_link())? {
        return Err(HostError::Refused(format!(
            "the range {} is in use on this host: {conflict}. Choose a free one with --range, e.g. another /20 of 198.18.0.0/15",
            layout.range
        )));
    }
    Ok(())
}

/// What of the host's routes lies in a range, save what goes over `own_link`.
/// Blocks for the milliseconds that `ip` takes.
pub fn range_conflict(range: Ipv4Net, own_link: &str) -> Result<Option<String>, HostError> {
    let ip = std::process::Command::new("ip").args(["-4", "-o", "route", "show", "table", "all"]).output();
    let routes = ip.map_err(|why| HostError::NoProgram { program: "ip".into(), why })?.stdout;
    Ok(conflict_in(&String::from_utf8_lossy(&routes), range, own_link))
}

fn conflict_in(routes: &str, range: Ipv4Net, own_link: &str) -> Option<String> {
    routes.lines().map(str::trim).find_map(|line| {
        let mut words = line.split_whitespace().peekable();
        while matches!(words.peek(), Some(&("local" | "broadcast" | "unicast" | "unreachable" | "blackhole" | "prohibit"))) {
            words.next();
        }
        let text = words.next()?;
        let net: Ipv4Net = text.parse().ok().or_else(|| text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from))?;
        let overlaps = net.prefix_len() > 0 && (net.contains(&range) || range.contains(&net));
        let own = line.split_whitespace().skip_while(|w| *w != "dev").nth(1) == Some(own_link);
        (overlaps && !own).then(|| format!("route `{line}`"))
    })
}

/// Makes the core, or completes it.
pub async fn ensure_core(layout: &Layout) -> Result<(), HostError> {
    let (core, link) = (layout.core(), layout.host_link());
    if !exists(&core) {
        host::ip(None, &[format!("netns add {core}")]).await?;
    }
    sysctl(
        &core,
        &[
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=1",
            "net.ipv4.conf.default.rp_filter=1",
            "net.ipv4.conf.all.send_redirects=0",
        ],
    )
    .await?;
    host::ip(
        Some(&core),
        &[
            "link set lo up".into(),
            // A bridge without an address of its own takes the lowest of its ports': each port that comes or goes would change it, and everybody
            // who knows it would talk to nobody for half a minute.
            format!("link add br0 address {} type bridge mcast_snooping 0", Layout::mac(layout.core_address())),
            format!("addr replace {}/24 dev br0", layout.core_address()),
            "link set br0 up".into(),
        ],
    )
    .await?;
    host::ip(
        None,
        &[
            format!("link add {link} type veth peer name host netns {core}"),
            format!("addr replace {}/24 dev {link}", layout.host_address()),
            format!("link set {link} up"),
            format!("route replace {} via {} dev {link}", layout.range, layout.core_address()),
        ],
    )
    .await?;
    host::ip(Some(&core), &["link set host master br0 up".into()]).await?;
    // Not all hosts have it on; a packet with a pod's source address must end here.
    let filter = format!("/proc/sys/net/ipv4/conf/{link}/rp_filter");
    host::file("writing", Path::new(&filter), std::fs::write(&filter, "1"))
}

/// Makes a network's router, or completes it.
pub async fn ensure_router(layout: &Layout, network: u32) -> Result<(), HostError> {
    let (core, router) = (layout.core(), layout.router(network));
    if !exists(&router) {
        host::ip(None, &[format!("netns add {router}")]).await?;
    }
    // Pods' packets come back out of the link they came in by: a redirect would teach machines routes of their own.
    sysctl(
        &router,
        &[
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
            "net.ipv4.conf.all.rp_filter=0",
        ],
    )
    .await?;
    // The same link address in every life: the core remembers its neighbours for half a minute.
    let mac = Layout::mac(layout.uplink(network));
    host::ip(
        Some(&core),
        &[
            format!("link add r{network} type veth peer name core address {mac} netns {router}"),
            format!("link set r{network} master br0 up"),
        ],
    )
    .await?;
    host::ip(
        Some(&router),
        &[
            "link set lo up".into(),
            format!("addr replace {}/24 dev core", layout.uplink(network)),
            "link set core up".into(),
            format!("link add br0 address {} type bridge mcast_snooping 0", Layout::mac(layout.gateway(network))),
            format!("addr replace {}/24 dev br0", layout.gateway(network)),
            "link set br0 up".into(),
            format!("route replace {} via {}", layout.range, layout.core_address()),
        ],
    )
    .await?;
    host::ip(Some(&core), &[format!("route replace {} via {}", layout.cidr(network), layout.uplink(network))]).await
}

/// Removes a network's router and its route in the core.
pub async fn remove_router(layout: &Layout, network: u32) -> Result<(), HostError> {
    let core = layout.core();
    if exists(&core) {
        // Deleting the link takes its route along, and at once, where deleting the namespace alone would do so some time later.
        quietly(host::ip(Some(&core), &[format!("link del r{network}")]).await);
    }
    remove_namespace(&layout.router(network)).await
}

/// Removes a network namespace. What is gone is removed.
pub async fn remove_namespace(namespace: &str) -> Result<(), HostError> {
    if exists(namespace) { host::run("ip", &["netns", "del", namespace], "").await.map(drop) } else { Ok(()) }
}

/// Gives a machine a fresh network namespace with one link into its network. Whatever an earlier life left is removed.
pub async fn plug(layout: &Layout, network: u32, id: &str, address: Ipv4Addr) -> Result<(), HostError> {
    unplug(layout, network, id).await?;
    let (router, namespace) = (layout.router(network), layout.container(id));
    host::ip(None, &[format!("netns add {namespace}")]).await?;
    let mac = Layout::mac(address);
    host::ip(
        Some(&router),
        &[
            format!("link add {id} type veth peer name eth0 address {mac} netns {namespace}"),
            format!("link set {id} master br0 up"),
            // Known from the start: whoever dials a machine that is still being made would otherwise wait for seconds of unanswered ARP.
            format!("neigh replace {address} lladdr {mac} dev br0 nud permanent"),
        ],
    )
    .await?;
    host::ip(
        Some(&namespace),
        &[
            "link set lo up".into(),
            format!("addr replace {address}/24 dev eth0"),
            "link set eth0 up".into(),
            format!("route replace default via {}", layout.gateway(network)),
        ],
    )
    .await
}

/// Takes a machine off the network: the link first, since a namespace's links vanish only some time after it.
pub async fn unplug(layout: &Layout, network: u32, id: &str) -> Result<(), HostError> {
    if !exists(&layout.container(id)) {
        return Ok(());
    }
    let router = layout.router(network);
    if exists(&router) {
        quietly(host::ip(Some(&router), &[format!("link del {id}")]).await);
    }
    remove_namespace(&layout.container(id)).await
}

/// Makes a router's pod routes what they should be: destination → machine.
pub async fn set_routes(layout: &Layout, network: u32, wanted: &BTreeMap<Ipv4Net, Ipv4Addr>) -> Result<(), HostError> {
    let router = layout.router(network);
    let found = host::run("ip", &["-n", &router, "-4", "-o", "route", "show", "proto", POD_ROUTE], "").await?;
    let changes = route_changes(&found, wanted);
    if changes.is_empty() { Ok(()) } else { host::ip(Some(&router), &changes).await }
}

fn route_changes(found: &str, wanted: &BTreeMap<Ipv4Net, Ipv4Addr>) -> Vec<String> {
    let mut have = BTreeMap::new();
    for line in found.lines() {
        let mut words = line.split_whitespace();
        let destination = words.next().and_then(|w| w.parse().ok().or_else(|| w.parse::<Ipv4Addr>().ok().map(Ipv4Net::from)));
        let via = words.skip_while(|w| *w != "via").nth(1).and_then(|w| w.parse::<Ipv4Addr>().ok());
        if let (Some(destination), Some(via)) = (destination, via) {
            have.insert(destination, via);
        }
    }
    let stale = have.keys().filter(|d| !wanted.contains_key(d)).map(|d| format!("route del {d} proto {POD_ROUTE}"));
    let new =
        wanted.iter().filter(|(d, via)| have.get(d) != Some(via)).map(|(d, via)| format!("route replace {d} via {via} proto {POD_ROUTE}"));
    stale.chain(new).collect()
}

/// A removal of what may be gone by itself: the check that follows it is what counts.
fn quietly(result: Result<(), HostError>) {
    if let Err(e) = result {
        tracing::debug!("{e}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_range_in_use_is_told_by_the_route_that_uses_it() {
        let routes = "default via 192.0.2.1 dev eth0 \nlocal 192.0.2.2 dev eth0 table local\n198.18.0.0/20 via 198.18.0.2 dev slw-host\nbroadcast 198.18.0.255 dev slw-host table local\n10.0.0.0/8 dev tun0\n";
        assert_eq!(conflict_in(routes, "198.18.0.0/20".parse().unwrap(), "slw-host"), None);
        assert!(conflict_in(routes, "198.18.0.0/20".parse().unwrap(), "abc-host").unwrap().contains("slw-host"));
        assert!(conflict_in(routes, "10.1.0.0/20".parse().unwrap(), "slw-host").unwrap().contains("tun0"));
        assert!(conflict_in(routes, "192.0.0.0/12".parse().unwrap(), "slw-host").is_some());
        assert_eq!(conflict_in(routes, "198.18.16.0/20".parse().unwrap(), "slw-host"), None);
    }

    #[test]
    fn only_differing_routes_are_touched() {
        let found =
            "10.244.0.0/24 via 198.18.1.10 dev br0 \n10.244.1.0/24 via 198.18.1.11 dev br0 \n10.244.2.0/24 via 198.18.1.12 dev br0 \n";
        let to = |d: &str, v: &str| (d.parse().unwrap(), v.parse().unwrap());
        let wanted =
            BTreeMap::from([to("10.244.0.0/24", "198.18.1.10"), to("10.244.1.0/24", "198.18.1.20"), to("10.244.3.0/24", "198.18.1.13")]);
        assert_eq!(
            route_changes(found, &wanted),
            [
                "route del 10.244.2.0/24 proto 201",
                "route replace 10.244.1.0/24 via 198.18.1.20 proto 201",
                "route replace 10.244.3.0/24 via 198.18.1.13 proto 201"
            ]
        );
    }
}
