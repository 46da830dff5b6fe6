//! `slipway down`: the reverse of `up`, down to the last file. Safe to repeat, and after a half-finished `up` as well.
//!
//! ```text
//! delete Clusters (the operator takes their machines away) ──► slipway-local remove (everything of this prefix) ──► state directory
//! ```

use crate::args::{Down, Global};
use crate::connect::client_of;
use crate::outcome::{Outcome, refused};
use crate::output::{print, seconds};
use crate::place::Place;
use crate::plane::Settings;
use crate::screen::Screen;
use anyhow::{Context, Result, bail};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use slipway_crds::Cluster;
use slipway_model::DeletionPolicy;
use std::path::Path;
use std::time::{Duration, Instant};

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    clusters: Vec<String>,
    removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    seconds: f64,
}

/// Runs the command.
pub async fn run(global: &Global, args: &Down) -> Result<Outcome> {
    let started = Instant::now();
    let place = Place::new(global.state.as_deref())?;
    let mut report = Report::default();
    if place.root().exists() {
        let screen = Screen::new();
        let lock = place.lock()?;
        let settings = Settings::read(&place).unwrap_or_default();
        if !args.force {
            report.clusters = delete_clusters(&place, args.timeout, &screen).await?;
        }
        if place.local().exists() {
            screen.at("local cloud", "removing machines, networks and the daemon");
            let name = settings.as_ref().map(|s| s.name.as_str());
            let said = slipway_local::remove(&place.local(), name).await.context("removing the local cloud; run the same command again")?;
            report.removed.extend(said);
        }
        screen.clear();
        no_mounts_below(place.root())?;
        std::fs::remove_dir_all(place.root()).with_context(|| format!("removing {}", place.root().display()))?;
        report.removed.push(place.root().display().to_string());
        drop(lock);
        store(args, settings.map(|s| s.store), &mut report)?;
    } else if args.purge {
        store(args, None, &mut report)?;
    }
    report.seconds = started.elapsed().as_secs_f64();
    print(global.output, &report, || text(&report, &place))?;
    Ok(Outcome::Done)
}

fn text(report: &Report, place: &Place) -> String {
    if report.removed.is_empty() {
        return format!("nothing to do: there is nothing in {}", place.root().display());
    }
    let mut lines = Vec::new();
    if !report.clusters.is_empty() {
        lines.push(format!("deleted {}", report.clusters.join(", ")));
    }
    lines.extend(report.removed.iter().map(|r| format!("removed {r}")));
    lines.extend(report.kept.iter().map(|k| format!("kept the artifact store {k} (--purge removes it)")));
    lines.push(format!("took {}", seconds(Duration::from_secs_f64(report.seconds))));
    lines.join("\n")
}

/// Asks for every Cluster's deletion and waits for it, where the management plane answers. Machines that a user chose to orphan end with this host's
/// local cloud all the same, so asking would be in vain.
async fn delete_clusters(place: &Place, timeout: Duration, screen: &Screen) -> Result<Vec<String>> {
    let Ok(kubeconfig) = std::fs::read_to_string(place.management_kubeconfig()) else { return Ok(Vec::new()) };
    let client = client_of(&kubeconfig).await?;
    let clusters: Api<Cluster> = Api::all(client.clone());
    let listed = tokio::time::timeout(Duration::from_secs(3), clusters.list(&ListParams::default())).await;
    let Ok(Ok(list)) = listed else {
        screen.note("the management plane does not answer: its clusters go with the local cloud");
        return Ok(Vec::new());
    };
    let names: Vec<String> = list.iter().map(ResourceExt::name_any).collect();
    for cluster in list.iter().filter(|c| c.spec.deletion_policy != DeletionPolicy::Orphan) {
        let api: Api<Cluster> = Api::namespaced(client.clone(), &cluster.namespace().unwrap_or_default());
        match api.delete(&cluster.name_any(), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(s)) if s.is_not_found() => {}
            Err(e) => screen.note(&format!("{}: {e}; it goes with the local cloud", cluster.name_any())),
        }
    }
    let deadline = Instant::now() + timeout;
    loop {
        let left = match clusters.list(&ListParams::default()).await {
            Ok(list) => list.items.into_iter().filter(|c| c.spec.deletion_policy != DeletionPolicy::Orphan).map(|c| c.name_any()).collect(),
            Err(_) => Vec::new(),
        };
        if left.is_empty() {
            return Ok(names);
        }
        screen.at("clusters", &format!("waiting for the deletion of {}", left.join(", ")));
        if Instant::now() > deadline {
            screen.note(&format!("{} not deleted within {}: going with the local cloud", left.join(", "), seconds(timeout)));
            return Ok(names);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A mount left below the directory would have its *contents* removed, the artifact store's for instance.
fn no_mounts_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let below = mounts.lines().filter_map(|l| l.split(' ').nth(4)).find(|point| Path::new(point).starts_with(dir));
    match below {
        Some(point) => bail!("{point} is still mounted: `umount -R {point}`, then run the same command again"),
        None => Ok(()),
    }
}

fn store(args: &Down, known: Option<std::path::PathBuf>, report: &mut Report) -> Result<()> {
    let dir = match (&args.store.store, known) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir,
        (None, None) => slipway_artifacts::Store::default_dir()?,
    };
    if !args.purge {
        report.kept = dir.exists().then(|| dir.display().to_string());
        return Ok(());
    }
    if !dir.exists() {
        return Ok(());
    }
    // A directory that somebody named by mistake is not a store.
    if !dir.join("sha256").is_dir() || !dir.join("index").is_dir() {
        return Err(refused(format!("{} does not look like an artifact store: it is left alone", dir.display())));
    }
    std::fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    report.removed.push(dir.display().to_string());
    Ok(())
}
