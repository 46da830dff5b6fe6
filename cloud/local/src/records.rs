//! What the daemon must not forget: one JSON file per resource, written before its effect, removed after the effect is undone.

use crate::host::{self, HostError};
use crate::layout::Layout;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use slipway_cloud_api::{ClusterKey, Route};
use slipway_model::MachineName;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A cluster's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkRecord {
    /// Whose.
    pub cluster: ClusterKey,
    /// Which /24 of the range.
    pub number: u32,
    /// Address given to a machine last.
    pub last_address: Option<Ipv4Addr>,
    /// Pod routes.
    pub routes: BTreeSet<Route>,
    /// To be removed.
    pub deleting: bool,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Power {
    /// Should run.
    On,
    /// Should not.
    Off,
}

/// What machines of both kinds have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineRecord {
    /// Instance or load balancer id.
    pub id: String,
    /// Whose.
    pub cluster: ClusterKey,
    /// Number of its network.
    pub network: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Should it run?
    pub power: Power,
    /// Boots asked for: a running machine of an earlier boot is rebooted.
    pub boot: u64,
    /// `boot_id` of the host under which it was last seen running: another one means that the host has rebooted since.
    pub seen: Option<String>,
    /// Why it was powered off, if not by a call.
    pub died: Option<String>,
    /// To be removed.
    pub deleting: bool,
    /// Instance or load balancer.
    pub kind: Kind,
}

/// What a machine is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, tag = "type")]
pub enum Kind {
    /// One that was asked for.
    #[serde(rename_all = "camelCase")]
    Instance {
        /// The Machine's name.
        name: MachineName,
        /// Idempotency key.
        machine_uid: String,
        /// Failure domain.
        zone: String,
        /// Fault.
        never_boot: bool,
    },
    /// A load balancer's.
    #[serde(rename_all = "camelCase")]
    Balancer {
        /// Front and back port.
        port: u16,
        /// Instance ids.
        targets: BTreeSet<String>,
    },
}

/// What is written once, at the first start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counters {
    /// Id number given last.
    pub last_id: u64,
    /// Host settings that were changed, and their values before.
    pub sysctls: std::collections::BTreeMap<String, String>,
}

/// The records' directory.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
}

impl Store {
    /// Makes the directories.
    pub fn open(layout: &Layout) -> Result<Self, HostError> {
        for directory in [layout.records("networks"), layout.records("machines"), layout.state.join("machines"), layout.runc()] {
            host::file("creating", &directory, std::fs::create_dir_all(&directory))?;
        }
        Ok(Self { layout: layout.clone() })
    }

    fn network(&self, uid: &str) -> PathBuf {
        self.layout.records("networks").join(format!("{uid}.json"))
    }
    fn machine(&self, id: &str) -> PathBuf {
        self.layout.records("machines").join(format!("{id}.json"))
    }
    fn counters(&self) -> PathBuf {
        self.layout.state.join("counters.json")
    }

    async fn put<T: Serialize>(path: PathBuf, record: &T) -> Result<(), HostError> {
        let text = serde_json::to_vec(record).map_err(|e| HostError::Refused(e.to_string()))?;
        host::blocking(move || host::write_durable(&path, &text)).await
    }

    /// Keeps a network.
    pub async fn put_network(&self, record: &NetworkRecord) -> Result<(), HostError> {
        Self::put(self.network(&record.cluster.uid), record).await
    }
    /// Keeps a machine.
    pub async fn put_machine(&self, record: &MachineRecord) -> Result<(), HostError> {
        Self::put(self.machine(&record.id), record).await
    }
    /// Keeps the counters.
    pub async fn put_counters(&self, record: &Counters) -> Result<(), HostError> {
        Self::put(self.counters(), record).await
    }
    /// Forgets a network.
    pub async fn drop_network(&self, uid: &str) -> Result<(), HostError> {
        let path = self.network(uid);
        host::blocking(move || host::remove_durable(&path)).await
    }
    /// Forgets a machine.
    pub async fn drop_machine(&self, id: &str) -> Result<(), HostError> {
        let path = self.machine(id);
        host::blocking(move || host::remove_durable(&path)).await
    }

    /// Networks on record.
    pub fn networks(&self) -> Result<Vec<NetworkRecord>, HostError> {
        self.all("networks")
    }
    /// Machines on record.
    pub fn machines(&self) -> Result<Vec<MachineRecord>, HostError> {
        self.all("machines")
    }
    /// The counters.
    pub fn counters_or_new(&self) -> Result<Counters, HostError> {
        read(&self.counters()).map(Option::unwrap_or_default)
    }

    fn all<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, HostError> {
        let directory = self.layout.records(kind);
        let mut found = Vec::new();
        for entry in host::file("listing", &directory, std::fs::read_dir(&directory))? {
            let path = host::file("listing", &directory, entry)?.path();
            // What ends in .tmp was never finished: its effect had not begun.
            if path.extension().is_some_and(|e| e == "json") {
                found.extend(read(&path)?);
            }
        }
        Ok(found)
    }
}

/// Reads a JSON file; none where it is missing. One that cannot be understood stops everything: guessing would lose machines.
pub fn read<T: DeserializeOwned>(path: &std::path::Path) -> Result<Option<T>, HostError> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(HostError::File { what: "reading", path: path.into(), why }),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| HostError::Refused(format!("{} is damaged: {e}; `slipway-local remove` clears the whole state", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn store(state: &std::path::Path) -> Store {
        Store::open(&Layout::new(state, state, "slw", "198.18.0.0/20".parse().unwrap()).unwrap()).unwrap()
    }

    fn network() -> NetworkRecord {
        NetworkRecord {
            cluster: ClusterKey { uid: "u1".into(), name: "demo".parse().unwrap() },
            number: 1,
            last_address: None,
            routes: BTreeSet::new(),
            deleting: false,
        }
    }

    #[tokio::test]
    async fn what_was_written_is_found_and_what_was_half_written_is_not() {
        let state = tempfile::tempdir().unwrap();
        let records = store(state.path());
        records.put_network(&network()).await.unwrap();
        std::fs::write(state.path().join("records/networks/u2.tmp"), "{\"clus").unwrap();
        assert_eq!(store(state.path()).networks().unwrap(), [network()]);
        records.drop_network("u1").await.unwrap();
        records.drop_network("u1").await.unwrap();
        assert_eq!(records.networks().unwrap(), []);
    }

    #[test]
    fn a_damaged_record_is_named_not_skipped() {
        let state = tempfile::tempdir().unwrap();
        let records = store(state.path());
        std::fs::write(state.path().join("records/networks/u1.json"), "{}").unwrap();
        let said = records.networks().unwrap_err().to_string();
        assert!(said.contains("u1.json") && said.contains("damaged"), "{said}");
    }
}
