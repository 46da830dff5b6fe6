//! CoreDNS: the cluster's names.

use crate::addons::AddonSettings;
use crate::kubelet::CONTROL_PLANE_TAINT;
use serde_json::{Value, json};

/// No `forward`, and so no `loop`: a cluster in its own network has nobody to ask about other names. `lameduck` covers the time in which kube-proxies still send here: they look at
/// what changed every second, and whoever empties a Node waits for it.
const COREFILE: &str = ".:53 {
    errors
    health {
        lameduck 2s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus :9153
    cache 30
    reload
    loadbalance
}
";

pub(crate) fn objects(settings: &AddonSettings) -> Vec<Value> {
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } });
    let selector = json!({ "k8s-app": "kube-dns" });
    let rule = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    vec![
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "system:coredns" },
            "rules": [rule("", &["services", "pods", "namespaces"]), rule("discovery.k8s.io", &["endpointslices"])],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "system:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"), "data": { "Corefile": COREFILE } }),
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("coredns"),
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector } },
        }),
        deployment(settings, &meta("coredns")),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kube-dns", "namespace": "kube-system",
                "labels": { "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS" },
                "annotations": { "prometheus.io/port": "9153", "prometheus.io/scrape": "true" },
            },
            "spec": {
                "clusterIP": settings.network.dns_service_ip(), "selector": selector,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": "dns" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": "dns-tcp" },
                    { "name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": "metrics" },
                ],
            },
        }),
    ]
}

fn deployment(settings: &AddonSettings, meta: &Value) -> Value {
    let probe = |path: &str, port: &str, period: u32, failures: u32| json!({ "httpGet": { "path": path, "port": port, "scheme": "HTTP" }, "failureThreshold": failures, "periodSeconds": period, "timeoutSeconds": 2 });
    let container = json!({
        "name": "coredns", "image": settings.coredns.reference,
        // Imported on every node; where there is a registry, a node that lost it may still ask.
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            { "name": "dns", "containerPort": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
            { "name": "metrics", "containerPort": 9153, "protocol": "TCP" },
            { "name": "health", "containerPort": 8080, "protocol": "TCP" },
            { "name": "ready", "containerPort": 8181, "protocol": "TCP" },
        ],
        "livenessProbe": probe("/health", "health", 2, 15),
        "readinessProbe": probe("/ready", "ready", 1, 5),
        "resources": { "requests": { "cpu": "100m", "memory": "70Mi" }, "limits": { "memory": "170Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "add": ["NET_BIND_SERVICE"], "drop": ["ALL"] },
        },
        "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
    });
    let apart = json!({
        "weight": 100,
        "podAffinityTerm": { "labelSelector": { "matchLabels": { "k8s-app": "kube-dns" } }, "topologyKey": "kubernetes.io/hostname" },
    });
    // Rather apart from each other than off the control planes.
    let on_workers = json!({
        "weight": 50,
        "preference": { "matchExpressions": [{ "key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist" }] },
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta,
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "k8s-app": "kube-dns" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 1 } },
            "template": {
                "metadata": { "labels": { "k8s-app": "kube-dns" } },
                "spec": {
                    "affinity": {
                        "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [on_workers] },
                        "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [apart] },
                    },
                    "containers": [container],
                    "dnsPolicy": "Default",
                    "nodeSelector": { "kubernetes.io/os": "linux" },
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    // A cluster of one control plane and no workers has names too.
                    "tolerations": [{ "key": CONTROL_PLANE_TAINT, "operator": "Exists", "effect": "NoSchedule" }],
                    "volumes": [{ "name": "config", "configMap": { "name": "coredns", "items": [{ "key": "Corefile", "path": "Corefile" }] } }],
                },
            },
        },
    })
}
