//! One cluster, `demo`, for all tests. Keys are markers, so that golden files show where each goes.

use slipway_components::*;
use slipway_model::{
    ArtifactRef, Content, ControlPlaneCredentials, ControlPlaneVersions, Credential, File, MachineVersions, Network, NodeCredentials,
    NodeVersions, PoolName, ProxyMode, Taint, TaintEffect,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The minors that are supported, each by one of its versions.
pub const VERSIONS: [&str; 3] = ["v1.35.8", "v1.36.4", "v1.37.2"];
/// Every program and archive that a catalogue offers.
const ARTIFACTS: [&str; 22] = [
    "bridge",
    "containerd",
    "containerd-shim-runc-v2",
    "coredns.tar",
    "ctr",
    "etcd",
    "etcdctl",
    "etcdutl",
    "host-local",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "loopback",
    "pause.tar",
    "portmap",
    "runc",
    "slipway-ccm-local",
    "slipway-operator",
    "test-client.tar",
];

pub fn artifacts() -> Artifacts {
    let artifact = |name: &str| ArtifactRef {
        name: name.to_owned(),
        sha256: format!("sha256 of {name}"),
        size: 1,
        sources: vec![format!("file:///opt/slipway/store/{name}")],
    };
    ARTIFACTS.iter().map(|&name| (name.to_owned(), artifact(name))).collect()
}

pub fn credential(of: &str) -> Credential {
    Credential { certificate: format!("<certificate: {of}>\n"), key: Content::from(format!("<PRIVATE KEY: {of}>\n")) }
}

pub fn node_credentials() -> NodeCredentials {
    NodeCredentials {
        cluster_ca: "<certificate: cluster CA>\n".into(),
        kubelet_client: credential("kubelet client"),
        kubelet_server: credential("kubelet server"),
        kube_proxy: credential("kube-proxy"),
    }
}

pub fn control_plane_credentials() -> ControlPlaneCredentials {
    ControlPlaneCredentials {
        cluster_ca_key: "<PRIVATE KEY: cluster CA>\n".into(),
        etcd_ca: "<certificate: etcd CA>\n".into(),
        front_proxy_ca: "<certificate: front-proxy CA>\n".into(),
        service_account_key: "<PRIVATE KEY: service accounts>\n".into(),
        service_account_public: "<public key: service accounts>\n".into(),
        etcd_server: credential("etcd server"),
        etcd_peer: credential("etcd peer"),
        etcd_client: credential("apiserver as etcd client"),
        api_server: credential("apiserver"),
        api_server_kubelet_client: credential("apiserver as kubelet client"),
        front_proxy_client: credential("front proxy client"),
        controller_manager: credential("controller manager"),
        scheduler: credential("scheduler"),
        cloud_controller_manager: credential("cloud controller manager"),
        node: node_credentials(),
    }
}

pub fn network() -> Network {
    Network::new("10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap(), ProxyMode::Nftables, 8).unwrap()
}

pub fn image(reference: &str, artifact: &str) -> Image {
    Image { reference: reference.into(), artifact: artifact.into() }
}

pub fn coredns() -> Image {
    image("registry.k8s.io/coredns/coredns:v1.14.2", "coredns.tar")
}

/// What goes with a version of Kubernetes.
pub fn versions(kubernetes: &str) -> MachineVersions {
    let kubernetes = kubernetes.parse().unwrap();
    let etcd = if kubernetes < "v1.37.0".parse().unwrap() { "v3.6.14" } else { "v3.7.3" }.parse().unwrap();
    MachineVersions {
        control_plane: Some(ControlPlaneVersions { etcd, api_server: kubernetes, controllers: kubernetes }),
        node: NodeVersions { kubelet: kubernetes, containerd: "v2.3.4".parse().unwrap() },
    }
}

pub fn cluster() -> ClusterSettings {
    ClusterSettings {
        name: "demo".into(),
        network: network(),
        endpoint: Endpoint { host: "198.18.1.2".into(), port: 6443 },
        profile: Profile::local(false),
        images: Images {
            pause: image("registry.k8s.io/pause:3.10.2", "pause.tar"),
            others: vec![coredns(), image("slipway.dev/test-client:1", "test-client.tar")],
        },
    }
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 1, last)
}

/// The first of so many control-plane machines.
pub fn control_plane(version: &str, members: u8) -> ControlPlaneMachine {
    ControlPlaneMachine {
        cluster: cluster(),
        machine: MachineSettings {
            node: "demo-cp-0".into(),
            address: address(10),
            provider_id: "local://uid-of-demo/i-0".into(),
            pool: PoolName::control_plane(),
            versions: versions(version),
            labels: BTreeMap::new(),
            taints: vec![],
        },
        etcd: EtcdSettings {
            members: (0..members).map(|i| (format!("demo-cp-{i}"), address(10 + i))).collect(),
            token: "uid-of-demo-1".into(),
            state: EtcdState::New,
            data_directory: "uid-of-machine".into(),
        },
        etcd_endpoints: EtcdEndpoints::Local,
        credentials: control_plane_credentials(),
        cloud: CloudControllerManager::Local {
            cluster_uid: "uid-of-demo".into(),
            daemon: "https://198.18.0.1:8443".into(),
            ca: "<certificate: daemon CA>\n".into(),
            credential: credential("cloud controller manager at the daemon"),
        },
        duty: ControlPlaneDuty::Serving,
        artifacts: artifacts(),
    }
}

/// The fourth control-plane machine, after the second was lost.
pub fn joiner(version: &str) -> ControlPlaneMachine {
    let mut joiner = control_plane(version, 3);
    joiner.machine.node = "demo-cp-3".into();
    joiner.machine.address = address(13);
    joiner.machine.provider_id = "local://uid-of-demo/i-7".into();
    joiner.etcd.members.remove("demo-cp-1");
    joiner.etcd.members.insert("demo-cp-3".into(), address(13));
    joiner.etcd.state = EtcdState::Existing;
    joiner
}

/// The first control-plane machine on its way out.
pub fn retiring(version: &str) -> ControlPlaneMachine {
    ControlPlaneMachine { duty: ControlPlaneDuty::Retiring, ..control_plane(version, 3) }
}

pub fn worker(version: &str) -> WorkerMachine {
    WorkerMachine {
        cluster: cluster(),
        machine: MachineSettings {
            node: "demo-workers-0".into(),
            address: address(20),
            provider_id: "local://uid-of-demo/i-3".into(),
            pool: "workers".parse().unwrap(),
            versions: MachineVersions { control_plane: None, ..versions(version) },
            labels: BTreeMap::from([("team".into(), "red".into()), ("node-role.kubernetes.io/worker".into(), String::new())]),
            taints: vec![Taint { key: "dedicated".into(), value: "red".into(), effect: TaintEffect::PreferNoSchedule }],
        },
        credentials: node_credentials(),
        artifacts: artifacts(),
    }
}

pub fn management(version: &str) -> ManagementMachine {
    let ControlPlaneMachine { mut cluster, machine, mut etcd, credentials, artifacts, .. } = control_plane(version, 1);
    cluster.name = "slipway".into();
    etcd.members = BTreeMap::from([("slipway-management".into(), machine.address)]);
    ManagementMachine {
        cluster,
        node: "slipway-management".into(),
        address: machine.address,
        etcd,
        credentials,
        operator: OperatorSettings {
            credential: credential("operator"),
            args: vec!["--health-address=127.0.0.1:8080".into()],
            environment: BTreeMap::from([("RUST_LOG".into(), "info".into())]),
            files: vec![File {
                path: "/etc/slipway-operator/daemon.crt".into(),
                mode: 0o600,
                owner: machine::OPERATOR_USER.into(),
                content: "<certificate: operator at the daemon>\n".into(),
            }],
            health_url: "http://127.0.0.1:8080/readyz".into(),
        },
        artifacts,
    }
}
