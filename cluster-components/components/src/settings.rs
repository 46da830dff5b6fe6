//! What the modules render from. Everything has been validated; nothing here is optional that a component needs.

use slipway_model::{ArtifactRef, ControlPlaneCredentials, Credential, File, MachineVersions, Network, NodeCredentials, PoolName, Taint};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// Programs and archives by name (`kubelet`, `pause.tar`, …): what may be installed, of which each plan takes what it needs.
pub type Artifacts = BTreeMap<String, ArtifactRef>;

/// Why a plan cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A program is not in the set that was given.
    #[error("no artifact {name:?} for the unit {unit}: fetch or build it (`slipway artifacts fetch`)")]
    MissingArtifact {
        /// Its name.
        name: String,
        /// Who needs it.
        unit: String,
    },
    /// An etcd member list without the machine itself.
    #[error("machine {machine} is not among the etcd members {members:?} that it is to start with")]
    NotAMember {
        /// The machine.
        machine: String,
        /// The members.
        members: Vec<String>,
    },
}

/// Where clients reach the apiservers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address of the load balancer.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Endpoint {
    /// `https://host:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What all machines of a cluster share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub name: String,
    /// Address ranges.
    pub network: Network,
    /// The load balancer before the apiservers.
    pub endpoint: Endpoint,
    /// What suits the place where it runs.
    pub profile: Profile,
    /// Images that nodes must have, since they may have nobody to pull from.
    pub images: Images,
}

/// An image, and the archive that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `registry.k8s.io/pause:3.10.2`.
    pub reference: String,
    /// Name of the artifact: `pause.tar`.
    pub artifact: String,
}

/// Images imported on every node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// The pod sandbox's: imported first, since no pod starts without it.
    pub pause: Image,
    /// All others, CoreDNS among them: imported once the node has its pod network, so that unpacking steals nothing from the start-up.
    pub others: Vec<Image>,
}

/// What differs between a machine room and a container on somebody's desk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Leases of kube-controller-manager, kube-scheduler and cloud-controller-manager.
    pub leader_election: LeaderElection,
    /// How an apiserver leaves.
    pub api_shutdown: ApiShutdown,
    /// etcd's clock.
    pub etcd: EtcdTiming,
    /// What the machine's kernel and its capabilities allow.
    pub host: Host,
    /// When a control-plane machine's own kubelet starts. Workers' always wait for a ready load balancer.
    pub control_plane_node: NodeStart,
    /// Seconds between a kubelet's status updates while nothing changes.
    pub node_status_seconds: u32,
}

/// When a control-plane machine's own kubelet starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStart {
    /// Once the machine's own apiserver is ready: until then the processor is the apiserver's.
    WhenApiReady,
    /// Once it serves, a second or two before: while the apiserver waits for its own first steps, the processor is free.
    WhenApiServes,
}

/// Seconds, as `--leader-elect-{lease-duration,renew-deadline,retry-period}`. A leader reaches its own machine's API server only, and should outlive that
/// one's restart, which takes five to six. How long a lease is, is felt when a machine falls silent; one whose process ends is given back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderElection {
    /// After this long without renewal another may lead.
    pub lease: u32,
    /// After this long without success a leader gives up.
    pub renew: u32,
    /// Between tries.
    pub retry: u32,
}

/// Follows from the load balancer's check interval × threshold: until it has noticed, a leaving apiserver must answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiShutdown {
    /// Seconds of serving with /readyz already failing.
    pub delay: u32,
    /// Seconds in which watches are ended; the default (0) waits 60 s for clients that hold one.
    pub watch_grace: u32,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdTiming {
    /// A leader's heartbeat.
    pub heartbeat: u32,
    /// Silence after which a follower stands for election.
    pub election: u32,
}

/// What the machine's kernel and its capabilities allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// The machine has CAP_SYS_RESOURCE. Without it containerd must not lower an oom_score_adj, or no pod sandbox starts.
    pub may_lower_oom_score: bool,
    /// The kernel has AppArmor.
    pub apparmor: bool,
    /// The machine owns its kernel's settings and its disk: conntrack limits, disk-pressure eviction and node-allocatable enforcement make sense.
    pub owns_kernel: bool,
}

