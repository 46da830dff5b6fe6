//! The operator's and the cloud-controller-manager's way to the daemon: [`slipway_cloud_api::Cloud`] over HTTPS with client certificates.
//!
//! One call is one request with one deadline. Nothing is repeated behind the caller's back, save what provably never left this process: a
//! pooled connection that turns out closed gives the request back, and it goes out over a new one.

use crate::tls;
use crate::wire::{Certificate, CertificateRequest, Changes, Clusters, Faults, REVISION_HEADER, Routes, Status, Targets, Text};
use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use slipway_cloud_api::{
    Cloud, CloudError, ClusterKey, Instance, InstanceRequest, Inventory, LoadBalancerRequest, LoadBalancerState, NetworkState, Route,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// An answer is never larger than this.
const ANSWER_MAX: usize = 16 << 20;
/// Idle connections kept.
const POOL_MAX: usize = 4;

/// A client of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct LocalClient(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    pool: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// Revision of each cluster's last inventory: a change that falls between an inventory and [`Cloud::changed`] is not missed.
    seen: Mutex<HashMap<String, u64>>,
}

impl std::fmt::Debug for LocalClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalClient").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl LocalClient {
    /// A client for the daemon at `address` (`https://IP:PORT` or `IP:PORT`). Reads the certificates; connects when it is used.
    pub fn connect(address: &str, ca_pem: &str, cert_pem: &str, key_pem: &str) -> Result<Self, CloudError> {
        let call = format!("connect to the local cloud at {address}");
        let bare = address.strip_prefix("https://").unwrap_or(address).trim_end_matches('/');
        let address: SocketAddr =
            bare.parse().map_err(|_| CloudError::terminal(&call, "the address must be https://IP:PORT, e.g. https://198.18.0.1:7450"))?;
        let tls = tls::client_config(ca_pem, cert_pem, key_pem).map_err(|e| CloudError::terminal(&call, e))?;
        Ok(Self(Arc::new(Inner { address, tls: Arc::new(tls), pool: Mutex::default(), seen: Mutex::default() })))
    }

    /// A client with the administrator's certificate out of the daemon's state directory.
    pub fn from_dir(state: &Path) -> Result<Self, CloudError> {
        let read = |name: &str| {
            let path = state.join(name);
            std::fs::read_to_string(&path).map_err(|e| {
                CloudError::retry("connect to the local cloud", format!("reading {}: {e}; has slipway-local started here?", path.display()))
            })
        };
        Self::connect(read("endpoint")?.trim(), &read("pki/ca.crt")?, &read("pki/admin.crt")?, &read("pki/admin.key")?)
    }

    /// What the daemon says about itself.
    pub async fn status(&self) -> Result<Status, CloudError> {
        self.get("status", "/v1/status").await
    }

    /// Clusters that have anything in this cloud.
    pub async fn clusters(&self) -> Result<Vec<ClusterKey>, CloudError> {
        Ok(self.get::<Clusters>("list clusters", "/v1/clusters").await?.clusters)
    }

    /// Sets the pod routes of a cluster's network: the whole list. Repeating it is free.
    pub async fn set_routes(&self, cluster: &ClusterKey, routes: &[Route]) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/routes", cluster.uid);
        self.send(&format!("set routes of {}", cluster.name), Method::PUT, &path, &Routes { routes: routes.to_vec() }).await
    }

    /// Pulls the plug of an instance: everything in it dies at once, its disk stays.
    pub async fn power_off(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        self.act(cluster, id, "power-off").await
    }

    /// Pulls the plug and puts it back.
    pub async fn reboot(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        self.act(cluster, id, "reboot").await
    }

    /// The last lines of an instance's journal, or of one unit's. Works while the instance runs.
    pub async fn journal(&self, cluster: &ClusterKey, id: &str, unit: Option<&str>, lines: u32) -> Result<String, CloudError> {
        let unit = unit.map(|u| format!("&unit={u}")).unwrap_or_default();
        let path = format!("/v1/clusters/{}/instances/{id}/journal?lines={lines}{unit}", cluster.uid);
        Ok(self.get::<Text>(&format!("read the journal of {id}"), &path).await?.text)
    }

    /// What an instance wrote to its console. Works for stopped ones too.
    pub async fn console(&self, cluster: &ClusterKey, id: &str) -> Result<String, CloudError> {
        let path = format!("/v1/clusters/{}/instances/{id}/console", cluster.uid);
        Ok(self.get::<Text>(&format!("read the console of {id}"), &path).await?.text)
    }

    /// Faults being injected.
    pub async fn faults(&self) -> Result<Faults, CloudError> {
        self.get("read faults", "/v1/faults").await
    }

    /// Replaces the faults to inject; `Faults::default()` ends them.
    pub async fn set_faults(&self, faults: &Faults) -> Result<(), CloudError> {
        self.send("set faults", Method::PUT, "/v1/faults", faults).await
    }

    /// Issues a client certificate for a role: `admin`, `operator` or `ccm:<cluster uid>`.
    pub async fn issue_certificate(&self, role: &str) -> Result<Certificate, CloudError> {
        let request = CertificateRequest { role: role.to_owned() };
        self.send(&format!("issue a certificate for {role}"), Method::POST, "/v1/certificates", &request).await
    }

    async fn act(&self, cluster: &ClusterKey, id: &str, verb: &str) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/instances/{id}/{verb}", cluster.uid);
        self.send(&format!("{verb} instance {id}"), Method::POST, &path, &serde_json::json!({})).await
    }

    async fn get<T: DeserializeOwned>(&self, call: &str, path: &str) -> Result<T, CloudError> {
        self.call(call, Method::GET, path, Bytes::new(), DEADLINE).await.map(|(answer, _)| answer)
    }

    async fn send<T: DeserializeOwned>(&self, call: &str, method: Method, path: &str, body: &impl Serialize) -> Result<T, CloudError> {
        let body = serde_json::to_vec(body).map_err(|e| CloudError::terminal(call, e))?;
        self.call(call, method, path, body.into(), DEADLINE).await.map(|(answer, _)| answer)
    }

    async fn delete(&self, call: &str, path: &str) -> Result<(), CloudError> {
        self.call(call, Method::DELETE, path, Bytes::new(), DEADLINE).await.map(|(answer, _)| answer)
    }

    /// One request, one deadline. Also gives the revision that the answer shows, where it has one.
    async fn call<T: DeserializeOwned>(
        &self,
        call: &str,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<(T, Option<u64>), CloudError> {
        let exchange = async {
            let mut request = Request::builder().method(method).uri(path).header("host", self.0.address.to_string());
            if !body.is_empty() {
                request = request.header("content-type", "application/json");
            }
            let request = request.body(Full::new(body)).map_err(|e| CloudError::terminal(call, e))?;
            let (mut sender, response) = self.exchange(call, request).await?;
            let (head, body) = response.into_parts();
            let lost = |e: &dyn std::fmt::Display| CloudError::retry(call, format!("the answer broke off: {e}"));
            let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|e| lost(&e))?.to_bytes();
            if sender.ready().await.is_ok() {
                let mut pool = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner);
                if pool.len() < POOL_MAX {
                    pool.push(sender);
                }
            }
            let garbled = |e| CloudError::retry(call, format!("{} with a body that is not understood: {e}", head.status));
            if head.status.is_success() {
                let revision = head.headers.get(REVISION_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
                let answer = if body.is_empty() { b"null".as_slice() } else { &body };
                return Ok((serde_json::from_slice(answer).map_err(garbled)?, revision));
            }
            Err(serde_json::from_slice::<CloudError>(&body).map_err(garbled)?)
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(CloudError::retry(call, format!("no answer from slipway-local at {} within {deadline:?}", self.0.address))),
        }
    }

    /// Sends over an idle connection, or over a new one where that was closed before anything went out.
    async fn exchange(
        &self,
        call: &str,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), CloudError> {
        let lost = |e: hyper::Error| CloudError::retry(call, format!("the connection to slipway-local was lost: {e}"));
        loop {
            let idle = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut sender) = idle else { break };
            if !sender.is_ready() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(lost(failed.into_error())),
                },
            }
        }
        let mut sender = self.dial().await.map_err(|e| {
            CloudError::retry(call, format!("cannot reach slipway-local at {}: {e}; is the daemon running?", self.0.address))
        })?;
        let response = sender.send_request(request).await.map_err(lost)?;
        Ok((sender, response))
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::connect(self.0.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.0.address.ip().into());
        let stream = tokio_rustls::TlsConnector::from(self.0.tls.clone()).connect(name, tcp).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("a connection to slipway-local ended: {e}");
            }
        });
        Ok(sender)
    }
}

