//! What is shown of clusters, and that the documentation lists all of it.
#![allow(clippy::unwrap_used)]

use super::Metrics;
use crate::context::ClusterRef;
use crate::looks::{Look, Looks};
use jiff::Timestamp;
use serde_json::json;
use slipway_crds::Cluster;
use slipway_plan::{EtcdFacts, Fact, MemberFacts, MemberId, MemberStatus, Observed, UpgradeRecord};
use std::collections::BTreeMap;
use std::sync::Arc;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn look() -> Look {
    let spec = json!({"kubernetesVersion": "v1.36.4", "provider": {"local": {}}, "controlPlane": {"replicas": 3}});
    let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "demo"}, "spec": spec});
    let spec = crate::records::spec(&serde_json::from_value::<Cluster>(object).unwrap()).unwrap();
    let mut observed = Observed::nothing("uid", at(0));
    observed.cluster.bootstrapped = true;
    Look { at: at(100), generation: Some(1), spec: Arc::new(spec), observed, outdated: 2 }
}

fn member(id: u64, learner: bool, status: Option<(bool, u64)>) -> MemberFacts {
    let version = "v3.6.14".parse().unwrap();
    let status = status.map(|(leader, db_bytes)| MemberStatus { version, leader, in_sync: true, healthy_since: at(0), db_bytes });
    MemberFacts {
        id: MemberId(id),
        name: format!("demo-cp-{id}"),
        peer: [10, 0, 0, u8::try_from(id).unwrap()].into(),
        learner,
        status: status.map_or_else(|| Fact::unknown("silent", at(0)), Fact::Known),
    }
}

fn shown(look: Look) -> BTreeMap<String, String> {
    let looks = Looks::default();
    looks.keep(&ClusterRef::new("team", "demo"), look);
    let text = Metrics::default().text(&looks);
    let series = text.lines().filter_map(|l| l.strip_prefix("slipway_")?.split_once("{namespace=\"team\",cluster=\"demo\"} "));
    series.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn etcd_is_told_as_it_was_seen() {
    let mut look = look();
    let members = vec![
        member(1, false, Some((true, 8192))),
        member(2, false, Some((false, 4096))),
        member(3, false, None),
        member(4, true, Some((false, 0))),
    ];
    look.observed.etcd = Fact::Known(EtcdFacts { members, alarms: vec![(MemberId(1), "NOSPACE".into())] });
    let shown = shown(look);
    for (name, value) in [
        ("etcd_members", "4"),
        ("etcd_voters", "3"),
        ("etcd_voters_answering", "2"),
        ("etcd_learners", "1"),
        ("etcd_has_leader", "1"),
        ("etcd_has_quorum", "1"),
        ("etcd_db_size_bytes", "8192"),
        ("etcd_alarms", "1"),
        ("machines_outdated", "2"),
        ("cluster_seen_timestamp_seconds", "100"),
    ] {
        assert_eq!(shown.get(name).map(String::as_str), Some(value), "{name}: {shown:?}");
    }
}

#[test]
fn an_etcd_that_cannot_be_asked_has_no_quorum_and_nothing_else_is_made_up() {
    let mut look = look();
    look.observed.etcd = Fact::unknown("no quorum answers", at(0));
    let shown = shown(look);
    assert_eq!(shown.get("etcd_has_quorum").map(String::as_str), Some("0"));
    assert!(!shown.contains_key("etcd_members") && !shown.contains_key("etcd_alarms"), "{shown:?}");
}

#[test]
fn an_upgrade_has_a_beginning_while_it_is_under_way() {
    let mut look = look();
    let mut value = |name: &str, upgrade: Option<UpgradeRecord>| {
        look.observed.cluster.upgrade = upgrade;
        shown(look.clone()).get(name).cloned()
    };
    let versions = crate::artifacts::target("v1.36.4".parse().unwrap(), None, None).unwrap();
    let upgrade = UpgradeRecord { from: versions, to: versions, snapshot: String::new(), since: at(1234), stopped: None };
    assert_eq!(value("upgrade_in_progress", None).as_deref(), Some("0"));
    assert_eq!(value("upgrade_begun_timestamp_seconds", None), None);
    assert_eq!(value("upgrade_in_progress", Some(upgrade.clone())).as_deref(), Some("1"));
    assert_eq!(value("upgrade_stopped", Some(upgrade.clone())).as_deref(), Some("0"));
    assert_eq!(value("upgrade_begun_timestamp_seconds", Some(upgrade)).as_deref(), Some("1234"));
}

#[test]
fn the_documentation_lists_every_metric_as_the_code_has_it() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let documented: Vec<&str> = page.lines().filter(|l| l.starts_with("| `slipway_")).collect();
    let text = Metrics::default().text(&Looks::default());
    let mut help = BTreeMap::new();
    let mut wanted = vec![];
    for line in text.lines() {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            help.insert(name, words);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            wanted.push(format!("| `{name}` | {kind} | {} |", help.get(name).unwrap()));
        }
    }
    assert_eq!(documented, wanted, "docs/metrics.md is to have these rows:\n{}", wanted.join("\n"));
}
