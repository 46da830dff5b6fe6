//! A cluster's authorities as the operator holds them in memory, and the short-lived certificates that it makes for itself from them.

use crate::etcd::{EtcdError, EtcdIdentity};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use slipway_agent_api::OperatorIdentity;
use slipway_pki::{ClusterPki, Identity, PkiError, kubeconfig};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Life of the operator's own certificates.
const DAYS: i32 = 1;
/// When they are made anew: connections are then opened anew too.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(12);

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The Secret is broken.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What was made from it is not usable.
    #[error(transparent)]
    Own(#[from] slipway_agent_api::AgentError),
    /// The same, of the way to etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
}

/// The keys of one cluster.
pub struct Keys {
    /// Its authorities.
    pub pki: ClusterPki,
    /// The operator towards its agents.
    pub operator: Arc<OperatorIdentity>,
    /// The operator towards its etcd.
    pub etcd: EtcdIdentity,
    super_admin: slipway_pki::Leaf,
    fingerprint: String,
    version: String,
    made: Timestamp,
}

impl Keys {
    /// From the Secret's data. `version` is the Secret's uid and resourceVersion.
    pub fn new(data: &BTreeMap<String, Vec<u8>>, version: String, now: Timestamp) -> Result<Self, KeysError> {
        let pki = ClusterPki::from_secret(data)?;
        let own = pki.issue_for_days(&Identity::Operator, now, DAYS)?;
        let operator = Arc::new(OperatorIdentity::from_pem(own.certificate(), own.key().expose_secret(), pki.agent.certificate())?);
        let etcd = EtcdIdentity::new(&pki.issue_for_days(&Identity::EtcdOperator, now, DAYS)?, pki.etcd.certificate())?;
        let super_admin = pki.issue_for_days(&Identity::SuperAdmin, now, DAYS)?;
        let authorities =
            [pki.cluster.certificate(), pki.etcd.certificate(), pki.front_proxy.certificate(), pki.agent.certificate()].concat();
        let fingerprint = hex::encode(Sha256::digest(authorities)).chars().take(16).collect();
        Ok(Self { pki, operator, etcd, super_admin, fingerprint, version, made: now })
    }

    /// Whether they still are what that version of the Secret says, and fresh enough.
    #[must_use]
    pub fn are_current(&self, version: &str, now: Timestamp) -> bool {
        self.version == version && now.duration_since(self.made) < RENEW_AFTER
    }

    /// The almighty kubeconfig for `server`, for the operator itself.
    #[must_use]
    pub fn kubeconfig(&self, cluster: &str, server: &str) -> SecretString {
        kubeconfig(cluster, server, self.pki.cluster.certificate(), "kubernetes-super-admin", &self.super_admin)
    }

    /// Identity of the authorities: what was issued by others does not fit any more.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// When the operator's own certificates were made: connections do not outlive them.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.made
    }

    /// What a rendered plan depends on beside the machine's own certificates.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}