// === impl Cloud ===

#[async_trait]
impl Cloud for LocalClient {
    async fn inventory(&self, cluster: &ClusterKey) -> Result<Inventory, CloudError> {
        let path = format!("/v1/clusters/{}/inventory", cluster.uid);
        let call = format!("read the inventory of {}", cluster.name);
        let (inventory, revision) = self.call(&call, Method::GET, &path, Bytes::new(), DEADLINE).await?;
        if let Some(revision) = revision {
            self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster.uid.clone(), revision);
        }
        Ok(inventory)
    }

    async fn changed(&self, cluster: &ClusterKey, at_most: Duration) -> Result<(), CloudError> {
        let since = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).get(&cluster.uid).copied().unwrap_or(0);
        let path = format!("/v1/clusters/{}/changes?since={since}&timeoutMs={}", cluster.uid, at_most.as_millis());
        let call = format!("watch {}", cluster.name);
        let (Changes { revision }, _) = self.call(&call, Method::GET, &path, Bytes::new(), at_most + DEADLINE).await?;
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(cluster.uid.clone(), revision);
        Ok(())
    }

    async fn ensure_network(&self, cluster: &ClusterKey) -> Result<NetworkState, CloudError> {
        let path = format!("/v1/clusters/{}/network", cluster.uid);
        self.send(&format!("make the network of {}", cluster.name), Method::PUT, &path, cluster).await
    }

    async fn ensure_load_balancer(&self, request: &LoadBalancerRequest) -> Result<LoadBalancerState, CloudError> {
        let path = format!("/v1/clusters/{}/load-balancer", request.cluster.uid);
        self.send(&format!("make the load balancer of {}", request.cluster.name), Method::PUT, &path, request).await
    }

    async fn set_targets(&self, cluster: &ClusterKey, targets: &[String]) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/load-balancer/targets", cluster.uid);
        let call = format!("set targets of the load balancer of {}", cluster.name);
        self.send(&call, Method::PUT, &path, &Targets { targets: targets.to_vec() }).await
    }

    async fn create_instance(&self, request: &InstanceRequest) -> Result<Instance, CloudError> {
        let path = format!("/v1/clusters/{}/instances", request.cluster.uid);
        self.send(&format!("create instance {}", request.name), Method::POST, &path, request).await
    }

    async fn start_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        self.act(cluster, id, "start").await
    }

    async fn delete_instance(&self, cluster: &ClusterKey, id: &str) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/instances/{id}", cluster.uid);
        self.delete(&format!("delete instance {id}"), &path).await
    }

    async fn delete_load_balancer(&self, cluster: &ClusterKey) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/load-balancer", cluster.uid);
        self.delete(&format!("delete the load balancer of {}", cluster.name), &path).await
    }

    async fn delete_network(&self, cluster: &ClusterKey) -> Result<(), CloudError> {
        let path = format!("/v1/clusters/{}/network", cluster.uid);
        self.delete(&format!("delete the network of {}", cluster.name), &path).await
    }
}
