//! All leaves of one machine, and those of a cluster's people.
//!
//! A machine's plan is compared by digest, so its certificates are made once, kept in the Secret `<machine>-pki` and made anew only when they
//! approach their end or no longer say the truth.

use crate::authority::Authority;
use crate::{ClusterPki, Identity, Leaf, PkiError, kubeconfig};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use slipway_model::{Content, ControlPlaneCredentials, Credential, NodeCredentials};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a machine's certificates say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// Its Node's name, and its etcd member's.
    pub node: String,
    /// Its address in the cluster's network.
    pub address: Ipv4Addr,
    /// What it does.
    pub role: MachineRole,
}

/// What a machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineRole {
    /// etcd, apiserver and the rest, and a Node.
    ControlPlane {
        /// Host name or address of the load balancer, as clients dial it.
        endpoint: String,
        /// `kubernetes.default`'s address.
        service_ip: Ipv4Addr,
        /// More names of the apiserver.
        extra_names: Vec<String>,
    },
    /// A Node.
    Worker,
}

impl MachineFacts {
    /// Every identity of the machine, with the name under which its Secret keeps it.
    fn identities(&self) -> Vec<(&'static str, Identity)> {
        let (node, address) = (self.node.clone(), self.address);
        let mut identities = vec![
            (KUBELET_CLIENT, Identity::KubeletClient { node: node.clone() }),
            (KUBELET_SERVER, Identity::KubeletServer { node: node.clone(), address }),
            (KUBE_PROXY, Identity::KubeProxy),
        ];
        if let MachineRole::ControlPlane { endpoint, service_ip, extra_names } = &self.role {
            let api_server =
                Identity::ApiServer { address, endpoint: endpoint.clone(), service_ip: *service_ip, extra: extra_names.clone() };
            identities.extend([
                (ETCD_SERVER, Identity::EtcdServer { member: node.clone(), address }),
                (ETCD_PEER, Identity::EtcdPeer { member: node, address }),
                (ETCD_CLIENT, Identity::EtcdClient),
                (API_SERVER, api_server),
                (API_SERVER_KUBELET_CLIENT, Identity::ApiServerKubeletClient),
                (FRONT_PROXY_CLIENT, Identity::FrontProxyClient),
                (CONTROLLER_MANAGER, Identity::ControllerManager),
                (SCHEDULER, Identity::Scheduler),
                (CLOUD_CONTROLLER_MANAGER, Identity::CloudControllerManager),
            ]);
        }
        identities
    }
}

const KUBELET_CLIENT: &str = "kubelet-client";
const KUBELET_SERVER: &str = "kubelet-server";
const KUBE_PROXY: &str = "kube-proxy";
const ETCD_SERVER: &str = "etcd-server";
const ETCD_PEER: &str = "etcd-peer";
const ETCD_CLIENT: &str = "apiserver-etcd-client";
const API_SERVER: &str = "apiserver";
const API_SERVER_KUBELET_CLIENT: &str = "apiserver-kubelet-client";
const FRONT_PROXY_CLIENT: &str = "front-proxy-client";
const CONTROLLER_MANAGER: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";
const CLOUD_CONTROLLER_MANAGER: &str = "cloud-controller-manager";

/// All leaves of one machine.
#[derive(Debug, Clone)]
pub struct MachineLeaves {
    leaves: BTreeMap<&'static str, Leaf>,
}

impl MachineLeaves {
    /// Makes them all anew.
    pub fn issue(pki: &ClusterPki, facts: &MachineFacts, now: Timestamp) -> Result<Self, PkiError> {
        let leaves = facts.identities().into_iter().map(|(name, identity)| Ok((name, pki.issue(&identity, now)?)));
        Ok(Self { leaves: leaves.collect::<Result<_, PkiError>>()? })
    }

    /// As a Secret's data.
    #[must_use]
    pub fn to_secret(&self) -> BTreeMap<String, Vec<u8>> {
        let mut secret = BTreeMap::new();
        self.leaves.iter().for_each(|(name, leaf)| leaf.put(name, &mut secret));
        secret
    }

    /// From a Secret's data: every leaf that a machine of these facts has. [`PkiError::Missing`] where the role has changed.
    pub fn from_secret(secret: &BTreeMap<String, Vec<u8>>, facts: &MachineFacts) -> Result<Self, PkiError> {
        let leaves = facts.identities().into_iter().map(|(name, _)| Ok((name, Leaf::take(name, secret)?)));
        Ok(Self { leaves: leaves.collect::<Result<_, PkiError>>()? })
    }

