//! `slipway get`

use crate::args::{Format, Get, Global, Kind};
use crate::connect::{Management, asked};
use crate::observe::Observer;
use crate::outcome::{Outcome, refused};
use crate::output::{age, print, table};
use crate::view::{ClusterView, MachineView, PoolView};
use anyhow::Result;
use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, ResourceExt};
use serde_json::json;
use slipway_crds::EtcdSnapshot;
use std::time::Duration;

/// Runs the command.
pub async fn run(global: &Global, args: &Get) -> Result<Outcome> {
    let management = Management::connect(global).await?;
    let namespace = (!args.all_namespaces).then(|| management.namespace.clone());
    if global.output != Format::Text {
        return objects(global, args, &management, namespace.as_deref()).await;
    }
    let observer = Observer::new(&management.client, namespace.as_deref()).await?;
    let views: Vec<ClusterView> = observer.views();
    let wanted = |name: &str| args.name.as_deref().is_none_or(|n| n == name);
    let of_cluster = |c: &&ClusterView| args.cluster.as_deref().is_none_or(|n| n == c.name);
    let now = Timestamp::now();
    let since = |t: Option<Timestamp>| t.map(|t| age(now.as_second() - t.as_second())).unwrap_or_default();
    let (text, found) = match args.kind {
        Kind::Clusters => {
            let rows: Vec<_> =
                views.iter().filter(of_cluster).filter(|c| wanted(&c.name)).map(|c| cluster_row(c, since(c.created))).collect();
            (
                table(["NAMESPACE", "NAME", "VERSION", "CONTROL PLANE", "WORKERS", "ENDPOINT", "READY", "AGE", "STATE"], rows.clone()),
                rows.len(),
            )
        }
        Kind::Pools => {
            let pools = views.iter().filter(of_cluster).flat_map(|c| c.pools.iter().map(move |p| (c, p)));
            // By the object's name or by the pool's own.
            let named = |c: &ClusterView, p: &PoolView| wanted(&p.name) || wanted(&format!("{}-{}", c.name, p.name));
            let rows: Vec<_> =
                pools.filter(|(c, p)| named(c, p)).map(|(c, p)| [c.namespace.clone(), c.name.clone(), p.name.clone(), share(p)]).collect();
            (table(["NAMESPACE", "CLUSTER", "POOL", "READY"], rows.clone()), rows.len())
        }
        Kind::Machines => {
            let machines = views.iter().filter(of_cluster).flat_map(|c| c.machines().map(move |m| (c, m)));
            let rows: Vec<_> = machines.filter(|(_, m)| wanted(&m.name)).map(|(c, m)| machine_row(c, m, since(m.created))).collect();
            (table(["NAMESPACE", "NAME", "CLUSTER", "ADDRESS", "READY", "AGE", "AGENT", "STATE"], rows.clone()), rows.len())
        }
        Kind::Snapshots => {
            let api: Api<EtcdSnapshot> = match &namespace {
                Some(namespace) => Api::namespaced(management.client.clone(), namespace),
                None => Api::all(management.client.clone()),
            };
            let list = asked("listing EtcdSnapshots", Duration::from_secs(10), api.list(&ListParams::default())).await?;
            let of = |s: &&EtcdSnapshot| args.cluster.as_deref().is_none_or(|n| n == s.spec.cluster) && wanted(&s.name_any());
            let rows: Vec<_> = list.items.iter().filter(of).map(|s| snapshot_row(s, since(s.creation_timestamp().map(|t| t.0)))).collect();
            (table(["NAMESPACE", "NAME", "CLUSTER", "COMPLETE", "BYTES", "REVISION", "AGE"], rows.clone()), rows.len())
        }
    };
    if found == 0 {
        let place = namespace.map_or_else(|| "any namespace".to_owned(), |n| format!("namespace {n} (-A looks into all)"));
        return match &args.name {
            Some(name) => Err(refused(format!("there is no {name} in {place}"))),
            None => {
                eprintln!("none in {place}");
                Ok(Outcome::Done)
            }
        };
    }
    print(global.output, &json!(null), || text)?;
    Ok(Outcome::Done)
}

