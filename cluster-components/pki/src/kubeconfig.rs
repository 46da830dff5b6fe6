//! Kubeconfigs.

use crate::Leaf;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};

/// A kubeconfig (YAML) in which user `user` reaches `server` (`https://host:port`), trusting `ca_pem`. Context, cluster and file carry `cluster`'s name.
#[must_use]
pub fn kubeconfig(cluster: &str, server: &str, ca_pem: &str, user: &str, leaf: &Leaf) -> SecretString {
    let (ca, certificate) = (STANDARD.encode(ca_pem), STANDARD.encode(leaf.certificate()));
    let key = STANDARD.encode(leaf.key().expose_secret());
    // Names are DNS labels and the rest is base64 and a URL: nothing needs quoting.
    SecretString::from(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {user}@{cluster}\nclusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         contexts:\n- name: {user}@{cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
    ))
}
