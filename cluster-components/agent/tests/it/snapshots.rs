//! Snapshots of a real etcd, in a machine of its own. Its programs are those of the artifact store, or of the directory in `SLIPWAY_TEST_BIN`.

use crate::fixture::{Machine, service};
use crate::process::{Agent, UID, raw};
use crate::waiting::{LONG, state, until};
use futures::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use sha2::{Digest, Sha256};
use slipway_agent_api::v1::EtcdSnapshotSummary;
use slipway_agent_api::{AgentClient, AgentError, ErrorClass};
use slipway_model::{Directory, File, MachinePlan, Probe, ProbeKind, User};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PKI: &str = "/etc/kubernetes/pki/etcd";
const PROGRAMS: [&str; 3] = ["etcd", "etcdctl", "etcdutl"];

/// A program, the newest there is.
fn program(name: &str) -> PathBuf {
    if let Some(directory) = std::env::var_os("SLIPWAY_TEST_BIN") {
        return Path::new(&directory).join(name);
    }
    let store = std::env::var_os("SLIPWAY_STORE").map(PathBuf::from);
    let store = store.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/slipway/store"));
    let versions = fs::read_dir(store.join("index/etcd")).into_iter().flatten().flatten();
    let entry = versions.map(|v| v.path().join(format!("{name}.json"))).filter(|p| p.exists()).max();
    let entry = entry.unwrap_or_else(|| {
        panic!("this test needs {name}: run `slipway artifacts fetch`, or set SLIPWAY_TEST_BIN to a directory with {}", PROGRAMS.join(", "))
    });
    let entry: serde_json::Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    store.join("sha256").join(entry["sha256"].as_str().unwrap()).join(name)
}

/// A CA's certificate, and a certificate with its key that serves as server and as client.
fn certificates() -> [String; 3] {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let pem = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap().pem();
    [ca_pem, pem, key.serialize_pem()]
}

/// A machine whose plan is one member of etcd, as the components render it.
fn plan(machine: &Machine) -> MachinePlan {
    let owned = |path: String, content: String| File { path, mode: 0o600, owner: "etcd".into(), content: content.into() };
    let names = ["ca.crt", "server.crt", "server.key"].map(|name| format!("{PKI}/{name}"));
    let mut unit = service("etcd", "etcd", &[&names[0], &names[1], &names[2]]);
    let flags = [
        "--name=one --data-dir=/var/lib/etcd --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=one=http://127.0.0.1:2380 --listen-client-urls=https://127.0.0.1:2379 --advertise-client-urls=https://127.0.0.1:2379",
        "--listen-metrics-urls=http://127.0.0.1:2381 --client-cert-auth=true --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt --key-file=/etc/kubernetes/pki/etcd/server.key",
    ];
    unit.content = format!("[Service]\nUser=etcd\nExecStart=/opt/slipway/bin/etcd {}\nRestart=always\nRestartSec=300ms\n", flags.join(" "));
    let directory = |path: &str| Directory { path: path.into(), mode: 0o700, owner: "etcd".into() };
    MachinePlan {
        users: vec![User { name: "etcd".into(), id: 2379 }],
        directories: vec![directory("/var/lib/etcd"), directory(PKI)],
        files: names.into_iter().zip(certificates()).map(|(path, pem)| owned(path, pem)).collect(),
        artifacts: PROGRAMS.map(|name| machine.adopted(name, &program(name))).into(),
        units: vec![unit],
        probes: vec![Probe {
            name: "etcd".into(),
            unit: "etcd.service".into(),
            kind: ProbeKind::Http { url: "http://127.0.0.1:2381/readyz".into() },
        }],
        gate: None,
    }
}

async fn with_etcd() -> (Machine, AgentClient) {
    let machine = Machine::boot().await;
    let client = machine.claimed().await;
    client.apply_plan(None, 1, &plan(&machine)).await.unwrap();
    state(&client, "etcd serves", |state| state.probes.iter().any(|probe| probe.healthy)).await;
    (machine, client)
}

/// Ten megabytes, more than a stream takes before somebody reads it.
fn fill(machine: &Machine) {
    let etcdctl = format!(
        "/opt/slipway/bin/etcdctl --endpoints=https://127.0.0.1:2379 --cacert={PKI}/ca.crt --cert={PKI}/server.crt --key={PKI}/server.key"
    );
    let said =
        machine.exec(&format!("for n in 1 2 3 4 5 6 7 8 9 10; do head -c 750000 /dev/urandom | base64 -w0 | {etcdctl} put key$n; done"));
    assert_eq!(said.matches("OK").count(), 10, "{said}");
}

/// All of a snapshot, and its largest piece.
async fn whole(client: &AgentClient) -> Result<(Vec<u8>, usize, EtcdSnapshotSummary), AgentError> {
    let (mut data, mut largest) = (vec![], 0);
    let mut pieces = client.etcd_snapshot(1).await?;
    while let Some(piece) = tokio::time::timeout(LONG, pieces.next()).await.unwrap() {
        let piece = piece?;
        if let Some(summary) = piece.summary {
            assert!(pieces.next().await.is_none(), "the last word is the last");
            return Ok((data, largest, summary));
        }
        largest = largest.max(piece.data.len());
        data.extend(piece.data);
    }
    panic!("no last word after {} bytes", data.len());
}

