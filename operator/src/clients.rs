//! Clients of Kubernetes APIs, made with the settings that all of ours need.

use async_trait::async_trait;
use http::Uri;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use secrecy::{ExposeSecret, SecretString};
use std::path::Path;
use std::time::Duration;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No kubeconfig, or one that is not understood.
    #[error("no client for {what}: {problem}")]
    Config {
        /// Which API.
        what: String,
        /// What is wrong. Kubeconfigs are never quoted.
        problem: String,
    },
}

/// Ways into workload clusters.
#[async_trait]
pub trait Workloads: Send + Sync {
    /// A client by the almighty kubeconfig that the operator renders for itself.
    async fn client(&self, cluster: &str, kubeconfig: &SecretString) -> Result<Client, ClientError>;
}

/// Over the network.
#[derive(Debug, Default, Clone, Copy)]
pub struct NetworkWorkloads;

#[async_trait]
impl Workloads for NetworkWorkloads {
    async fn client(&self, cluster: &str, kubeconfig: &SecretString) -> Result<Client, ClientError> {
        workload(cluster, kubeconfig).await
    }
}

/// The management API's: by a kubeconfig, or the way kube finds it (`KUBECONFIG`, the pod's service account).
pub async fn management(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let fail = |problem: String| ClientError::Config { what: "the management API".to_owned(), problem };
    let config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|e| fail(e.to_string()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(|e| fail(e.to_string()))?
        }
        None => Config::infer().await.map_err(|e| fail(e.to_string()))?,
    };
    client(config).map_err(fail)
}

async fn workload(cluster: &str, kubeconfig: &SecretString) -> Result<Client, ClientError> {
    let fail = |problem: String| ClientError::Config { what: format!("the API of cluster {cluster}"), problem };
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig.expose_secret()).map_err(|_| fail("its kubeconfig is not understood".to_owned()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(|e| fail(e.to_string()))?;
    client(config).map_err(fail)
}

fn client(mut config: Config) -> Result<Client, String> {
    // kube would repeat 429, 503 and 504 by itself: of an eviction that is a disruption budget's refusal, which must be seen and told.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(2));
    let address: Uri = config.cluster_url.clone();
    Client::try_from(config).map_err(|e| format!("{address}: {e}"))
}
