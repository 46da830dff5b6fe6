//! `slipway plan`: the forecast of what applying a file would do. Changes nothing: the file is only tried against the API (a dry run), so that what the
//! API would refuse is refused here as well. The operator itself is asked where it can be; else the forecast begins with what it last wrote down.
//!
//! Exit code 0: nothing to do. 6: something would change. 3: refused.

use crate::args::{Format, Global, Plan};
use crate::ask;
use crate::connect::{Management, asked};
use crate::file::{self, FIELD_MANAGER, Object};
use crate::outcome::{Outcome, refused};
use crate::output::{print, say};
use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use slipway_crds::{Cluster, Machine, NodePool};
use slipway_operator::forecast::ask::Question;
use slipway_operator::forecast::{Foreseen, Present, of_records};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(15);

/// Runs the command.
pub async fn run(global: &Global, args: &Plan) -> Result<Outcome> {
    let all = match &args.file {
        Some(file) => applied(global, &file::read(file)?, &file.display().to_string()).await?,
        None => vec![stored(global, args.name.as_deref().unwrap_or_default()).await?],
    };
    if global.output == Format::Text {
        say(&all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    } else {
        print(global.output, &all, String::new)?;
    }
    Ok(if all.iter().any(|f| f.told.changes) { Outcome::WouldChange } else { Outcome::Done })
}

/// Every Cluster of a file, as if it were applied.
async fn applied(global: &Global, objects: &[Object], file: &str) -> Result<Vec<Foreseen>> {
    let clusters: Vec<&Object> = objects.iter().filter(|o| o.is_cluster()).collect();
    if clusters.is_empty() {
        return Err(refused(format!("{file}: there is no Cluster in it")));
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
    let mut all = Vec::new();
    for object in clusters {
        all.push(match &management {
            Some(management) => foresee(management, tried(management, object).await?).await?,
            None => of_records(&typed(object)?, &Present::default(), Timestamp::now()).map_err(|e| refused(e.to_string()))?,
        });
    }
    Ok(all)
}

/// A cluster that is there, as its object is now.
async fn stored(global: &Global, name: &str) -> Result<Foreseen> {
    let management = Management::connect(global).await?;
    let api: Api<Cluster> = Api::namespaced(management.client.clone(), &management.namespace);
    let cluster = asked("reading the Cluster", WITHIN, api.get_opt(name)).await?.ok_or_else(|| {
        refused(format!("there is no cluster {name} in namespace {}: `slipway get clusters -A` lists them", management.namespace))
    })?;
    let generation = cluster.metadata.generation;
    by_operator_or_records(&management, &cluster, Question::Stored, generation).await
}

/// What becomes of what is there once `wanted` is its object.
pub async fn foresee(management: &Management, wanted: Cluster) -> Result<Foreseen> {
    by_operator_or_records(management, &wanted, Question::Candidate(&wanted), None).await
}

async fn by_operator_or_records(
    management: &Management,
    wanted: &Cluster,
    question: Question<'_>,
    generation: Option<i64>,
) -> Result<Foreseen> {
    let (namespace, name) = (wanted.namespace().unwrap_or_else(|| management.namespace.clone()), wanted.name_any());
    match ask::operator(management, &namespace, &name, question, generation).await? {
        Ok(foreseen) => Ok(foreseen),
        Err(why) => {
            eprintln!("{name}: foreseen from its records, since the operator was not asked: {why}");
            let present = present(management, &namespace, &name).await?;
            of_records(wanted, &present, Timestamp::now()).map_err(|e| refused(e.to_string()))
        }
    }
}

fn typed(object: &Object) -> Result<Cluster> {
    serde_json::from_value(object.value().clone()).map_err(|e| refused(format!("Cluster {}: {e}", object.name())))
}

/// The Cluster as the API would store it.
async fn tried(management: &Management, object: &Object) -> Result<Cluster> {
    let namespace = object.namespace().unwrap_or(&management.namespace);
    let clusters: Api<Cluster> = Api::namespaced(management.client.clone(), namespace);
    let params = PatchParams { dry_run: true, ..PatchParams::apply(FIELD_MANAGER).force().validation_strict() };
    let what = format!("trying Cluster {}", object.name());
    asked(&what, WITHIN, clusters.patch(object.name(), &params, &Patch::Apply(object.value()))).await
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