fn nothing_is_left(machine: &Machine) -> Result<(), String> {
    let left = machine.exec("ls /var/lib/slipway/agent");
    if left.contains("snapshot") { Err(left) } else { Ok(()) }
}

#[tokio::test]
async fn a_snapshot_comes_whole_and_leaves_nothing_behind() {
    let (machine, client) = with_etcd().await;
    fill(&machine);
    let (data, largest, summary) = whole(&client).await.unwrap();
    assert!(data.len() > 10_000_000 && largest <= 1 << 20, "{} bytes, {largest} at once", data.len());
    assert_eq!((summary.sha256, summary.bytes), (hex::encode(Sha256::digest(&data)), data.len() as u64));
    let version = machine.exec("/opt/slipway/bin/etcd --version | head -1");
    assert_eq!(version, format!("etcd Version: {}", summary.etcd_version.trim_start_matches('v')));
    nothing_is_left(&machine).unwrap();

    // Another program agrees on what was sent.
    let copy = tempfile::tempdir().unwrap();
    let path = copy.path().join("copy.db");
    fs::write(&path, &data).unwrap();
    let said = Command::new(program("etcdutl")).args(["snapshot", "status", "--write-out=json"]).arg(&path).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(
        (said["revision"].as_i64(), said["totalKey"].as_u64(), said["hash"].as_u64()),
        (Some(summary.revision), Some(summary.keys), Some(u64::from(summary.hash)))
    );
    assert!(summary.revision > 10 && summary.keys >= 10, "{} keys at revision {}", summary.keys, summary.revision);
}

#[tokio::test]
async fn one_is_taken_at_a_time_and_one_that_nobody_reads_any_more_ends() {
    let (machine, client) = with_etcd().await;
    fill(&machine);
    let mut first = client.etcd_snapshot(1).await.unwrap();
    let piece = first.next().await.unwrap().unwrap();
    assert!(!piece.data.is_empty());
    // The file is open and has no name any more: whoever kills the agent now leaves nothing.
    nothing_is_left(&machine).unwrap();
    let error = client.etcd_snapshot(1).await.err().unwrap();
    assert!(error.to_string().contains("another etcd snapshot") && error.class() == ErrorClass::Retry, "{error}");
    drop(first);
    until("the turn is free again", || async { whole(&client).await.map(drop) }).await;
    nothing_is_left(&machine).unwrap();

    // An agent that dies while etcdctl writes.
    let _second = client.etcd_snapshot(1).await.unwrap();
    let agent = machine.main_pid("slipway-agent.service");
    machine.exec(&format!("kill -9 {agent}"));
    until("the agent is another process", || async {
        if machine.main_pid("slipway-agent.service") == agent { Err("not yet") } else { Ok(()) }
    })
    .await;
    machine.answers().await;
    until("what it left is swept away", || async { nothing_is_left(&machine) }).await;
    until("the next one takes it", || async { whole(&machine.operator().await).await.map(drop) }).await;
}

#[tokio::test]
async fn what_hinders_a_snapshot_is_told_with_the_way_out() {
    let (machine, client) = with_etcd().await;
    let tiny = "/var/lib/slipway/agent/snapshot";
    machine.exec(&format!("mkdir {tiny} && mount -t tmpfs -o size=1m tmpfs {tiny}"));
    let error = whole(&client).await.unwrap_err();
    assert!(error.to_string().contains("free space on the machine's disk") && error.class() == ErrorClass::Retry, "{error}");
    machine.exec(&format!("umount {tiny}"));
    machine.exec("mv /opt/slipway/bin/etcdctl /opt/slipway/bin/away; ln -s /bin/false /opt/slipway/bin/etcdctl");
    let error = whole(&client).await.unwrap_err();
    assert!(error.to_string().contains("etcdctl endpoint status") && error.to_string().contains("exit status: 1"), "{error}");
    machine.exec("mv /opt/slipway/bin/away /opt/slipway/bin/etcdctl");
    whole(&client).await.unwrap();
    nothing_is_left(&machine).unwrap();
}

#[tokio::test]
async fn only_the_leader_is_heard_and_only_by_its_own_machine_with_etcd() {
    let agent = Agent::start().await;
    let client = agent.claimed().await;
    client.apply_plan(None, 5, &MachinePlan::default()).await.unwrap();
    let late = client.etcd_snapshot(4).await.err().unwrap();
    assert!(matches!(late, AgentError::StaleEpoch { heard: 5, .. }), "{late:?}");
    let none = client.etcd_snapshot(5).await.err().unwrap();
    assert!(matches!(&none, AgentError::Refused { why, .. } if why.contains("its plan runs no etcd")), "{none:?}");
    // machine_uid = "uid-2", epoch = 5, with the five bytes before a message.
    let body = [&[0, 0, 0, 0, 9, 10, 5][..], b"uid-2", &[16, 5]].concat();
    let (status, words) = raw(agent.address, agent.authority.rustls(), "/slipway.agent.v1.Agent/EtcdSnapshot", body).await;
    assert_eq!((status, words), (9, format!("this is machine {UID}, not uid-2")));
}
