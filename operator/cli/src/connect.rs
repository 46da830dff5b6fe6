//! The way to the management cluster, and from there to the clusters in it.

use crate::args::Global;
use crate::outcome::refused;
use crate::place::Place;
use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;

/// How long a connection and a quiet read may take. kube's own read timeout is off, so that watches live.
const CONNECT: Duration = Duration::from_secs(5);

/// The management cluster, and the namespace that commands look into.
#[derive(Clone)]
pub struct Management {
    /// Its API.
    pub client: Client,
    /// Where the Clusters are.
    pub namespace: String,
    /// Where the local cloud lives, if this is its management plane.
    pub place: Option<Place>,
}

impl Management {
    /// By the flags; without flags, the local cloud's management plane where there is one, else what kubectl would take.
    pub async fn connect(global: &Global) -> Result<Self> {
        let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
        let place = Place::new(global.state.as_deref())?;
        let own = place.management_kubeconfig();
        let file = global.kubeconfig.as_deref().or_else(|| (global.context.is_none() && own.exists()).then_some(own.as_path()));
        let is_own = file == Some(own.as_path());
        let (mut config, whence) = match file {
            Some(path) => (read(path, &options).await?, path.display().to_string()),
            None => {
                let found = Config::from_kubeconfig(&options).await.map_err(|e| {
                    refused(format!(
                        "no management cluster is known ({e}): `slipway up` starts one here, --kubeconfig or --context name another"
                    ))
                })?;
                (found, "the current kubeconfig".to_owned())
            }
        };
        config.connect_timeout = Some(CONNECT);
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).with_context(|| format!("the API that {whence} names"))?;
        Ok(Self { client, namespace, place: is_own.then_some(place) })
    }
}

async fn read(path: &Path, options: &KubeConfigOptions) -> Result<Config> {
    let parsed = Kubeconfig::read_from(path).with_context(|| format!("the kubeconfig {}", path.display()))?;
    Config::from_custom_kubeconfig(parsed, options).await.with_context(|| format!("the kubeconfig {}", path.display()))
}

/// A client out of a kubeconfig's text.
pub async fn client_of(text: &str) -> Result<Client> {
    let parsed = Kubeconfig::from_yaml(text).context("the kubeconfig")?;
    let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.context("the kubeconfig")?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("the API that the kubeconfig names")
}

/// An answer within `within`, with the thing that was tried in the error. kube's errors end in their source, which says the most.
pub async fn asked<T>(what: &str, within: Duration, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => {
            let message = status.message.clone();
            Err(anyhow!(kube::Error::Api(status)).context(format!("{what}: {message}")))
        }
        Ok(Err(e)) => Err(anyhow!(e)
            .context(format!("{what}: the management API does not answer (`slipway doctor` and `slipway up` look after the local one)"))),
        Err(_) => Err(anyhow!("{what}: no answer within {within:?}")),
    }
}
