//! `slipway plan`: the forecast of what applying a file would do. Changes nothing: the file is only tried against the API (a dry run), so that what the
//! API would refuse is refused here as well.
//!
//! Exit code 0: nothing to do. 6: something would change. 3: refused.

use crate::args::{Format, Global, Plan};
use crate::connect::{Management, asked};
use crate::file::{self, FIELD_MANAGER, Object};
use crate::outcome::{Outcome, refused};
use crate::output::print;
use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use slipway_crds::{Cluster, Machine, NodePool};
use slipway_operator::forecast::{Present, forecast};
use slipway_plan::{End, Forecast, Quorum};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    cluster: String,
    changes: bool,
    steps: Vec<StepRow>,
    end: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepRow {
    actions: Vec<String>,
    waits: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    etcd: Option<Quorum>,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Plan) -> Result<Outcome> {
    let Some(file) = &args.file else { return stored(global, args.name.as_deref().unwrap_or_default()).await };
    let objects = file::read(file)?;
    let clusters: Vec<&Object> = objects.iter().filter(|o| o.is_cluster()).collect();
    if clusters.is_empty() {
        return Err(refused(format!("{}: there is no Cluster in it", file.display())));
    }
    for object in &clusters {
        if let Some(version) = object.kubernetes_version() {
            super::artifacts::known(version).with_context(|| format!("Cluster {}", object.name()))?;
        }
    }
    // Without a management cluster there is nothing yet, and everything would be made.
    let management = match Management::connect(global).await {
        Ok(management) => Some(management),
        Err(e) if Outcome::of_error(&e) == Outcome::Refused && global.kubeconfig.is_none() && global.context.is_none() => {
            eprintln!("no management cluster is known: this is what would be done from nothing");
            None
        }
        Err(e) => return Err(e),
    };
    let now = Timestamp::now();
    let mut rows = Vec::new();
    let mut texts = Vec::new();
    for object in clusters {
        let (wanted, present) = match &management {
            Some(management) => read(management, object).await?,
            None => (typed(object)?, Present::default()),
        };
        let foreseen = forecast(&wanted, &present, now).map_err(|e| refused(e.to_string()))?;
        let changes = changes(&foreseen);
        texts.push(format!("Cluster {}:\n{foreseen}", object.name()));
        rows.push(row(object.name(), changes, &foreseen));
    }
    let change = rows.iter().any(|r| r.changes);
    if global.output == Format::Text {
        crate::output::say(&texts.join("\n"))?;
    } else {
        print(global.output, &rows, String::new)?;
    }
    Ok(if change { Outcome::WouldChange } else { Outcome::Done })
}

/// A cluster that is there, as its object is now.
async fn stored(global: &Global, name: &str) -> Result<Outcome> {
    let management = Management::connect(global).await?;
    let api: Api<Cluster> = Api::namespaced(management.client.clone(), &management.namespace);
    let cluster = asked("reading the Cluster", WITHIN, api.get_opt(name)).await?.ok_or_else(|| {
        refused(format!("there is no cluster {name} in namespace {}: `slipway get clusters -A` lists them", management.namespace))
    })?;
    let foreseen = foresee(&management, cluster).await?;
    print(global.output, &[&foreseen.row], || foreseen.text.clone())?;
    Ok(if foreseen.changes { Outcome::WouldChange } else { Outcome::Done })
}

/// A forecast, ready to be shown.
pub struct Foreseen {
    row: Row,
    /// For people.
    pub text: String,
    /// Whether anything would be done.
    pub changes: bool,
    /// Whether it ends with everything as asked for.
    pub done: bool,
}

/// What becomes of what is there once `wanted` is its object.
pub async fn foresee(management: &Management, wanted: Cluster) -> Result<Foreseen> {
    let namespace = wanted.namespace().unwrap_or_else(|| management.namespace.clone());
    let present = present(management, &namespace, &wanted.name_any()).await?;
    let foreseen = forecast(&wanted, &present, Timestamp::now()).map_err(|e| refused(e.to_string()))?;
    let (changes, name) = (changes(&foreseen), wanted.name_any());
    let text = format!("Cluster {name}:\n{foreseen}");
    Ok(Foreseen { row: row(&name, changes, &foreseen), text, changes, done: foreseen.end == End::Done })
}

/// A forecast that waits for something without doing anything before changes nothing, but is not done either: people must hear of it.
fn changes(forecast: &Forecast) -> bool {
    !forecast.steps.is_empty()
}

fn row(cluster: &str, changes: bool, forecast: &Forecast) -> Row {
    let steps = forecast.steps.iter().map(|s| StepRow {
        actions: s.actions.iter().map(ToString::to_string).collect(),
        waits: s.waits.iter().map(ToString::to_string).collect(),
        etcd: s.etcd,
    });
    let end = match &forecast.end {
        End::Done => "done".to_owned(),
        End::Waits(waits) => waits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        End::Unbounded => "no end in sight".to_owned(),
    };
    Row { cluster: cluster.to_owned(), changes, steps: steps.collect(), end }
}

fn typed(object: &Object) -> Result<Cluster> {
    serde_json::from_value(object.value().clone()).map_err(|e| refused(format!("Cluster {}: {e}", object.name())))
}

/// The Cluster as the API would store it, and what there is of it now.
async fn read(management: &Management, object: &Object) -> Result<(Cluster, Present)> {
    let namespace = object.namespace().unwrap_or(&management.namespace);
    let clusters: Api<Cluster> = Api::namespaced(management.client.clone(), namespace);
    let params = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force().validation_strict() };
    let what = format!("trying Cluster {}", object.name());
    // What there is comes first: the dry run's answer carries the new spec with the same status.
    let present = present(management, namespace, object.name()).await?;
    let wanted = asked(&what, WITHIN, clusters.patch(object.name(), &params, &Patch::Apply(object.value()))).await?;
    Ok((wanted, present))
}

/// What there is of a cluster.
async fn present(management: &Management, namespace: &str, name: &str) -> Result<Present> {
    let client = &management.client;
    let clusters: Api<Cluster> = Api::namespaced(client.clone(), namespace);
    let (pools, machines): (Api<NodePool>, Api<Machine>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let all = ListParams::default();
    let (cluster, pools, machines) = tokio::try_join!(
        asked("reading the Cluster", WITHIN, clusters.get_opt(name)),
        asked("listing NodePools", WITHIN, pools.list(&all)),
        asked("listing Machines", WITHIN, machines.list(&all)),
    )?;
    Ok(Present {
        cluster,
        pools: pools.items.into_iter().filter(|p| p.spec.cluster == name).collect(),
        machines: machines.items.into_iter().filter(|m| m.spec.cluster == name).collect(),
    })
}
