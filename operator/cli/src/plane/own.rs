//! Slipway's own programs in the store: machines take them from there by digest, like everything else.

use crate::outcome::refused;
use crate::place::{Place, write_private};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use slipway_artifacts::{Artifact, Store};
use slipway_model::ArtifactRef;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Component under which they stand.
pub const COMPONENT: &str = slipway_operator::artifacts::OWN_COMPONENT;
/// The agent.
pub const AGENT: &str = slipway_operator::artifacts::AGENT;
/// Those that run on machines.
const ON_MACHINES: [&str; 3] = [AGENT, "slipway-ccm-local", "slipway-operator"];
/// Where machines of the local cloud see the store.
pub const STORE_ON_MACHINES: &str = "file:///opt/slipway/store/sha256";

/// Refuses when a program is missing.
pub fn present(bin: &Path) -> Result<()> {
    let missing: Vec<&str> = ON_MACHINES.into_iter().chain(["slipway-local"]).filter(|p| !bin.join(p).is_file()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "{} lacks {}: build them (`cargo xtask quickstart` does, into target/slipway/bin), or say --bin DIR",
        bin.display(),
        missing.join(", ")
    )))
}

/// What a program's file looked like when it was last adopted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    sha256: String,
}

/// Brings them into the store. A file that looks as it did the last time is not read again.
pub fn adopt(store: &Store, place: &Place, bin: &Path) -> Result<Vec<Artifact>> {
    let notes = place.root().join("programs.json");
    let mut stamps: BTreeMap<String, Stamp> = std::fs::read(&notes).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut adopted = Vec::new();
    let mut changed = false;
    for name in ON_MACHINES {
        let path = bin.join(name);
        let file = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        let stamp = |sha256: &str| Stamp {
            path: path.display().to_string(),
            size: file.size(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            sha256: sha256.to_owned(),
        };
        let known = stamps.get(name).filter(|s| **s == stamp(&s.sha256));
        // The store is shared: another checkout may have adopted its own program under this name meanwhile, and both files stay.
        let stored = known.and_then(|s| {
            let there = Artifact {
                component: COMPONENT.to_owned(),
                version: version.to_owned(),
                name: name.to_owned(),
                sha256: s.sha256.clone(),
                size: s.size,
                path: store.blob(&s.sha256, name),
                origin: "own:program".to_owned(),
            };
            std::fs::metadata(&there.path).is_ok_and(|m| m.len() == there.size).then_some(there)
        });
        let artifact = match stored {
            Some(artifact) => artifact,
            None => {
                let artifact =
                    store.adopt(COMPONENT, version, name, "own:program", &path).with_context(|| format!("adopting {}", path.display()))?;
                stamps.insert(name.to_owned(), stamp(&artifact.sha256));
                changed = true;
                artifact
            }
        };
        adopted.push(artifact);
    }
    if changed {
        write_private(&notes, &serde_json::to_vec_pretty(&stamps).context("writing stamps")?)?;
    }
    Ok(adopted)
}

/// Where they were last adopted from.
pub fn adopted_from(place: &Place) -> Result<PathBuf> {
    let notes = place.root().join("programs.json");
    let stamps: BTreeMap<String, Stamp> = std::fs::read(&notes).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let path = stamps.get(AGENT).map(|s| PathBuf::from(&s.path));
    path.and_then(|p| p.parent().map(Path::to_owned))
        .ok_or_else(|| refused("this management plane has never been up: `slipway up` starts it"))
}

/// Everything in the store that is as it should be, with these programs of our own.
pub fn with_stored(store: &Store, place: &Place, bin: &Path) -> Result<Vec<Artifact>> {
    let mut all: Vec<Artifact> = store.all().into_iter().filter(|a| a.component != COMPONENT && store.check(a).is_ok()).collect();
    all.extend(adopt(store, place, bin)?);
    Ok(all)
}

/// As machines are told of it.
pub fn reference(artifacts: &[Artifact], name: &str) -> Result<ArtifactRef> {
    let artifact = artifacts.iter().rev().find(|a| a.component == COMPONENT && a.name == name);
    artifact.map(to_reference).ok_or_else(|| anyhow!("{name} is not in the store"))
}

/// As machines are told of an artifact.
pub fn to_reference(artifact: &Artifact) -> ArtifactRef {
    ArtifactRef {
        name: artifact.name.clone(),
        sha256: artifact.sha256.clone(),
        size: artifact.size,
        sources: vec![format!("{STORE_ON_MACHINES}/{}/{}", artifact.sha256, artifact.name)],
    }
}
