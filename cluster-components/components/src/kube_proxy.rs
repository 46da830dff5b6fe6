//! kube-proxy.

use crate::part::{CLUSTER_CA, Part, http, json};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, MachineSettings, RenderError, containerd, controllers, host};
use serde_json::{Value, json};
use slipway_model::{MachinePlan, NodeCredentials};

/// `api`: `https://host:port` of the apiserver it talks to, its machine's own or the load balancer.
pub(crate) fn render(
    cluster: &ClusterSettings,
    machine: &MachineSettings,
    api: &str,
    credentials: &NodeCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::root("kube-proxy");
    part.shares(CLUSTER_CA);
    let kubeconfig = credentials.kube_proxy.kubeconfig(&cluster.name, api, &credentials.cluster_ca, "system:kube-proxy");
    let kubeconfig = part.file("/etc/kubernetes/kube-proxy.conf", 0o600, kubeconfig);
    let config = part.file("/etc/kubernetes/kube-proxy.json", 0o600, json(&config(cluster, machine, &kubeconfig)));
    let mut service = Service::program("kube-proxy", "kube-proxy", vec![format!("--config={config}")]);
    // nft and iptables are the host's.
    service.environment = vec![containerd::path()];
    service.after = vec![host::UNIT];
    service.hold = controllers::hold_proxy(api);
    // /healthz fails for Nodes that are about to be deleted; it is for load balancers.
    part.finish(&service, &["kube-proxy"], artifacts, http("http://127.0.0.1:10256/livez"))
}

fn config(cluster: &ClusterSettings, machine: &MachineSettings, kubeconfig: &str) -> Value {
    let mut config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": kubeconfig },
        "clusterCIDR": cluster.network.pod_cidr,
        "hostnameOverride": machine.node,
        "metricsBindAddress": "127.0.0.1:10249",
        // Never by default: 1.37 warns, and the default will change.
        "mode": cluster.network.proxy_mode.as_str(),
    });
    if !cluster.profile.host.owns_kernel
        && let Some(config) = config.as_object_mut()
    {
        // nf_conntrack_max is the host's, and read-only in here.
        config.insert("conntrack".into(), json!({ "maxPerCore": 0, "min": 0 }));
    }
    config
}