/// Whole objects, for programs.
async fn objects(global: &Global, args: &Get, management: &Management, namespace: Option<&str>) -> Result<Outcome> {
    let kind = match args.kind {
        Kind::Clusters => "Cluster",
        Kind::Pools => "NodePool",
        Kind::Machines => "Machine",
        Kind::Snapshots => "EtcdSnapshot",
    };
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("slipway.dev", "v1alpha1", kind));
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(management.client.clone(), namespace, &resource),
        None => Api::all_with(management.client.clone(), &resource),
    };
    let list = asked(&format!("listing {kind}s"), Duration::from_secs(10), api.list(&ListParams::default())).await?;
    let mut items = list.items;
    items.retain(|o| args.name.as_deref().is_none_or(|n| o.metadata.name.as_deref() == Some(n)));
    if let Some(cluster) = &args.cluster {
        let of = |o: &DynamicObject| o.data.pointer("/spec/cluster").and_then(|v| v.as_str().map(str::to_owned));
        items.retain(|o| o.metadata.name.as_ref() == Some(cluster) || of(o).as_ref() == Some(cluster));
    }
    // What kubectl leaves out as well.
    items.iter_mut().for_each(|o| o.metadata.managed_fields = None);
    match (&args.name, items.as_slice()) {
        (Some(_), [one]) => print(global.output, one, String::new)?,
        (Some(name), []) => return Err(refused(format!("there is no {kind} {name}"))),
        _ => print(global.output, &json!({ "apiVersion": "v1", "kind": "List", "items": items }), String::new)?,
    }
    Ok(Outcome::Done)
}

fn share(pool: &PoolView) -> String {
    let ready = pool.machines.iter().filter(|m| m.ready).count();
    let wanted = pool.wanted.map_or_else(|| pool.machines.len().to_string(), |n| n.to_string());
    format!("{ready}/{wanted}")
}

fn cluster_row(c: &ClusterView, age: String) -> [String; 9] {
    let planes = c.pools.iter().find(|p| p.name == "cp").map(share).unwrap_or_default();
    let workers = c.pools.iter().filter(|p| p.name != "cp");
    let (mut ready, mut wanted) = (0, 0);
    for pool in workers {
        ready += pool.machines.iter().filter(|m| m.ready).count();
        wanted += pool.wanted.and_then(|n| usize::try_from(n).ok()).unwrap_or(pool.machines.len());
    }
    let is_ready = c.condition("Ready").map(|r| r.status.clone()).unwrap_or_else(|| "Unknown".to_owned());
    [
        c.namespace.clone(),
        c.name.clone(),
        c.version.clone(),
        planes,
        format!("{ready}/{wanted}"),
        c.endpoint.clone().unwrap_or_default(),
        is_ready,
        age,
        c.summary(),
    ]
}

fn snapshot_row(snapshot: &EtcdSnapshot, age: String) -> [String; 7] {
    let status = snapshot.status.clone().unwrap_or_default();
    let complete = status.conditions.iter().find(|c| c.type_ == "Complete").map_or("Unknown", |c| c.status.as_str()).to_owned();
    let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
    [
        snapshot.namespace().unwrap_or_default(),
        snapshot.name_any(),
        snapshot.spec.cluster.clone(),
        complete,
        number(status.bytes),
        number(status.revision),
        age,
    ]
}

fn machine_row(c: &ClusterView, m: &MachineView, age: String) -> [String; 8] {
    let ready = if m.ready { "True" } else { "False" }.to_owned();
    let (address, agent) = (m.address.clone().unwrap_or_default(), m.agent.clone().unwrap_or_default());
    [c.namespace.clone(), m.name.clone(), c.name.clone(), address, ready, age, agent, m.state()]
}
