//! `slipway doctor`: whether this host can be a local cloud. Changes nothing; `up` asks the same before it changes anything.

use crate::args::{CloudArgs, Doctor, Global, StoreArgs};
use crate::outcome::{Outcome, refused};
use crate::output::{print, table};
use crate::place::Place;
use crate::plane::{Settings, daemon};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::Serialize;
use slipway_artifacts::{Component, Store, catalogue};
use std::path::{Path, PathBuf};

/// A thing that was looked at.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What is there.
    pub found: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Check {
    fn new(name: &str, ok: bool, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok, found: found.into(), mend: if ok { String::new() } else { mend.into() } }
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Doctor) -> Result<Outcome> {
    let place = Place::new(global.state.as_deref())?;
    let settings = settings(&place, &args.cloud, &args.store)?;
    let checks = checks(&place, &settings).await?;
    print(global.output, &checks, || {
        table(
            ["", "CHECK", "FOUND", "WAY OUT"],
            checks.iter().map(|c| [if c.ok { "ok" } else { "NO" }.to_owned(), c.name.clone(), c.found.clone(), c.mend.clone()]),
        )
    })?;
    Ok(if checks.iter().all(|c| c.ok) { Outcome::Done } else { Outcome::Refused })
}

/// What the flags say, without anything being made.
pub fn settings(place: &Place, cloud: &CloudArgs, store: &StoreArgs) -> Result<Settings> {
    let CloudArgs { name, range } = cloud;
    let range: Ipv4Net = range.parse().map_err(|_| refused(format!("--range {range}: write it as 198.18.0.0/20")))?;
    let there = Settings::read(place)?;
    let dir: PathBuf = match (&store.store, &there) {
        (Some(dir), _) => std::path::absolute(dir).context("--store")?,
        // A living cloud has its store mounted in its machines.
        (None, Some(there)) if std::env::var_os("SLIPWAY_STORE").is_none() => there.store.clone(),
        (None, _) => Store::default_dir()?,
    };
    // As `Store::open` will see it.
    let dir = dir.canonicalize().unwrap_or(dir);
    // What the daemon would refuse is refused before it is started.
    slipway_local::Layout::new(&place.local(), &dir, name, range).map_err(|e| refused(e.to_string()))?;
    Ok(Settings { name: name.clone(), range, store: dir })
}

/// Refuses with all that is missing, before anything is changed. A host with a local cloud that answers has shown that it can be one.
pub async fn insist(place: &Place, settings: &Settings) -> Result<()> {
    if daemon::find(place).await.is_some() {
        return Ok(());
    }
    let missing: Vec<Check> = checks(place, settings).await?.into_iter().filter(|c| !c.ok).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(|c| format!("\n  {}: {}\n    {}", c.name, c.found, c.mend)).collect();
    Err(refused(format!("this host cannot be a local cloud yet, and nothing was changed:{}", lines.concat())))
}

/// Everything that `up` needs.
pub async fn checks(place: &Place, settings: &Settings) -> Result<Vec<Check>> {
    let options = slipway_local::doctor::Options {
        state: place.local(),
        store: settings.store.clone(),
        name: settings.name.clone(),
        range: settings.range,
        running: daemon::find(place).await.is_some(),
    };
    let look = move || {
        let host = slipway_local::doctor::checks(&options).into_iter();
        let mut checks: Vec<Check> = host.map(|c| Check { name: c.name, ok: c.ok, found: c.found, mend: c.mend }).collect();
        checks.push(artifacts(&options.store));
        checks
    };
    tokio::task::spawn_blocking(look).await.context("looking at this host")
}

/// Whether the default version is in the store, or can be got there.
fn artifacts(dir: &Path) -> Check {
    const NAME: &str = "artifacts";
    let there = |store: &Store, set: &catalogue::VersionSet| {
        Component::ALL.iter().all(|c| c.artifacts().all(|name| store.lookup(c.name(), c.version(set), name).is_some()))
    };
    let Some(set) = catalogue::version_set(catalogue::DEFAULT_KUBERNETES) else {
        return Check::new(NAME, false, "the default version is not in the catalogue", "use another release of Slipway");
    };
    if dir.join("index").is_dir()
        && let Ok(store) = Store::open(dir)
        && there(&store, &set)
    {
        return Check::new(NAME, true, format!("{} in {}", set.kubernetes, dir.display()), "");
    }
    let go = std::process::Command::new("go").arg("version").output();
    match go {
        Ok(out) if out.status.success() => {
            let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            Check::new(NAME, true, format!("{} not in {} yet: releases, else built by {version}", set.kubernetes, dir.display()), "")
        }
        // Releases may do; nobody knows before trying, and trying is no check.
        _ => Check::new(
            NAME,
            true,
            format!("{} not in {} yet: releases only, no Go toolchain to build with", set.kubernetes, dir.display()),
            "",
        ),
    }
}
