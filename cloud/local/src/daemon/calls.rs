//! The calls, without HTTP: validate, decide, record, poke. Every one may be repeated.

mod balancers;
mod instances;
mod looking;
mod networks;

pub use instances::Press;

use super::Daemon;
use crate::host::HostError;
use crate::machine;
use crate::network;
use crate::records::MachineRecord;
use crate::tls::Role;
use crate::wire::Certificate;
use slipway_cloud_api::CloudError;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Names of the calls that faults can be injected into.
pub const NAMES: &[&str] = &[
    "inventory",
    "changed",
    "clusters",
    "ensure_network",
    "delete_network",
    "ensure_load_balancer",
    "set_targets",
    "delete_load_balancer",
    "create_instance",
    "start_instance",
    "power_off",
    "reboot",
    "delete_instance",
    "set_routes",
    "journal",
    "console",
    "issue_certificate",
];

/// UIDs become file names: letters, digits and dashes, as Kubernetes makes them.
pub fn valid_uid(uid: &str) -> bool {
    (1..=64).contains(&uid.len()) && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn check_uid(call: &str, what: &str, uid: &str) -> Result<(), CloudError> {
    if valid_uid(uid) { Ok(()) } else { Err(CloudError::terminal(call, format!("{what} {uid:?} must be 1 to 64 letters, digits or '-'"))) }
}

/// A failure of the host's may pass by itself.
fn host_error(call: &str) -> impl Fn(HostError) -> CloudError + '_ {
    move |e| CloudError::retry(call, e)
}

impl Daemon {
    async fn put_machine(&self, call: &str, record: MachineRecord) -> Result<(), CloudError> {
        self.store.put_machine(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        if let Some(machine) = self.world().machines.get_mut(&record.id) {
            machine.record = record;
            machine.poke.notify_one();
        }
        self.bump(&uid);
        Ok(())
    }

    /// A number never given before. Written before it is used.
    async fn next_id(&self, call: &str) -> Result<u64, CloudError> {
        let mut counters = self.world().counters.clone();
        counters.last_id += 1;
        self.store.put_counters(&counters).await.map_err(host_error(call))?;
        let id = counters.last_id;
        self.world().counters = counters;
        Ok(id)
    }

    async fn add_machine(self: &Arc<Self>, call: &str, record: MachineRecord) -> Result<(), CloudError> {
        self.store.put_machine(&record).await.map_err(host_error(call))?;
        let uid = record.cluster.uid.clone();
        self.keep_machine(record);
        self.bump(&uid);
        Ok(())
    }

    /// A client certificate.
    pub fn issue_certificate(&self, role: &str) -> Result<Certificate, CloudError> {
        let call = format!("issue a certificate for {role:?}");
        if Role::parse(role).is_none() {
            return Err(CloudError::terminal(&call, "roles are admin, operator and ccm:<cluster uid>"));
        }
        let (cert, key) = self.pki.client(role).map_err(|e| CloudError::retry(&call, e))?;
        Ok(Certificate { cert, key, ca: self.pki.ca_pem().to_owned() })
    }

    /// Begins with what is on disk: clears what has no record, and takes into care what has.
    pub(crate) async fn resume(self: &Arc<Self>) -> Result<(), HostError> {
        network::ensure_core(&self.layout).await?;
        let (networks, machines) = (self.store.networks()?, self.store.machines()?);
        let known: BTreeSet<&str> = machines.iter().map(|m| m.id.as_str()).collect();
        for entry in std::fs::read_dir(self.layout.state.join("machines")).into_iter().flatten().flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(id.as_str()) {
                machine::discard_disk(&self.layout, &id)?;
            }
        }
        tracing::info!(networks = networks.len(), machines = machines.len(), "taking into care");
        networks.into_iter().for_each(|record| self.keep_network(record));
        machines.into_iter().for_each(|record| self.keep_machine(record));
        Ok(())
    }
}