    /// When the first of them ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.leaves.values().map(Leaf::not_after).min().unwrap_or(Timestamp::MIN)
    }

    /// When they shall be made anew: at two thirds of the life of the first that ends.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        self.leaves.values().map(Leaf::renew_at).min().unwrap_or(Timestamp::MIN)
    }

    /// Whether they say the truth about this machine and come from this cluster's authorities.
    #[must_use]
    pub fn matches(&self, pki: &ClusterPki, facts: &MachineFacts) -> bool {
        let identities = facts.identities();
        identities.len() == self.leaves.len()
            && identities.iter().all(|(name, identity)| self.leaves.get(name).is_some_and(|leaf| says(leaf, identity, pki)))
    }

    /// What a worker's plan is rendered with.
    pub fn node_credentials(&self, pki: &ClusterPki) -> Result<NodeCredentials, PkiError> {
        Ok(NodeCredentials {
            cluster_ca: pki.cluster.certificate().to_owned(),
            kubelet_client: self.credential(KUBELET_CLIENT)?,
            kubelet_server: self.credential(KUBELET_SERVER)?,
            kube_proxy: self.credential(KUBE_PROXY)?,
        })
    }

    /// What a control-plane machine's plan is rendered with. [`PkiError::Missing`] for a worker's leaves.
    pub fn control_plane_credentials(&self, pki: &ClusterPki) -> Result<ControlPlaneCredentials, PkiError> {
        let secret = |secret: &SecretString| Content::from(secret.expose_secret());
        Ok(ControlPlaneCredentials {
            cluster_ca_key: secret(pki.cluster.key()),
            etcd_ca: pki.etcd.certificate().to_owned(),
            front_proxy_ca: pki.front_proxy.certificate().to_owned(),
            service_account_key: secret(pki.service_account.private()),
            service_account_public: pki.service_account.public().to_owned(),
            etcd_server: self.credential(ETCD_SERVER)?,
            etcd_peer: self.credential(ETCD_PEER)?,
            etcd_client: self.credential(ETCD_CLIENT)?,
            api_server: self.credential(API_SERVER)?,
            api_server_kubelet_client: self.credential(API_SERVER_KUBELET_CLIENT)?,
            front_proxy_client: self.credential(FRONT_PROXY_CLIENT)?,
            controller_manager: self.credential(CONTROLLER_MANAGER)?,
            scheduler: self.credential(SCHEDULER)?,
            cloud_controller_manager: self.credential(CLOUD_CONTROLLER_MANAGER)?,
            node: self.node_credentials(pki)?,
        })
    }

    fn credential(&self, name: &str) -> Result<Credential, PkiError> {
        self.leaves.get(name).map(Leaf::credential).ok_or_else(|| PkiError::Missing { key: format!("{name}.crt") })
    }
}

/// Whether a leaf says exactly what the identity is, and the right authority signed it.
fn says(leaf: &Leaf, identity: &Identity, pki: &ClusterPki) -> bool {
    let subject = leaf.subject();
    subject.common_name == identity.common_name()
        && subject.organization.as_deref() == identity.organization()
        && subject.names == identity.alternative_names().into_iter().collect()
        && Authority::signed(pki.authority(identity.authority()), leaf)
}

/// The leaves of a cluster's people: its owner's, and the almighty one.
#[derive(Debug, Clone)]
pub struct AdminLeaves {
    /// `kubernetes-admin` in the group `slipway:cluster-admins`: what the owner gets.
    pub admin: Leaf,
    /// `kubernetes-super-admin` in `system:masters`: the operator's own for bootstrap, before any binding exists.
    pub super_admin: Leaf,
}

impl AdminLeaves {
    /// Makes both anew.
    pub fn issue(pki: &ClusterPki, now: Timestamp) -> Result<Self, PkiError> {
        Ok(Self { admin: pki.issue(&Identity::Admin, now)?, super_admin: pki.issue(&Identity::SuperAdmin, now)? })
    }

    /// As a Secret's data: `admin.{crt,key}`, `super-admin.{crt,key}`.
    #[must_use]
    pub fn to_secret(&self) -> BTreeMap<String, Vec<u8>> {
        let mut secret = BTreeMap::new();
        self.admin.put("admin", &mut secret);
        self.super_admin.put("super-admin", &mut secret);
        secret
    }

    /// From a Secret's data.
    pub fn from_secret(secret: &BTreeMap<String, Vec<u8>>) -> Result<Self, PkiError> {
        Ok(Self { admin: Leaf::take("admin", secret)?, super_admin: Leaf::take("super-admin", secret)? })
    }

    /// When the first of them ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.admin.not_after().min(self.super_admin.not_after())
    }

    /// When they shall be made anew.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        self.admin.renew_at().min(self.super_admin.renew_at())
    }

    /// Whether they come from this cluster's authority.
    #[must_use]
    pub fn matches(&self, pki: &ClusterPki) -> bool {
        says(&self.admin, &Identity::Admin, pki) && says(&self.super_admin, &Identity::SuperAdmin, pki)
    }

    /// The owner's kubeconfig for `server` (`https://host:port`): key `value` of the Secret `<cluster>-kubeconfig`.
    #[must_use]
    pub fn kubeconfig(&self, cluster: &str, server: &str, pki: &ClusterPki) -> SecretString {
        kubeconfig(cluster, server, pki.cluster.certificate(), "kubernetes-admin", &self.admin)
    }

    /// The almighty kubeconfig: the operator's own, for bootstrap.
    #[must_use]
    pub fn super_kubeconfig(&self, cluster: &str, server: &str, pki: &ClusterPki) -> SecretString {
        kubeconfig(cluster, server, pki.cluster.certificate(), "kubernetes-super-admin", &self.super_admin)
    }
}
