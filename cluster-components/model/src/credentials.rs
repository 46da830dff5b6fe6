//! Certificates with their keys, as `slipway-pki` hands them to `slipway-components`: neither knows the other.

use crate::Content;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// A certificate chain and its private key, both PEM. The key never shows in Debug.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// The certificate, then its issuers below the root, if any.
    pub certificate: String,
    /// PKCS #8.
    pub key: Content,
}

impl Credential {
    /// A kubeconfig in which `user` reaches `server` (`https://host:port`) and trusts `ca` (PEM). Cluster and context carry the cluster's name.
    #[must_use]
    pub fn kubeconfig(&self, cluster: &str, server: &str, ca: &str, user: &str) -> Content {
        let (ca, certificate, key) = (STANDARD.encode(ca), STANDARD.encode(&self.certificate), STANDARD.encode(&self.key.0));
        // Names are DNS labels or `system:…`, the rest is base64 and a URL: one pair of quotes at most is needed, and harmless elsewhere.
        Content::from(format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: \"{user}@{cluster}\"\nclusters:\n- name: \"{cluster}\"\n  cluster:\n    server: \"{server}\"\n    \
             certificate-authority-data: {ca}\ncontexts:\n- name: \"{user}@{cluster}\"\n  context:\n    cluster: \"{cluster}\"\n    user: \"{user}\"\nusers:\n\
             - name: \"{user}\"\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        ))
    }
}

/// What a Node's own components need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCredentials {
    /// Certificate of the cluster's CA.
    pub cluster_ca: String,
    /// kubelet → apiserver, `system:node:<name>`.
    pub kubelet_client: Credential,
    /// apiserver → kubelet: what the kubelet's port 10250 shows.
    pub kubelet_server: Credential,
    /// kube-proxy → apiserver.
    pub kube_proxy: Credential,
}

/// What a control-plane machine's components need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneCredentials {
    /// Key of the cluster's CA: kube-controller-manager signs certificate requests with it.
    pub cluster_ca_key: Content,
    /// Certificate of etcd's CA.
    pub etcd_ca: String,
    /// Certificate of the front proxy's CA.
    pub front_proxy_ca: String,
    /// Signs service-account tokens.
    pub service_account_key: Content,
    /// Verifies service-account tokens.
    pub service_account_public: String,
    /// What etcd shows its clients.
    pub etcd_server: Credential,
    /// What etcd shows its peers, and uses towards them.
    pub etcd_peer: Credential,
    /// apiserver → etcd.
    pub etcd_client: Credential,
    /// What the apiserver shows on 6443.
    pub api_server: Credential,
    /// apiserver → kubelets.
    pub api_server_kubelet_client: Credential,
    /// apiserver → aggregated APIs.
    pub front_proxy_client: Credential,
    /// kube-controller-manager, as client and on its own port.
    pub controller_manager: Credential,
    /// kube-scheduler, as client and on its own port.
    pub scheduler: Credential,
    /// cloud-controller-manager → apiserver.
    pub cloud_controller_manager: Credential,
    /// The same machine's Node.
    pub node: NodeCredentials,
}
