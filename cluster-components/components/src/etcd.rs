//! etcd: one member per control-plane machine.

use crate::part::{Part, http};
use crate::unit::Service;
use crate::{Artifacts, EtcdSettings, EtcdState, EtcdTiming, RenderError};
use slipway_model::{ControlPlaneCredentials, MachinePlan};
use std::net::Ipv4Addr;

pub(crate) const USER: (&str, u32) = ("etcd", 2379);
/// What the apiserver may use of it: 8 GiB, etcd's own advice for the most.
const QUOTA_BYTES: u64 = 8 * 1024 * 1024 * 1024;

pub(crate) fn render(
    node: &str,
    address: Ipv4Addr,
    etcd: &EtcdSettings,
    timing: EtcdTiming,
    credentials: &ControlPlaneCredentials,
    artifacts: &Artifacts,
) -> Result<MachinePlan, RenderError> {
    if etcd.members.get(node) != Some(&address) {
        let members = etcd.members.iter().map(|(name, address)| format!("{name}={address}")).collect();
        return Err(RenderError::NotAMember { machine: format!("{node}={address}"), members });
    }
    let mut part = Part::user("etcd", USER.0, USER.1);
    part.secret_directory();
    let ca = part.secret("ca.crt", credentials.etcd_ca.clone());
    let (server, server_key) = part.pair("server", &credentials.etcd_server);
    let (peer, peer_key) = part.pair("peer", &credentials.etcd_peer);
    let data = format!("/var/lib/etcd/{}", etcd.data_directory);
    part.directory("/var/lib/etcd", 0o700);
    part.directory(data.clone(), 0o700);
    let members: Vec<_> = etcd.members.iter().map(|(name, address)| format!("{name}=https://{address}:2380")).collect();
    let state = match etcd.state {
        EtcdState::New => "new",
        EtcdState::Existing => "existing",
    };
    let args = vec![
        format!("--name={node}"),
        format!("--data-dir={data}"),
        format!("--listen-client-urls=https://{address}:2379,https://127.0.0.1:2379"),
        format!("--advertise-client-urls=https://{address}:2379"),
        format!("--listen-peer-urls=https://{address}:2380"),
        format!("--initial-advertise-peer-urls=https://{address}:2380"),
        format!("--initial-cluster={}", members.join(",")),
        format!("--initial-cluster-state={state}"),
        format!("--initial-cluster-token={}", etcd.token),
        "--client-cert-auth=true".into(),
        format!("--trusted-ca-file={ca}"),
        format!("--cert-file={server}"),
        format!("--key-file={server_key}"),
        "--peer-client-cert-auth=true".into(),
        format!("--peer-trusted-ca-file={ca}"),
        format!("--peer-cert-file={peer}"),
        format!("--peer-key-file={peer_key}"),
        "--tls-min-version=TLS1.2".into(),
        "--listen-metrics-urls=http://127.0.0.1:2381".into(),
        format!("--heartbeat-interval={}", timing.heartbeat),
        format!("--election-timeout={}", timing.election),
        format!("--quota-backend-bytes={QUOTA_BYTES}"),
        // The apiserver's watch caches need to hear how far they are (kubeadm sets the same).
        "--watch-progress-notify-interval=5s".into(),
        // Cheap checks that members hold the same data; the apiserver compacts every 5 minutes, which the second needs.
        "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true".into(),
    ];
    let mut service = Service::program("etcd, the cluster's memory", "etcd", args).run_as(USER.0);
    // Asked to end, it hands its leadership over and waits for its clients' watches, six seconds in vain, with one member less all the while.
    // Whatever it has acknowledged is on the disk.
    service.extra.push("TimeoutStopSec=2s");
    // For snapshots and for people: no reason to restart.
    part.tools(&["etcdctl", "etcdutl"], artifacts)?;
    part.finish(&service, &["etcd"], artifacts, http("http://127.0.0.1:2381/readyz"))
}
