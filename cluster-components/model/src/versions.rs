//! What runs on a machine, in the parts that are upgraded one after the other.

use crate::KubernetesVersion;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A component's own version, `v3.6.14`. Ordered as versions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentVersion {
    /// 3 of v3.6.14.
    pub major: u32,
    /// 6 of v3.6.14.
    pub minor: u32,
    /// 14 of v3.6.14.
    pub patch: u32,
}

/// Why a text is no component's version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no version: write it as v3.6.14")]
pub struct ComponentVersionError {
    /// The text.
    pub text: String,
}

impl FromStr for ComponentVersion {
    type Err = ComponentVersionError;

    /// Takes exactly `vMAJOR.MINOR.PATCH`, without leading zeros, pre-releases or build tags.
    fn from_str(text: &str) -> Result<Self, ComponentVersionError> {
        let parsed = || {
            let mut parts = text.strip_prefix('v')?.splitn(3, '.');
            let mut number = || parts.next()?.parse().ok();
            Some(Self { major: number()?, minor: number()?, patch: number()? })
        };
        parsed().filter(|v| v.to_string() == text).ok_or_else(|| ComponentVersionError { text: text.to_owned() })
    }
}

impl fmt::Display for ComponentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl TryFrom<String> for ComponentVersion {
    type Error = ComponentVersionError;
    fn try_from(text: String) -> Result<Self, ComponentVersionError> {
        text.parse()
    }
}

impl From<ComponentVersion> for String {
    fn from(version: ComponentVersion) -> String {
        version.to_string()
    }
}

/// A part of a machine that is upgraded by itself. The order is the one in which a control plane is upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Part {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    ApiServer,
    /// kube-controller-manager, kube-scheduler, cloud-controller-manager.
    Controllers,
    /// kubelet, kube-proxy, containerd and what they bring.
    Node,
}

/// Versions of what makes a machine a part of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneVersions {
    /// etcd's.
    pub etcd: ComponentVersion,
    /// kube-apiserver's.
    pub api_server: KubernetesVersion,
    /// kube-controller-manager's, kube-scheduler's and the cloud-controller-manager's.
    pub controllers: KubernetesVersion,
}

/// Versions of what makes a machine a Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeVersions {
    /// kubelet's and kube-proxy's; runc and the CNI plug-ins follow it.
    pub kubelet: KubernetesVersion,
    /// containerd's.
    pub containerd: ComponentVersion,
}

/// Everything that runs on a machine. In a Machine record: what it is told to run; in the spec: what it shall come to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineVersions {
    /// Of a control-plane machine; `None` on workers.
    pub control_plane: Option<ControlPlaneVersions>,
    /// Of every machine.
    pub node: NodeVersions,
}

impl MachineVersions {
    /// Whether a part differs from `target`'s.
    #[must_use]
    pub fn differs(&self, part: Part, target: &Self) -> bool {
        let of = |v: &Self| v.control_plane;
        match part {
            Part::Etcd => of(self).map(|v| v.etcd) != of(target).map(|v| v.etcd),
            Part::ApiServer => of(self).map(|v| v.api_server) != of(target).map(|v| v.api_server),
            Part::Controllers => of(self).map(|v| v.controllers) != of(target).map(|v| v.controllers),
            Part::Node => self.node != target.node,
        }
    }

    /// These versions with one part taken from `target`.
    #[must_use]
    pub fn with(&self, part: Part, target: &Self) -> Self {
        let mut next = *self;
        match (part, next.control_plane.as_mut(), target.control_plane) {
            (Part::Etcd, Some(mine), Some(theirs)) => mine.etcd = theirs.etcd,
            (Part::ApiServer, Some(mine), Some(theirs)) => mine.api_server = theirs.api_server,
            (Part::Controllers, Some(mine), Some(theirs)) => mine.controllers = theirs.controllers,
            (Part::Node, _, _) => next.node = target.node,
            (Part::Etcd | Part::ApiServer | Part::Controllers, _, _) => {}
        }
        next
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::Controllers => "kube-controller-manager, kube-scheduler and cloud-controller-manager",
            Self::Node => "kubelet, kube-proxy and containerd",
        })
    }
}

impl fmt::Display for MachineVersions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(v) = &self.control_plane {
            write!(f, "etcd {}, kube-apiserver {}, controllers {}, ", v.etcd, v.api_server, v.controllers)?;
        }
        write!(f, "kubelet {}, containerd {}", self.node.kubelet, self.node.containerd)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_full_versions_are_versions() {
        assert_eq!("v3.6.14".parse::<ComponentVersion>().unwrap().to_string(), "v3.6.14");
        for bad in ["3.6.14", "v3.6", "v3.06.1", "v3.6.14-rc.1", "v3.6.14.1", ""] {
            assert!(bad.parse::<ComponentVersion>().is_err(), "{bad}");
        }
        assert!("v3.6.14".parse::<ComponentVersion>().unwrap() < "v3.7.3".parse().unwrap());
    }
}
