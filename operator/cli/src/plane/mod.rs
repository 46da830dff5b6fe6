//! The local cloud and the management plane on it: one machine of that cloud with etcd, kube-apiserver, kube-controller-manager and the operator as
//! units under the same agent that runs on every machine.
//!
//! ```text
//! daemon ──► network ──► machine ──► claim ──► agent's build ──► plan ──► API answers ──► CRDs, RBAC, namespace
//!                                     ▲
//! identity (keys, token: on disk before anything is made with them)
//! ```
//! Each step looks first and does only what is missing, so `up` may be ended anywhere and carries on when it is run again.

pub mod agent;
pub mod daemon;
pub mod identity;
pub mod machine;
pub mod objects;
pub mod own;
mod way;

pub use way::Way;

use crate::outcome::refused;
use crate::place::{Place, write_private};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use slipway_cloud_api::ClusterKey;
use std::path::PathBuf;

/// Name of the one management machine, as `slipway logs` takes it.
pub const MACHINE: &str = "management-cp-0";

/// UID under which the cloud keeps the management plane. No Cluster object has it: those are made by an apiserver.
pub const CLUSTER_UID: &str = "management";

/// The management plane towards the cloud.
pub fn key() -> Result<ClusterKey> {
    Ok(ClusterKey { uid: CLUSTER_UID.to_owned(), name: "management".parse().context("the management plane's name")? })
}

/// What a local cloud was first started with; later runs must not say otherwise, for machines carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Prefix of names on the host.
    pub name: String,
    /// Its addresses.
    pub range: Ipv4Net,
    /// Where artifacts are.
    pub store: PathBuf,
}

impl Settings {
    /// What is on disk, if anything.
    pub fn read(place: &Place) -> Result<Option<Self>> {
        let path = place.settings();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is not what `slipway up` wrote", path.display()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Refuses to go on with other settings than those that are there.
    pub fn agree(&self, place: &Place) -> Result<()> {
        let Some(there) = Self::read(place)? else { return Ok(()) };
        let differ = |what: &str, there: &dyn std::fmt::Display, asked: &dyn std::fmt::Display| {
            refused(format!(
                "the local cloud in {} was started with --{what} {there}, not {asked}: leave --{what} out or say the same, choose another --state, or `slipway down` first",
                place.root().display()
            ))
        };
        if there.name != self.name {
            return Err(differ("name", &there.name, &self.name));
        }
        if there.range != self.range {
            return Err(differ("range", &there.range, &self.range));
        }
        if there.store != self.store {
            return Err(differ("store", &there.store.display(), &self.store.display()));
        }
        Ok(())
    }

    /// Writes them down before anything is made with them.
    pub fn write(&self, place: &Place) -> Result<()> {
        if Self::read(place)?.as_ref() == Some(self) {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(self).context("writing settings")?;
        write_private(&place.settings(), &bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn a_living_cloud_keeps_its_settings() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path())).unwrap();
        let settings = Settings { name: "slw".into(), range: "198.18.0.0/20".parse().unwrap(), store: "/store".into() };
        settings.agree(&place).unwrap();
        settings.write(&place).unwrap();
        settings.agree(&place).unwrap();
        let other = Settings { name: "other".into(), ..settings };
        let error = other.agree(&place).unwrap_err();
        assert_eq!(Outcome::of_error(&error), Outcome::Refused);
        assert!(error.to_string().contains("--name slw, not other"), "{error}");
    }
}
