#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;

pub(crate) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap()
}

pub(crate) fn example() -> ClusterView {
    let unit = |name: &str, healthy, message: &str| UnitView {
        name: name.into(),
        state: "active".into(),
        healthy,
        message: message.into(),
        restarts: 0,
        since: Some(at(2_000)),
    };
    ClusterView {
        namespace: "default".into(),
        name: "demo".into(),
        version: "v1.36.4".into(),
        endpoint: Some("https://198.18.1.2:6443".into()),
        created: Some(at(0)),
        deleting: false,
        current: true,
        decisions: vec![],
        conditions: vec![
            ConditionView {
                kind: "Ready".into(),
                status: "False".into(),
                reason: "WorkersNotReady".into(),
                message: "waiting for 1 of 2 machines".into(),
                since: Some(at(0)),
            },
            ConditionView {
                kind: "EtcdHealthy".into(),
                status: "True".into(),
                reason: "Healthy".into(),
                message: String::new(),
                since: Some(at(3_000)),
            },
        ],
        pools: vec![
            PoolView {
                name: "cp".into(),
                wanted: Some(1),
                machines: vec![MachineView {
                    name: "demo-cp-0".into(),
                    address: Some("198.18.1.10".into()),
                    ready: true,
                    created: Some(at(200)),
                    ready_since: Some(at(5_600)),
                    units: vec![unit("etcd", Some(true), ""), unit("kube-apiserver", Some(true), "")],
                    stages: vec![
                        StageView { name: "created".into(), at: at(200) },
                        StageView { name: "running".into(), at: at(900) },
                        StageView { name: "claimed".into(), at: at(1_400) },
                        StageView { name: "ready".into(), at: at(5_600) },
                    ],
                    ..MachineView::default()
                }],
            },
            PoolView {
                name: "workers".into(),
                wanted: Some(1),
                machines: vec![MachineView {
                    name: "demo-workers-0".into(),
                    address: Some("198.18.1.20".into()),
                    created: Some(at(300)),
                    wait: Some(WaitView { what: "waiting for kubelet: 198.18.1.2:6443 does not answer".into(), since: Some(at(4_000)) }),
                    units: vec![unit("containerd", Some(true), ""), unit("kubelet", Some(false), "connection refused")],
                    stages: vec![StageView { name: "created".into(), at: at(300) }, StageView { name: "running".into(), at: at(1_100) }],
                    ..MachineView::default()
                }],
            },
        ],
    }
}

#[test]
fn progress_shows_what_each_machine_waits_for() {
    insta::assert_snapshot!(tree(&example(), at(6_100), Detail::Machines).join("\n"));
}

#[test]
fn describe_goes_down_to_the_units() {
    insta::assert_snapshot!(tree(&example(), at(6_100), Detail::Units).join("\n"));
}

#[test]
fn a_log_names_changes_only() {
    let before = example();
    assert_eq!(changes(Some(&before), &before), Vec::<String>::new());
    let mut after = before.clone();
    after.pools[1].machines[0].ready = true;
    assert_eq!(changes(Some(&before), &after), ["demo-workers-0: ready"]);
    after.pools[1].machines.clear();
    assert_eq!(changes(Some(&before), &after), ["demo-workers-0: gone"]);
    assert_eq!(changes(None, &before).len(), 2, "the cluster, and the machine that waits");
}

#[test]
fn what_is_said_of_a_machine_stands_at_the_machine() {
    let mut view = example();
    view.conditions[0].message = "0 of 1 workers Ready: demo-workers-0: waiting for kubelet; demo-workers-0: and more".into();
    assert_eq!(view.summary(), "0 of 1 workers Ready");
    view.conditions[0].message = "the cluster's Nodes cannot be seen: connection refused".into();
    assert_eq!(view.summary(), view.headline());
}

#[test]
fn ready_of_an_old_spec_is_not_ready() {
    let mut view = example();
    view.conditions[0].status = "True".into();
    assert!(view.is_ready());
    view.current = false;
    assert!(!view.is_ready());
}

#[test]
fn a_step_is_news_once() {
    let decision =
        slipway_crds::Decision { at: at(9_000), what: "exchange etcd on demo-cp-0".into(), machine: None, because: "its turn".into() };
    let before = example();
    let after = ClusterView { decisions: vec![decision], ..example() };
    assert_eq!(changes(Some(&before), &after), ["demo: exchange etcd on demo-cp-0"]);
    assert!(changes(Some(&after), &after).is_empty());
}

#[test]
fn describe_tells_versions_and_etcd_roles() {
    let mut view = example();
    view.pools[0].machines[0].version = "v1.36.4 (API server v1.37.2)".into();
    view.pools[0].machines[0].etcd = Some("leader".into());
    let text = tree(&view, at(10_000), Detail::Units).join("\n");
    assert!(text.contains("198.18.1.10  v1.36.4 (API server v1.37.2)  etcd leader  ready for"), "{text}");
}
