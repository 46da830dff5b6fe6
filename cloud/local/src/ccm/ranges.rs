//! Which Node gets which share of the cluster's pod range. Pure, save for its memory of what it has promised.
//!
//! This is what kube-controller-manager's node-ipam controller does elsewhere. Here the cloud-controller-manager does it, which is up a second or
//! two earlier: a new Node has its pod network, and is Ready, before kube-controller-manager has started.

use super::decide::Facts;
use ipnet::Ipv4Net;
use std::collections::{BTreeMap, BTreeSet};

/// Hands out shares, one per Node, for as long as this process leads.
#[derive(Debug)]
pub struct Ranges {
    cluster: Ipv4Net,
    /// Prefix length of a share.
    mask: u8,
    /// By the Node's UID. A patch whose answer was lost may have been carried out: what was promised once stays promised while the Node is there.
    promised: BTreeMap<String, Ipv4Net>,
}

impl Ranges {
    /// Shares of `cluster` with prefix length `mask`.
    #[must_use]
    pub fn new(cluster: Ipv4Net, mask: u8) -> Self {
        Self { cluster, mask, promised: BTreeMap::new() }
    }

    /// Shares for the Nodes of `wanting`, by name. `nodes` are all Nodes, as they are: what one of them has is given to no other. A Node that is
    /// left out finds no share free.
    pub fn promise<'a>(
        &mut self,
        nodes: &BTreeMap<String, Facts>,
        wanting: impl IntoIterator<Item = &'a Facts>,
    ) -> BTreeMap<String, Ipv4Net> {
        self.promised.retain(|uid, _| nodes.values().any(|n| n.uid == *uid && n.pod_cidr.is_none()));
        let mut given = BTreeMap::new();
        for node in wanting.into_iter().filter(|n| n.pod_cidr.is_none()) {
            let share = match self.promised.get(&node.uid) {
                Some(share) => Some(*share),
                None => self.free(nodes),
            };
            if let Some(share) = share {
                self.promised.insert(node.uid.clone(), share);
                given.insert(node.name.clone(), share);
            }
        }
        given
    }

    /// The next share after the highest in use, so that one that was given back rests before it is used again.
    fn free(&self, nodes: &BTreeMap<String, Facts>) -> Option<Ipv4Net> {
        let used: BTreeSet<Ipv4Net> = nodes.values().filter_map(|n| n.pod_cidr).chain(self.promised.values().copied()).collect();
        let highest = used.iter().rfind(|share| self.cluster.contains(*share));
        let after = |share: &Ipv4Net| highest.is_none_or(|highest| share > highest);
        let shares = || self.cluster.subnets(self.mask).into_iter().flatten();
        // Not by equality: a Node may have been given a range of another size.
        let is_free = |share: &Ipv4Net| !used.iter().any(|u| u.contains(share) || share.contains(u));
        shares().filter(after).chain(shares()).find(is_free)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use serde_json::json;

    fn node(name: &str, uid: &str, range: Option<&str>) -> Facts {
        let node = json!({"metadata": {"name": name, "uid": uid, "resourceVersion": "1"}, "spec": {"podCIDR": range}});
        Facts::of(&serde_json::from_value(node).unwrap()).unwrap()
    }

    fn all(nodes: &[Facts]) -> BTreeMap<String, Facts> {
        nodes.iter().map(|n| (n.name.clone(), n.clone())).collect()
    }

    fn ranges(cluster: &str) -> Ranges {
        Ranges::new(cluster.parse().unwrap(), 24)
    }

    fn promise(ranges: &mut Ranges, nodes: &[Facts]) -> Vec<(String, String)> {
        let nodes = all(nodes);
        ranges.promise(&nodes, nodes.values()).into_iter().map(|(name, share)| (name, share.to_string())).collect()
    }

    fn is(name: &str, share: &str) -> (String, String) {
        (name.to_owned(), share.to_owned())
    }

    #[test]
    fn every_node_gets_a_share_of_its_own_and_keeps_it() {
        let mut ranges = ranges("10.244.0.0/16");
        let nodes = [node("a", "1", None), node("b", "2", None), node("c", "3", Some("10.244.7.0/24"))];
        assert_eq!(promise(&mut ranges, &nodes), [is("a", "10.244.8.0/24"), is("b", "10.244.9.0/24")]);
    }

    #[test]
    fn what_was_promised_is_given_to_no_other_while_the_node_is_there() {
        let mut ranges = ranges("10.244.0.0/16");
        assert_eq!(promise(&mut ranges, &[node("b", "2", None)]), [is("b", "10.244.0.0/24")]);
        // b's patch may have been carried out: a, which comes first by name, must not get the same.
        let nodes = [node("a", "1", None), node("b", "2", None)];
        assert_eq!(promise(&mut ranges, &nodes), [is("a", "10.244.1.0/24"), is("b", "10.244.0.0/24")]);
        // A Node that registers anew is another one.
        let nodes = [node("a", "1", Some("10.244.1.0/24")), node("b", "9", None)];
        assert_eq!(promise(&mut ranges, &nodes), [is("b", "10.244.2.0/24")]);
    }

    #[test]
    fn a_full_range_begins_anew_with_what_was_given_back_and_ends_when_all_is_taken() {
        let mut ranges = ranges("10.244.0.0/23");
        let nodes = [node("a", "1", None), node("b", "2", Some("10.244.1.0/24"))];
        assert_eq!(promise(&mut ranges, &nodes), [is("a", "10.244.0.0/24")]);
        let nodes = [node("a", "1", Some("10.244.0.0/24")), node("b", "2", Some("10.244.1.0/24")), node("c", "3", None)];
        assert_eq!(promise(&mut ranges, &nodes), []);
    }

    #[test]
    fn a_range_of_another_size_is_not_given_in_parts() {
        let mut ranges = ranges("10.244.0.0/22");
        let nodes = [node("a", "1", Some("10.244.2.0/23")), node("b", "2", Some("10.244.0.64/26")), node("c", "3", None)];
        assert_eq!(promise(&mut ranges, &nodes), [is("c", "10.244.1.0/24")]);
    }
}
