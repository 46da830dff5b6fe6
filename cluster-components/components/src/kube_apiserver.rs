//! kube-apiserver.

use crate::part::{CLUSTER_CA, Part, http, json};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, EtcdEndpoints, RenderError};
use serde_json::json;
use slipway_model::{ControlPlaneCredentials, MachinePlan};
use std::net::Ipv4Addr;

pub(crate) const USER: (&str, u32) = ("kube-apiserver", 2380);
/// Where this machine's own apiserver says whether it is ready.
pub(crate) const READYZ: &str = "https://127.0.0.1:6443/readyz";

pub(crate) fn render(
    cluster: &ClusterSettings,
    address: Ipv4Addr,
    etcd: &EtcdEndpoints,
    credentials: &ControlPlaneCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::user("kube-apiserver", USER.0, USER.1);
    part.secret_directory();
    part.shares(CLUSTER_CA);
    let etcd_ca = part.secret("etcd-ca.crt", credentials.etcd_ca.clone());
    let (etcd_client, etcd_client_key) = part.pair("etcd-client", &credentials.etcd_client);
    let (server, server_key) = part.pair("server", &credentials.api_server);
    let (kubelet, kubelet_key) = part.pair("kubelet-client", &credentials.api_server_kubelet_client);
    let (front_proxy, front_proxy_key) = part.pair("front-proxy-client", &credentials.front_proxy_client);
    let front_proxy_ca = part.secret("front-proxy-ca.crt", credentials.front_proxy_ca.clone());
    let signing = part.secret("sa.key", credentials.service_account_key.clone());
    let verifying = part.secret("sa.pub", credentials.service_account_public.clone());
    let authentication = part.file("/etc/kubernetes/authentication.json", 0o600, authentication());
    let local = std::iter::once("https://127.0.0.1:2379".to_owned());
    let etcd: Vec<_> = match etcd {
        EtcdEndpoints::Local => local.collect(),
        EtcdEndpoints::All(others) => {
            local.chain(others.iter().filter(|&&other| other != address).map(|other| format!("https://{other}:2379"))).collect()
        }
    };
    let shutdown = cluster.profile.api_shutdown;
    let args = vec![
        format!("--advertise-address={address}"),
        "--secure-port=6443".into(),
        format!("--etcd-servers={}", etcd.join(",")),
        format!("--etcd-cafile={etcd_ca}"),
        format!("--etcd-certfile={etcd_client}"),
        format!("--etcd-keyfile={etcd_client_key}"),
        // So old may the answer be that /readyz gives about etcd; by default it is good for two seconds after the member has died.
        "--etcd-readycheck-timeout=500ms".into(),
        format!("--tls-cert-file={server}"),
        format!("--tls-private-key-file={server_key}"),
        "--tls-min-version=VersionTLS12".into(),
        format!("--client-ca-file={CLUSTER_CA}"),
        format!("--authentication-config={authentication}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--service-cluster-ip-range={}", cluster.network.service_cidr),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-signing-key-file={signing}"),
        format!("--service-account-key-file={verifying}"),
        "--service-account-extend-token-expiration=false".into(),
        format!("--kubelet-certificate-authority={CLUSTER_CA}"),
        format!("--kubelet-client-certificate={kubelet}"),
        format!("--kubelet-client-key={kubelet_key}"),
        "--kubelet-preferred-address-types=InternalIP,Hostname".into(),
        format!("--requestheader-client-ca-file={front_proxy_ca}"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={front_proxy}"),
        format!("--proxy-client-key-file={front_proxy_key}"),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
        // While /readyz fails and the load balancer has not noticed, requests are still answered; then watches are ended,
        // or a client that holds one keeps a leaving apiserver for a minute.
        format!("--shutdown-delay-duration={}s", shutdown.delay),
        "--shutdown-send-retry-after=true".into(),
        format!("--shutdown-watch-termination-grace-period={}s", shutdown.watch_grace),
    ];
    let service = Service::program("Kubernetes API server", "kube-apiserver", args).run_as(USER.0);
    part.finish(&service, &["kube-apiserver"], artifacts, http(READYZ))
}

/// Who needs no certificate: load balancers that ask whether this server is ready, and nobody for anything else (KEP-4633, GA in 1.34).
fn authentication() -> String {
    let paths = ["/livez", "/readyz", "/healthz"].map(|path| json!({ "path": path }));
    json(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": { "enabled": true, "conditions": paths },
    }))
}
