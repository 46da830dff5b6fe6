//! Kubeconfigs.

use crate::Leaf;
use secrecy::SecretString;

/// A kubeconfig (YAML) in which user `user` reaches `server` (`https://host:port`), trusting `ca_pem`. Context, cluster and file carry `cluster`'s name.
#[must_use]
pub fn kubeconfig(cluster: &str, server: &str, ca_pem: &str, user: &str, leaf: &Leaf) -> SecretString {
    SecretString::from(String::from_utf8_lossy(&leaf.credential().kubeconfig(cluster, server, ca_pem, user).0).into_owned())
}
