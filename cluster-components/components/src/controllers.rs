//! What kube-controller-manager and kube-scheduler have in common: a kubeconfig towards the machine's own apiserver, a serving certificate, a lease.

use crate::part::{CLUSTER_CA, Part};
use crate::unit::{Hold, bin};
use crate::{ClusterSettings, NodeStart, kube_apiserver};
use slipway_model::{Content, Credential};

/// The machine's own apiserver.
pub(crate) const LOCAL_API: &str = "https://127.0.0.1:6443";

/// Where the processor is short, the apiserver and the kubelets come before those who only use them: when all start at once, above all.
pub(crate) const AFTER_THE_API: &str = "Nice=5";

/// Nothing that needs the API starts before it: each try would take the processor from the apiserver that it waits for.
pub(crate) fn hold() -> Vec<Hold> {
    vec![Hold::Url { url: kube_apiserver::READYZ.to_owned(), ca: CLUSTER_CA }]
}

/// What a kube-proxy waits for that talks to `api`.
pub(crate) fn hold_proxy(api: &str) -> Vec<Hold> {
    vec![Hold::Url { url: format!("{api}/readyz"), ca: CLUSTER_CA }]
}

/// What a kubelet waits for that talks to `api`.
///
/// A worker's that starts before its load balancer answers is refused, backs off, and its Node is Ready 20 s late. A control plane's needs its
/// own apiserver to serve, not to be ready: what a Node may do is written in the node authorizer, while the roles of everybody else, for which
/// others have to wait, are made a second after serving has begun.
pub(crate) fn hold_kubelet(cluster: &ClusterSettings, api: &str) -> Vec<Hold> {
    let url = format!("{api}/readyz");
    let serving = api == LOCAL_API && cluster.profile.control_plane_node == NodeStart::WhenApiServes;
    vec![if serving { Hold::Answers { url, ca: CLUSTER_CA } } else { Hold::Url { url, ca: CLUSTER_CA } }]
}

/// Writes `/etc/kubernetes/<component>.conf` for a client of the machine's own apiserver; its path.
pub(crate) fn kubeconfig(
    part: &mut Part,
    component: &str,
    user: &str,
    credential: &Credential,
    cluster: &ClusterSettings,
    ca: &str,
) -> String {
    let content: Content = credential.kubeconfig(&cluster.name, LOCAL_API, ca, user);
    part.shares(CLUSTER_CA);
    part.file(format!("/etc/kubernetes/{component}.conf"), 0o600, content)
}

/// The flags that they share, and what gives the Lease `name` back when the process has ended: they do not do it themselves, and while it runs out,
/// evicted pods come back nowhere.
pub(crate) fn flags(
    part: &mut Part,
    name: &str,
    kubeconfig: &str,
    credential: &Credential,
    cluster: &ClusterSettings,
) -> (Vec<String>, Vec<String>) {
    // Without a certificate each start would make an RSA key first, on the way to a Ready cluster.
    let (certificate, key) = part.pair("server", credential);
    let election = cluster.profile.leader_election;
    let release = vec![
        bin("slipway-agent"),
        "release-lease".into(),
        format!("--url={LOCAL_API}/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}"),
        format!("--ca={CLUSTER_CA}"),
        format!("--cert={certificate}"),
        format!("--key={key}"),
    ];
    let flags = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        format!("--tls-cert-file={certificate}"),
        format!("--tls-private-key-file={key}"),
        "--profiling=false".into(),
        "--leader-elect=true".into(),
        format!("--leader-elect-lease-duration={}s", election.lease),
        format!("--leader-elect-renew-deadline={}s", election.renew),
        format!("--leader-elect-retry-period={}s", election.retry),
    ];
    (flags, release)
}
