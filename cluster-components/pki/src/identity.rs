//! Who a certificate speaks for: subject, names, usages and the authority that may say so.

use rcgen::ExtendedKeyUsagePurpose as Usage;
use std::net::Ipv4Addr;

/// Which authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthorityKind {
    /// Everything the apiserver authenticates, and its own certificate.
    Cluster,
    /// etcd and its clients.
    Etcd,
    /// The apiserver towards aggregated APIs.
    FrontProxy,
    /// Agents and the operator.
    Agent,
}

/// Every identity of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// etcd towards its clients.
    EtcdServer {
        /// Member name.
        member: String,
        /// Machine's address.
        address: Ipv4Addr,
    },
    /// etcd towards its peers, both ways.
    EtcdPeer {
        /// Member name.
        member: String,
        /// Machine's address.
        address: Ipv4Addr,
    },
    /// The apiserver towards etcd.
    EtcdClient,
    /// The operator towards etcd: membership, alarms, snapshots.
    EtcdOperator,
    /// The apiserver's own certificate.
    ApiServer {
        /// Machine's address.
        address: Ipv4Addr,
        /// Host name or address of the load balancer.
        endpoint: String,
        /// `kubernetes.default`'s address.
        service_ip: Ipv4Addr,
        /// More names and addresses, e.g. a DNS name of the user's before the load balancer.
        extra: Vec<String>,
    },
    /// The apiserver towards kubelets. No group: it is bound to system:kubelet-api-admin, and not almighty.
    ApiServerKubeletClient,
    /// The apiserver towards aggregated APIs.
    FrontProxyClient,
    /// A kubelet towards the apiserver.
    KubeletClient {
        /// Node name.
        node: String,
    },
    /// A kubelet's own certificate.
    KubeletServer {
        /// Node name.
        node: String,
        /// Machine's address.
        address: Ipv4Addr,
    },
    /// kube-controller-manager, client and server (so that it makes no RSA key at every start).
    ControllerManager,
    /// kube-scheduler, client and server.
    Scheduler,
    /// The cloud's controller manager.
    CloudControllerManager,
    /// kube-proxy.
    KubeProxy,
    /// The person that owns the cluster; revocable by its ClusterRoleBinding.
    Admin,
    /// Almighty whatever RBAC says. The operator's own, for bootstrap.
    SuperAdmin,
    /// The operator towards agents.
    Operator,
    /// The operator towards the apiserver of its embedded management plane: nothing but what its ClusterRole allows.
    ManagementOperator,
}

impl Identity {
    /// Who signs it.
    #[must_use]
    pub fn authority(&self) -> AuthorityKind {
        match self {
            Self::EtcdServer { .. } | Self::EtcdPeer { .. } | Self::EtcdClient | Self::EtcdOperator => AuthorityKind::Etcd,
            Self::FrontProxyClient => AuthorityKind::FrontProxy,
            Self::Operator => AuthorityKind::Agent,
            Self::ApiServer { .. }
            | Self::ApiServerKubeletClient
            | Self::KubeletClient { .. }
            | Self::KubeletServer { .. }
            | Self::ControllerManager
            | Self::Scheduler
            | Self::CloudControllerManager
            | Self::KubeProxy
            | Self::Admin
            | Self::SuperAdmin
            | Self::ManagementOperator => AuthorityKind::Cluster,
        }
    }

    /// Common name: the user, as the apiserver sees it.
    #[must_use]
    pub fn common_name(&self) -> String {
        match self {
            Self::EtcdServer { member, .. } | Self::EtcdPeer { member, .. } => member.clone(),
            Self::EtcdClient => "kube-apiserver-etcd-client".into(),
            Self::EtcdOperator | Self::Operator | Self::ManagementOperator => "slipway-operator".into(),
            Self::ApiServer { .. } => "kube-apiserver".into(),
            Self::ApiServerKubeletClient => "kube-apiserver-kubelet-client".into(),
            Self::FrontProxyClient => "front-proxy-client".into(),
            Self::KubeletClient { node } | Self::KubeletServer { node, .. } => format!("system:node:{node}"),
            Self::ControllerManager => "system:kube-controller-manager".into(),
            Self::Scheduler => "system:kube-scheduler".into(),
            Self::CloudControllerManager => "system:cloud-controller-manager".into(),
            Self::KubeProxy => "system:kube-proxy".into(),
            Self::Admin => "kubernetes-admin".into(),
            Self::SuperAdmin => "kubernetes-super-admin".into(),
        }
    }

    /// Organization: the group, as the apiserver sees it.
    #[must_use]
    pub fn organization(&self) -> Option<&'static str> {
        match self {
            Self::KubeletClient { .. } | Self::KubeletServer { .. } => Some("system:nodes"),
            Self::Admin => Some("slipway:cluster-admins"),
            Self::SuperAdmin => Some("system:masters"),
            _ => None,
        }
    }

    /// Names and addresses that a client may find it under, in the order in which they stand in the certificate.
    #[must_use]
    pub fn alternative_names(&self) -> Vec<String> {
        let local = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut names = match self {
            Self::EtcdServer { member, address } | Self::EtcdPeer { member, address } => {
                [local(), vec![member.clone(), address.to_string()]].concat()
            }
            Self::ApiServer { address, endpoint, service_ip, extra } => {
                let well_known = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
                let own = vec![service_ip.to_string(), address.to_string(), endpoint.clone()];
                [well_known.map(str::to_owned).to_vec(), local(), own, extra.clone()].concat()
            }
            Self::KubeletServer { node, address } => vec![node.clone(), address.to_string()],
            Self::ControllerManager | Self::Scheduler => local(),
            _ => vec![],
        };
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    pub(crate) fn usages(&self) -> Vec<Usage> {
        match self {
            // etcd's gateway dials itself with its server certificate, so that needs both.
            Self::EtcdServer { .. } | Self::EtcdPeer { .. } | Self::ControllerManager | Self::Scheduler => {
                vec![Usage::ServerAuth, Usage::ClientAuth]
            }
            Self::ApiServer { .. } | Self::KubeletServer { .. } => vec![Usage::ServerAuth],
            _ => vec![Usage::ClientAuth],
        }
    }
}
