//! kubelet.

use crate::part::{CLUSTER_CA, Part, http, json};
use crate::unit::Service;
use crate::{Artifacts, ClusterSettings, MachineSettings, RenderError, containerd, controllers};
use serde_json::{Value, json};
use slipway_model::{MachinePlan, NodeCredentials, Taint, TaintEffect};

/// Label of the pool, on every Node.
pub const POOL_LABEL: &str = "slipway.dev/pool";
/// Taint of control-plane Nodes.
pub const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// Whether NodeRestriction and the kubelet itself let a kubelet set this label on its own Node. What it may not set keeps it from starting.
#[must_use]
pub fn may_set_label(key: &str) -> bool {
    const ALLOWED: [&str; 11] = [
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    let Some((domain, _)) = key.split_once('/') else { return true };
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved || ALLOWED.contains(&key) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

/// `api`: `https://host:port` of the apiserver it talks to, its machine's own or the load balancer.
pub(crate) fn render(
    cluster: &ClusterSettings,
    machine: &MachineSettings,
    api: &str,
    credentials: &NodeCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    let mut part = Part::root("kubelet");
    part.shares(CLUSTER_CA);
    part.secret_directory();
    part.directory("/var/lib/kubelet", 0o750);
    let user = format!("system:node:{}", machine.node);
    let kubeconfig = credentials.kubelet_client.kubeconfig(&cluster.name, api, &credentials.cluster_ca, &user);
    let kubeconfig = part.file("/etc/kubernetes/kubelet.conf", 0o600, kubeconfig);
    let (certificate, key) = part.pair("server", &credentials.kubelet_server);
    let config = part.file("/etc/kubernetes/kubelet.json", 0o600, json(&config(cluster, machine, &certificate, &key)));
    let labels: Vec<_> = machine.labels.iter().filter(|(key, _)| may_set_label(key)).map(|(key, value)| format!("{key}={value}")).collect();
    let labels = [vec![format!("{POOL_LABEL}={}", machine.pool)], labels].concat();
    let args = vec![
        format!("--config={config}"),
        format!("--kubeconfig={kubeconfig}"),
        format!("--hostname-override={}", machine.node),
        format!("--node-ip={}", machine.address),
        format!("--node-labels={}", labels.join(",")),
        "--cloud-provider=external".into(),
        "--cert-dir=/var/lib/kubelet/pki".into(),
    ];
    let mut service = Service::program("kubelet", "kubelet", args);
    service.after = vec![containerd::UNIT];
    service.environment = vec![containerd::path()];
    service.hold = controllers::hold_kubelet(cluster, api);
    service.extra = vec!["Delegate=yes"];
    part.finish(&service, &["kubelet"], artifacts, http("http://127.0.0.1:10248/healthz"))
}

fn config(cluster: &ClusterSettings, machine: &MachineSettings, certificate: &str, key: &str) -> Value {
    let host = cluster.profile.host;
    let control_plane = Taint { key: CONTROL_PLANE_TAINT.into(), value: String::new(), effect: TaintEffect::NoSchedule };
    let own = machine.pool.is_control_plane().then_some(&control_plane);
    let taint = |taint: &Taint| match taint.value.as_str() {
        "" => json!({ "key": taint.key, "effect": taint.effect.as_str() }),
        value => json!({ "key": taint.key, "value": value, "effect": taint.effect.as_str() }),
    };
    let taints: Vec<_> = own.into_iter().chain(&machine.taints).map(taint).collect();
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": CLUSTER_CA },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "systemd",
        "clusterDNS": [cluster.network.dns_service_ip()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{}", containerd::SOCKET),
        // 0 came to mean "without limit" in 1.37.
        "eventRecordQPS": 50,
        // Since 1.35 a kubelet refuses to start on cgroup v1 unless told otherwise.
        "failCgroupV1": false,
        "nodeStatusUpdateFrequency": format!("{}s", cluster.profile.node_status_seconds),
        "providerID": machine.provider_id,
        "readOnlyPort": 0,
        "registerWithTaints": taints,
        "resolvConf": "/etc/resolv.conf",
        "serializeImagePulls": false,
        "tlsCertFile": certificate,
        "tlsMinVersion": "VersionTLS12",
        "tlsPrivateKeyFile": key,
        // The default lies below /usr, which may be read-only.
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    });
    if !host.owns_kernel
        && let Some(config) = config.as_object_mut()
    {
        // The disk and the swap are the host's, and so is what is left of its memory: nothing to be judged from inside.
        let never = json!({ "imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%" });
        config.insert("enforceNodeAllocatable".into(), json!([]));
        config.insert("evictionHard".into(), never);
        config.insert("failSwapOn".into(), json!(false));
        config.insert("imageGCHighThresholdPercent".into(), json!(100));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_is_only_given_labels_that_it_may_set() {
        for yes in [
            "team",
            "slipway.dev/pool",
            "example.com/x",
            "topology.kubernetes.io/zone",
            "node.kubernetes.io/x",
            "a.kubelet.kubernetes.io/x",
            "mykubernetes.io/x",
        ] {
            assert!(may_set_label(yes), "{yes}");
        }
        for no in ["node-role.kubernetes.io/worker", "kubernetes.io/x", "node-restriction.kubernetes.io/x", "x.k8s.io/y", "k8s.io/y"] {
            assert!(!may_set_label(no), "{no}");
        }
    }
}
