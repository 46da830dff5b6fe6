//! `slipway events`

use crate::args::{Events, Global};
use crate::connect::{Management, asked};
use crate::outcome::Outcome;
use crate::output::{age, print, table};
use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    last: Option<Timestamp>,
    count: i32,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    object: String,
    note: String,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Events) -> Result<Outcome> {
    let management = Management::connect(global).await?;
    let events: Api<Event> = Api::namespaced(management.client.clone(), &management.namespace);
    let list = asked("listing Events", Duration::from_secs(10), events.list(&ListParams::default())).await?;
    let mut rows: Vec<Row> = list.items.into_iter().filter(|e| concerns(e, &args.name)).map(row).collect();
    rows.sort_by_key(|r| r.last);
    print(global.output, &rows, || {
        if rows.is_empty() {
            return format!("no Events about {} in namespace {} (the API keeps them for an hour)", args.name, management.namespace);
        }
        let now = Timestamp::now();
        let lines = rows.iter().map(|r| {
            let last = r.last.map(|t| age(now.as_second() - t.as_second())).unwrap_or_default();
            let last = if r.count > 1 { format!("{last} (x{})", r.count) } else { last };
            [last, r.kind.clone(), r.reason.clone(), r.object.clone(), r.note.clone()]
        });
        table(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], lines)
    })?;
    Ok(Outcome::Done)
}

/// About the cluster itself, or one of the objects whose names are made of its own.
fn concerns(event: &Event, cluster: &str) -> bool {
    event.regarding.as_ref().is_some_and(|object| {
        let ours = object.api_version.as_deref().is_some_and(|v| v.starts_with("slipway.dev/"));
        let name = object.name.as_deref().unwrap_or_default();
        ours && match object.kind.as_deref() {
            Some("Cluster") => name == cluster,
            _ => name.strip_prefix(cluster).is_some_and(|rest| rest.starts_with('-')),
        }
    })
}

fn row(event: Event) -> Row {
    let series = event.series.as_ref();
    let last = series
        .map(|s| s.last_observed_time.0)
        .or(event.event_time.as_ref().map(|t| t.0))
        .or(event.deprecated_last_timestamp.as_ref().map(|t| t.0));
    let object = event.regarding.unwrap_or_default();
    Row {
        last,
        count: series.map_or(1, |s| s.count),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        object: format!("{}/{}", object.kind.unwrap_or_default(), object.name.unwrap_or_default()),
        note: event.note.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    #[test]
    fn events_of_other_clusters_are_not_shown() {
        let about = |kind: &str, name: &str| {
            let api = "slipway.dev/v1alpha1".to_owned();
            let regarding =
                ObjectReference { api_version: Some(api), kind: Some(kind.into()), name: Some(name.into()), ..ObjectReference::default() };
            concerns(&Event { regarding: Some(regarding), ..Event::default() }, "demo")
        };
        assert!(about("Cluster", "demo") && about("Machine", "demo-cp-0") && about("NodePool", "demo-workers"));
        assert!(!about("Cluster", "demo-2") && !about("Machine", "demo2-cp-0"));
    }
}
