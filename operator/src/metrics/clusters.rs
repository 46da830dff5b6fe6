//! Numbers of each cluster, from what its last pass saw. Labels are the cluster's namespace and name and nothing else, and a cluster that is gone has no series.

use super::Text;
use crate::context::ClusterRef;
use crate::looks::Look;
use slipway_plan::{EtcdFacts, Fact};
use std::sync::Arc;

/// Of one cluster; nothing where it is not known.
type Gauge = fn(&Look) -> Option<f64>;

/// Name, help, value. All are gauges.
const GAUGES: [(&str, &str, Gauge); 15] = [
    ("cluster_seen_timestamp_seconds", "When the operator last looked at the cluster.", |l| Some(seconds(l.at))),
    ("machines", "Machines that are recorded.", |l| l.observed.machines.known().map(|m| count(m.len()))),
    ("machines_outdated", "Machines that do not run, or are not made of, what the spec wants.", |l| {
        l.observed.machines.known().map(|_| count(l.outdated))
    }),
    ("nodes_ready", "Nodes of its machines that are Ready.", |l| {
        l.observed.nodes.known().map(|n| count(n.iter().filter(|n| n.ready && n.machine.is_some()).count()))
    }),
    ("etcd_members", "Members of etcd, learners among them.", |l| etcd(l).map(|e| count(e.members.len()))),
    ("etcd_voters", "Members of etcd that vote.", |l| etcd(l).map(|e| count(e.voters().count()))),
    ("etcd_voters_answering", "Voting members of etcd that answer.", |l| etcd(l).map(|e| count(answering(e)))),
    ("etcd_learners", "Members of etcd that do not vote yet.", |l| etcd(l).map(|e| count(e.members.iter().filter(|m| m.learner).count()))),
    ("etcd_has_leader", "1 where a member of etcd says that it leads.", |l| etcd(l).map(|e| flag(e.leader().is_some()))),
    ("etcd_has_quorum", "1 where more than half of etcd's voters answer; 0, too, where etcd was founded and cannot be asked.", quorum),
    ("etcd_db_size_bytes", "Size of the largest member's database.", |l| {
        let sizes = etcd(l)?.members.iter().filter_map(|m| m.status.known()).map(|s| s.db_bytes);
        sizes.max().map(|bytes| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0)
    }),
    ("etcd_alarms", "Alarms that etcd raises.", |l| etcd(l).map(|e| count(e.alarms.len()))),
    ("upgrade_in_progress", "1 while an upgrade of the control plane is under way.", |l| Some(flag(l.observed.cluster.upgrade.is_some()))),
    ("upgrade_stopped", "1 while it stands still, because a step failed.", |l| {
        Some(flag(l.observed.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some())))
    }),
    ("upgrade_begun_timestamp_seconds", "When it was begun; no series while there is none.", |l| {
        l.observed.cluster.upgrade.as_ref().map(|u| seconds(u.since))
    }),
];

/// Every family, each with one series per cluster.
pub fn tell(text: &mut Text, looks: &[(ClusterRef, Arc<Look>)]) {
    for (name, help, value) in GAUGES {
        let series = looks.iter().filter_map(|(cluster, look)| {
            // Names of namespaces and clusters hold nothing that would have to be escaped.
            let labels = format!("{{namespace=\"{}\",cluster=\"{}\"}}", cluster.namespace, cluster.name);
            Some((labels, value(look)?.to_string()))
        });
        text.family(name, "gauge", help, series);
    }
}

fn etcd(look: &Look) -> Option<&EtcdFacts> {
    look.observed.etcd.known()
}

fn answering(etcd: &EtcdFacts) -> usize {
    etcd.voters().filter(|m| m.status.known().is_some()).count()
}

fn quorum(look: &Look) -> Option<f64> {
    match &look.observed.etcd {
        Fact::Known(etcd) => Some(flag(answering(etcd) > etcd.voters().count() / 2)),
        Fact::Unknown { .. } => look.observed.cluster.bootstrapped.then_some(0.0),
    }
}

fn flag(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn count(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// To the second.
#[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn seconds(at: jiff::Timestamp) -> f64 {
    at.as_second() as f64
}
