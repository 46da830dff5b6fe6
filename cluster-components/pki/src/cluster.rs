//! All authorities of one cluster, as they are kept in the Secret `<cluster>-pki`.

use crate::authority::{Authority, LEAF_DAYS};
use crate::leaf::text;
use crate::{AuthorityKind, Identity, Leaf, PkiError};
use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;

/// A cluster's authorities and its service-account key.
#[derive(Debug, Clone)]
pub struct ClusterPki {
    /// Signs what the apiserver authenticates.
    pub cluster: Authority,
    /// Signs etcd and its clients.
    pub etcd: Authority,
    /// Signs the apiserver towards aggregated APIs.
    pub front_proxy: Authority,
    /// Signs agents and the operator.
    pub agent: Authority,
    /// Signs service-account tokens.
    pub service_account: ServiceAccountKey,
}

/// The key that signs service-account tokens. Never shown.
#[derive(Clone)]
pub struct ServiceAccountKey {
    private: SecretString,
    public: String,
}

impl ServiceAccountKey {
    /// Signs; PKCS #8 PEM.
    #[must_use]
    pub fn private(&self) -> &SecretString {
        &self.private
    }

    /// Verifies; SubjectPublicKeyInfo PEM.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }
}

impl fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAccountKey([not shown])")
    }
}

impl ClusterPki {
    /// Makes a new one. `cluster` names it in the certificates' subjects, for people only.
    pub fn generate(cluster: &str, now: Timestamp) -> Result<Self, PkiError> {
        let pair = KeyPair::generate().map_err(|error| PkiError::crypto("make the service-account key", error))?;
        Ok(Self {
            cluster: Authority::generate(&format!("{cluster} cluster CA"), now)?,
            etcd: Authority::generate(&format!("{cluster} etcd CA"), now)?,
            front_proxy: Authority::generate(&format!("{cluster} front-proxy CA"), now)?,
            agent: Authority::generate(&format!("{cluster} agent CA"), now)?,
            service_account: ServiceAccountKey { private: SecretString::from(pair.serialize_pem()), public: pair.public_key_pem() },
        })
    }

    /// An authority.
    #[must_use]
    pub fn authority(&self, kind: AuthorityKind) -> &Authority {
        match kind {
            AuthorityKind::Cluster => &self.cluster,
            AuthorityKind::Etcd => &self.etcd,
            AuthorityKind::FrontProxy => &self.front_proxy,
            AuthorityKind::Agent => &self.agent,
        }
    }

    /// Makes a key and a certificate, valid for a year. Every call makes another one: keep what a machine's plan shall carry.
    pub fn issue(&self, identity: &Identity, now: Timestamp) -> Result<Leaf, PkiError> {
        self.issue_for_days(identity, now, LEAF_DAYS)
    }

    /// The same for a shorter life, e.g. the operator's own certificates, made anew at each start.
    pub fn issue_for_days(&self, identity: &Identity, now: Timestamp, days: i32) -> Result<Leaf, PkiError> {
        self.authority(identity.authority()).issue(identity, now, days.clamp(1, LEAF_DAYS))
    }

    /// Signs an agent's certificate request (PEM) as a server certificate of this life ([`AGENT_LIFE`](crate::AGENT_LIFE) at most). Subject and names come
    /// from the arguments, which are the Machine record's, and never from the request; only its key is taken, and it must be P-256 and sign the request.
    pub fn sign_agent(
        &self,
        csr: &str,
        machine_uid: &str,
        addresses: &[String],
        now: Timestamp,
        life: SignedDuration,
    ) -> Result<String, PkiError> {
        self.agent.sign_agent(csr, machine_uid, addresses, now, life)
    }

    /// When the first of the authorities ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        let ends = [&self.cluster, &self.etcd, &self.front_proxy, &self.agent].map(Authority::not_after);
        ends.into_iter().min().unwrap_or(Timestamp::MIN)
    }

    /// As a Secret's data.
    #[must_use]
    pub fn to_secret(&self) -> BTreeMap<String, Vec<u8>> {
        let mut secret = BTreeMap::new();
        self.cluster.put("cluster-ca", &mut secret);
        self.etcd.put("etcd-ca", &mut secret);
        self.front_proxy.put("front-proxy-ca", &mut secret);
        self.agent.put("agent-ca", &mut secret);
        secret.insert("sa.key".into(), self.service_account.private.expose_secret().as_bytes().to_vec());
        secret.insert("sa.pub".into(), self.service_account.public.clone().into_bytes());
        secret
    }

    /// From a Secret's data. Everything is read and checked now, so that later use cannot meet a broken half.
    pub fn from_secret(secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, PkiError> {
        let (private, public) = (SecretString::from(text("sa.key", secret)?), text("sa.pub", secret)?);
        let pair = KeyPair::from_pem(private.expose_secret())
            .map_err(|_| PkiError::Malformed { key: "sa.key".into(), problem: "no private key in PEM" })?;
        // Line ends may have been changed by whoever copied the Secret.
        if !pair.public_key_pem().lines().eq(public.lines()) {
            return Err(PkiError::Mismatch { certificate: "sa.pub".into(), key: "sa.key".into() });
        }
        Ok(Self {
            cluster: Authority::take("cluster-ca", secret)?,
            etcd: Authority::take("etcd-ca", secret)?,
            front_proxy: Authority::take("front-proxy-ca", secret)?,
            agent: Authority::take("agent-ca", secret)?,
            service_account: ServiceAccountKey { private, public },
        })
    }
}
