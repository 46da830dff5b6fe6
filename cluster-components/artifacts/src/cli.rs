//! What `slipway artifacts list|fetch|verify|build` does; printing is the caller's.

use serde::Serialize;

use crate::Progress;
use crate::catalogue::{self, Component};
use crate::ensure::{self, EnsureOptions, Error, SourceChoice, ensure, ensure_component};
use crate::store::{Artifact, Store, StoreError};

/// How an artifact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In the catalogue, and never fetched.
    Absent,
    /// In the store, of the right length; not read.
    Present,
    /// Read, and what it should be.
    Ok,
    /// Read, and not what it should be.
    Altered,
    /// Shorter or longer than it should be.
    Truncated,
    /// The index has it, the disk has not.
    Missing,
    /// It could not be read.
    Unreadable,
}

impl State {
    /// Whether the file may be run as far as is known.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Present | Self::Ok)
    }
}

/// One line of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// For instance `kubernetes`.
    pub component: String,
    /// For instance `v1.36.4`.
    pub version: String,
    /// For instance `kubelet`.
    pub name: String,
    /// Empty if it is not in the store.
    pub sha256: String,
    /// In bytes; 0 if it is not in the store.
    pub size: u64,
    /// Where it came from; empty if it is not in the store.
    pub origin: String,
    /// How it is.
    pub state: State,
}

impl Row {
    fn new(artifact: Artifact, state: State) -> Self {
        let Artifact { component, version, name, sha256, size, origin, .. } = artifact;
        Self { component, version, name, sha256, size, origin, state }
    }
}

/// Everything of the catalogue, and whatever else is in the store. Reads no file: see [`verify`].
#[must_use]
pub fn list(store: &Store) -> Vec<Row> {
    let mut rows = Vec::new();
    for artifact in store.all() {
        let state = match std::fs::metadata(&artifact.path) {
            Ok(file) if file.len() == artifact.size => State::Present,
            Ok(_) => State::Truncated,
            Err(_) => State::Missing,
        };
        rows.push(Row::new(artifact, state));
    }
    for set in catalogue::supported() {
        for &component in Component::ALL {
            for name in component.artifacts() {
                let version = component.version(set);
                let known = |row: &Row| row.component == component.name() && row.version == version && row.name == name;
                if !rows.iter().any(known) {
                    rows.push(Row {
                        component: component.name().to_owned(),
                        version: version.to_owned(),
                        name: name.to_owned(),
                        sha256: String::new(),
                        size: 0,
                        origin: String::new(),
                        state: State::Absent,
                    });
                }
            }
        }
    }
    rows.sort_by(|a, b| (&a.component, &a.version, &a.name).cmp(&(&b.component, &b.version, &b.name)));
    rows
}

/// Reads everything in the store and says how it is.
#[must_use]
pub fn verify(store: &Store) -> Vec<Row> {
    let state = |artifact: &Artifact| match store.verify(artifact) {
        Ok(()) => State::Ok,
        Err(StoreError::Altered { .. }) => State::Altered,
        Err(StoreError::Truncated { .. }) => State::Truncated,
        Err(StoreError::Missing { .. }) => State::Missing,
        Err(StoreError::Io { .. } | StoreError::NoPlace) => State::Unreadable,
    };
    store
        .all()
        .into_iter()
        .map(|artifact| {
            let state = state(&artifact);
            Row::new(artifact, state)
        })
        .collect()
}

/// Brings a version into the store.
///
/// # Errors
/// As [`ensure()`].
pub fn fetch(store: &Store, kubernetes: &str, options: &EnsureOptions, progress: &dyn Progress) -> Result<Vec<Row>, Error> {
    Ok(ensure(store, kubernetes, options, progress)?.into_iter().map(|artifact| Row::new(artifact, State::Ok)).collect())
}

/// Builds these components of a version from Go modules (all of them if none is named), whatever else there would be.
///
/// # Errors
/// As [`ensure_component`].
pub fn build(store: &Store, kubernetes: &str, components: &[Component], progress: &dyn Progress) -> Result<Vec<Row>, Error> {
    let set = ensure::set(kubernetes)?;
    let options = EnsureOptions { source: SourceChoice::GoModules, ..EnsureOptions::default() };
    let components = if components.is_empty() { Component::ALL } else { components };
    let mut rows = Vec::new();
    for &component in components {
        let artifacts = ensure_component(store, component, component.version(&set), &options, progress)?;
        rows.extend(artifacts.into_iter().map(|artifact| Row::new(artifact, State::Ok)));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_list_has_every_artifact_of_the_catalogue_once_and_what_else_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        store.adopt("etcd", "v3.6.14", "etcd", "own:x", &file).unwrap();
        store.adopt("etcd", "v3.0.0", "etcd", "own:x", &file).unwrap();
        let rows = list(&store);
        let of = |version: &str, name: &str| {
            let found: Vec<_> = rows.iter().filter(|row| row.version == version && row.name == name).collect();
            assert_eq!(found.len(), 1, "{version} {name}");
            found.first().unwrap().state
        };
        assert_eq!(of("v3.6.14", "etcd"), State::Present);
        assert_eq!(of("v3.0.0", "etcd"), State::Present);
        assert_eq!(of("v3.6.14", "etcdctl"), State::Absent);
        assert_eq!(of("v1.36.4", "kubelet"), State::Absent);
        assert_eq!(serde_json::to_value(State::Absent).unwrap(), "absent");
    }

    #[test]
    fn verify_reads_and_names_what_is_wrong() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let file = dir.path().join("file");
        for (name, contents) in [("a", "good"), ("b", "altered"), ("c", "truncated"), ("d", "missing")] {
            std::fs::write(&file, contents).unwrap();
            let artifact = store.adopt("etcd", "v1", name, "own:x", &file).unwrap();
            std::fs::set_permissions(&artifact.path, std::fs::Permissions::from_mode(0o755)).unwrap();
            match name {
                "b" => std::fs::write(&artifact.path, "ALTERED").unwrap(),
                "c" => std::fs::write(&artifact.path, "trunc").unwrap(),
                "d" => std::fs::remove_file(&artifact.path).unwrap(),
                _ => {}
            }
        }
        let states: Vec<_> = verify(&store).iter().map(|row| row.state).collect();
        assert_eq!(states, [State::Ok, State::Altered, State::Truncated, State::Missing]);
    }
}