impl Profile {
    /// Machines that are containers on one host, behind a load balancer that checks every 200 ms.
    #[must_use]
    pub fn local(may_lower_oom_score: bool) -> Self {
        Self {
            leader_election: LeaderElection { lease: 10, renew: 8, retry: 1 },
            api_shutdown: ApiShutdown { delay: 1, watch_grace: 1 },
            // A first leader is elected when the election timeout has passed once, by chance up to twice; between containers of one host half of
            // etcd's default is plenty.
            etcd: EtcdTiming { heartbeat: 50, election: 500 },
            host: Host { may_lower_oom_score, apparmor: false, owns_kernel: false },
            control_plane_node: NodeStart::WhenApiServes,
            node_status_seconds: 4,
        }
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSettings {
    /// Its Node's name: host name and etcd member name too.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// `spec.providerID`.
    pub provider_id: String,
    /// Its pool, as label `slipway.dev/pool`.
    pub pool: PoolName,
    /// What it is told to run. A flag that differs between versions follows that of the part it belongs to: the parts of a machine are upgraded one by one.
    pub versions: MachineVersions,
    /// Labels of the pool. Those that NodeRestriction lets no kubelet set are left out here (see [`crate::kubelet::may_set_label`]): the operator sets them.
    pub labels: BTreeMap<String, String>,
    /// Taints of the pool, put on when the Node registers.
    pub taints: Vec<Taint>,
}

/// How an etcd member begins. **Frozen at its birth**: later members must not appear here, or every change of membership would restart all the others.
/// A founder's are all founders, state new; those of one that joins are the members at that time and itself, state existing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Name → address of those it begins with, itself among them.
    pub members: BTreeMap<String, Ipv4Addr>,
    /// Keeps members of different attempts apart.
    pub token: String,
    /// Whether a cluster already exists.
    pub state: EtcdState,
    /// Directory below `/var/lib/etcd`, used for one member only.
    pub data_directory: String,
}

/// `--initial-cluster-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtcdState {
    /// All members begin together.
    New,
    /// Joins as what it was added as.
    Existing,
}

/// Which etcd members an apiserver talks to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EtcdEndpoints {
    /// Its own machine's: it starts much cheaper, and fails together with it, which the load balancer hides.
    #[default]
    Local,
    /// These, beside its own.
    All(Vec<Ipv4Addr>),
}

/// The cloud's controller manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudControllerManager {
    /// `slipway-ccm-local`, against the local cloud's daemon.
    Local {
        /// Whose instances: `metadata.uid` of the Cluster.
        cluster_uid: String,
        /// `https://address:port` of the daemon.
        daemon: String,
        /// Certificate of the daemon's CA, PEM.
        ca: String,
        /// The daemon's client certificate for this cluster.
        credential: Credential,
    },
}

/// Everything about a control-plane machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlaneMachine {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// The machine.
    pub machine: MachineSettings,
    /// Its etcd member.
    pub etcd: EtcdSettings,
    /// Where its apiserver finds etcd.
    pub etcd_endpoints: EtcdEndpoints,
    /// Its keys.
    pub credentials: ControlPlaneCredentials,
    /// Its cloud's controller manager.
    pub cloud: CloudControllerManager,
    /// What of the control plane it runs.
    pub duty: ControlPlaneDuty,
    /// What can be installed.
    pub artifacts: Artifacts,
}

/// What of the control plane a machine runs, beside its etcd member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlPlaneDuty {
    /// API server and controllers; its Node uses that API server.
    Serving,
    /// Neither: it is on its way out and only votes until it is removed. Its Node uses the load balancer, as workers do.
    Retiring,
}

/// Everything about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerMachine {
    /// The cluster.
    pub cluster: ClusterSettings,
    /// The machine.
    pub machine: MachineSettings,
    /// Its keys.
    pub credentials: NodeCredentials,
    /// What can be installed.
    pub artifacts: Artifacts,
}

/// The embedded management plane: an apiserver for Slipway's own objects, and the operator. No Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagementMachine {
    /// Its cluster; images and pod range are not used.
    pub cluster: ClusterSettings,
    /// Host name and etcd member name.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its etcd member.
    pub etcd: EtcdSettings,
    /// Its keys; those of scheduler, cloud-controller-manager and Node are not used.
    pub credentials: ControlPlaneCredentials,
    /// The operator.
    pub operator: OperatorSettings,
    /// What can be installed.
    pub artifacts: Artifacts,
}

/// The operator as a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSettings {
    /// Its certificate towards the management apiserver; its kubeconfig is rendered from it and named by `KUBECONFIG`.
    pub credential: Credential,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Files that it reads and whose change restarts it. Owner: [`crate::machine::OPERATOR_USER`].
    pub files: Vec<File>,
    /// Answers 200 when it works, e.g. `http://127.0.0.1:8080/readyz`.
    pub health_url: String,
}
