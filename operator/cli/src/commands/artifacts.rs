//! `slipway artifacts …` and `slipway version`.

use crate::args::{Artifacts, ArtifactsCommand, Format, Global, StoreArgs};
use crate::outcome::{Outcome, refused};
use crate::output::{print, table};
use anyhow::{Context, Result};
use serde::Serialize;
use slipway_artifacts::cli::{Row, State};
use slipway_artifacts::{Component, EnsureOptions, Store, catalogue, cli};

/// The store that the flags name.
pub fn store(args: &StoreArgs) -> Result<Store> {
    let store = match &args.store {
        Some(dir) => Store::open(dir),
        None => Store::open_default(),
    };
    store.context("the artifact store")
}

/// Runs the command.
pub async fn run(global: &Global, args: Artifacts) -> Result<Outcome> {
    let format = global.output;
    // Hashing and building block for long.
    tokio::task::spawn_blocking(move || blocking(format, &args)).await.context("looking after artifacts")?
}

fn blocking(format: Format, args: &Artifacts) -> Result<Outcome> {
    let store = store(&args.store)?;
    let stderr = slipway_artifacts::Stderr;
    let rows = match &args.command {
        ArtifactsCommand::List { kubernetes } => of_version(cli::list(&store), kubernetes.as_deref())?,
        ArtifactsCommand::Verify { kubernetes } => of_version(cli::verify(&store), kubernetes.as_deref())?,
        ArtifactsCommand::Fetch { kubernetes } => {
            let wanted = known(kubernetes.as_deref().unwrap_or(catalogue::DEFAULT_KUBERNETES))?;
            cli::fetch(&store, wanted.kubernetes, &EnsureOptions { full: true, ..EnsureOptions::default() }, &stderr)?
        }
        ArtifactsCommand::Build { kubernetes } => {
            let wanted = known(kubernetes.as_deref().unwrap_or(catalogue::DEFAULT_KUBERNETES))?;
            cli::build(&store, wanted.kubernetes, &[], &stderr)?
        }
    };
    print(format, &rows, || {
        table(
            ["COMPONENT", "VERSION", "NAME", "STATE", "SIZE", "SHA256", "ORIGIN"],
            rows.iter().map(|r| {
                let digest = r.sha256.get(..12).unwrap_or_default().to_owned();
                let size = if r.size == 0 { String::new() } else { format!("{:.1} MiB", r.size as f64 / 1_048_576.0) };
                let origin: String = r.origin.chars().take(60).collect();
                [r.component.clone(), r.version.clone(), r.name.clone(), word(r.state), size, digest, origin]
            }),
        )
    })?;
    let bad: Vec<&Row> = rows.iter().filter(|r| !r.state.is_good() && r.state != State::Absent).collect();
    if let Some(first) = bad.first() {
        anyhow::bail!(
            "{} of {} files are not what they should be, e.g. {} {} {}: `slipway artifacts fetch` brings them anew",
            bad.len(),
            rows.len(),
            first.component,
            first.version,
            first.name
        );
    }
    Ok(Outcome::Done)
}

fn word(state: State) -> String {
    serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The version set, or a refusal that lists what there is.
pub fn known(version: &str) -> Result<catalogue::VersionSet> {
    catalogue::version_set(version).ok_or_else(|| {
        let known: Vec<&str> = catalogue::supported().iter().map(|s| s.kubernetes).collect();
        refused(format!("Kubernetes {version} is not in this release's catalogue: choose one of {}", known.join(", ")))
    })
}

fn of_version(rows: Vec<Row>, kubernetes: Option<&str>) -> Result<Vec<Row>> {
    let Some(version) = kubernetes else { return Ok(rows) };
    let set = known(version)?;
    let wanted = |row: &Row| Component::ALL.iter().any(|c| c.name() == row.component && c.version(&set) == row.version);
    Ok(rows.into_iter().filter(wanted).collect())
}

#[derive(Serialize)]
struct Versions {
    slipway: &'static str,
    default_kubernetes: &'static str,
    kubernetes: &'static [catalogue::VersionSet],
}

/// `slipway version`
pub fn version(global: &Global) -> Result<Outcome> {
    let versions = Versions {
        slipway: env!("CARGO_PKG_VERSION"),
        default_kubernetes: catalogue::DEFAULT_KUBERNETES,
        kubernetes: catalogue::supported(),
    };
    print(global.output, &versions, || {
        let rows = versions.kubernetes.iter().map(|s| {
            let mark = if s.kubernetes == versions.default_kubernetes { " (default)" } else { "" };
            [
                format!("{}{mark}", s.kubernetes),
                s.etcd.into(),
                s.containerd.into(),
                s.runc.into(),
                s.cni.into(),
                s.coredns.into(),
                s.pause.into(),
            ]
        });
        let sets = table(["KUBERNETES", "ETCD", "CONTAINERD", "RUNC", "CNI", "COREDNS", "PAUSE"], rows);
        format!("slipway v{}\n\n{sets}", versions.slipway)
    })?;
    Ok(Outcome::Done)
}
