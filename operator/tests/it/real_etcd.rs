//! The client against real members of etcd, on loopback addresses of their own with the ports they have in production.

use secrecy::ExposeSecret;
use slipway_model::MachineName;
use slipway_operator::etcd::{Etcd, EtcdError, EtcdIdentity, GrpcEtcd};
use slipway_pki::{ClusterPki, Identity, Leaf};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// etcd from `SLIPWAY_TEST_BIN`, else from the artifact store, whatever its version.
fn program() -> PathBuf {
    if let Some(dir) = std::env::var_os("SLIPWAY_TEST_BIN") {
        return Path::new(&dir).join("etcd");
    }
    let store = std::env::var_os("SLIPWAY_STORE").map(PathBuf::from);
    let store = store.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/slipway/store")));
    let found = store.and_then(|store| {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(store.join("index/etcd")).ok()?.flatten().map(|v| v.path().join("etcd.json")).collect();
        entries.sort();
        let entry: serde_json::Value = serde_json::from_str(&fs::read_to_string(entries.first()?).ok()?).ok()?;
        Some(store.join("sha256").join(entry.get("sha256")?.as_str()?).join("etcd")).filter(|p| p.exists())
    });
    found.expect("this test needs etcd, and there is none in the artifact store: run `slipway artifacts fetch`, or set SLIPWAY_TEST_BIN to a directory with it")
}

struct Place {
    dir: tempfile::TempDir,
    pki: ClusterPki,
    identity: EtcdIdentity,
    /// 127.77.x.0, another one for each process.
    network: u32,
}

fn name(n: u32) -> MachineName {
    format!("demo-cp-{n}").parse().unwrap()
}

impl Place {
    fn new() -> Self {
        let now = jiff::Timestamp::now();
        let pki = ClusterPki::generate("demo", now).unwrap();
        let own = pki.issue(&Identity::EtcdOperator, now).unwrap();
        let identity = EtcdIdentity::new(&own, pki.etcd.certificate()).unwrap();
        let network = Ipv4Addr::new(127, 77, 0, 0).to_bits() | ((std::process::id() % 256) << 8);
        Self { dir: tempfile::tempdir().unwrap(), pki, identity, network }
    }

    fn address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | (10 + n))
    }

    fn peer_url(&self, n: u32) -> String {
        format!("https://{}:2380", self.address(n))
    }

    /// Starts a member that begins with these.
    fn start(&self, n: u32, state: &str, members: &[u32]) -> Process {
        let (root, address, member) = (self.dir.path(), self.address(n), name(n).to_string());
        let write = |file: &str, leaf: &Leaf| {
            let path = |kind: &str| root.join(format!("{member}-{file}.{kind}"));
            fs::write(path("crt"), leaf.certificate()).unwrap();
            fs::write(path("key"), leaf.key().expose_secret()).unwrap();
        };
        let now = jiff::Timestamp::now();
        write("server", &self.pki.issue(&Identity::EtcdServer { member: member.clone(), address }, now).unwrap());
        write("peer", &self.pki.issue(&Identity::EtcdPeer { member: member.clone(), address }, now).unwrap());
        fs::write(root.join("ca.crt"), self.pki.etcd.certificate()).unwrap();
        let initial: Vec<String> = members.iter().map(|m| format!("{}={}", name(*m), self.peer_url(*m))).collect();
        let args = [
            format!("--name={member}"),
            format!("--data-dir={member}"),
            "--unsafe-no-fsync".into(),
            format!("--listen-client-urls=https://{address}:2379"),
            format!("--advertise-client-urls=https://{address}:2379"),
            format!("--listen-peer-urls={}", self.peer_url(n)),
            format!("--initial-advertise-peer-urls={}", self.peer_url(n)),
            format!("--initial-cluster={}", initial.join(",")),
            format!("--initial-cluster-state={state}"),
            "--client-cert-auth".into(),
            "--trusted-ca-file=ca.crt".into(),
            format!("--cert-file={member}-server.crt"),
            format!("--key-file={member}-server.key"),
            "--peer-client-cert-auth".into(),
            "--peer-trusted-ca-file=ca.crt".into(),
            format!("--peer-cert-file={member}-peer.crt"),
            format!("--peer-key-file={member}-peer.key"),
        ];
        let log = File::create(root.join(format!("{member}.log"))).unwrap();
        let mut command = Command::new(program());
        command.args(args).current_dir(root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap())
    }

    async fn connect(&self, n: u32, called: &MachineName) -> Result<GrpcEtcd, EtcdError> {
        let silent = |e: std::io::Error| EtcdError::Silent { machine: called.clone(), why: e.to_string() };
        let stream = TcpStream::connect((self.address(n), 2379)).await.map_err(silent)?;
        GrpcEtcd::connect(stream, called, &self.identity).await
    }

    /// A member that answers and knows a leader.
    async fn ready(&self, n: u32) -> GrpcEtcd {
        let begin = Instant::now();
        loop {
            let why = match self.connect(n, &name(n)).await {
                Ok(member) => match member.report().await {
                    Ok(report) if report.leader.is_some() => return member,
                    other => format!("{other:?}"),
                },
                Err(error) => error.to_string(),
            };
            let log = || fs::read_to_string(self.dir.path().join(format!("{}.log", name(n)))).unwrap_or_default();
            assert!(begin.elapsed() < Duration::from_secs(30), "{} never answered: {why}\n{}", name(n), log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_member_joins_votes_takes_over_and_the_first_one_leaves() {
    let place = Place::new();
    let _first = place.start(0, "new", &[0]);
    let first = place.ready(0).await;
    let founder = first.report().await.unwrap();
    assert_eq!(founder.leader, Some(founder.id));
    assert!(founder.db_bytes > 0 && founder.errors.is_empty(), "{founder:?}");

    let learner = first.add_learner(&place.peer_url(1)).await.unwrap();
    let listed = first.members().await.unwrap();
    let unstarted = listed.iter().find(|m| m.id == learner).unwrap();
    assert!(unstarted.learner && unstarted.name.is_empty() && unstarted.peer_urls == [place.peer_url(1)], "{listed:?}");
    let again = first.add_learner(&place.peer_url(1)).await;
    assert!(matches!(again, Err(EtcdError::Refused { .. })), "{again:?}");
    let early = first.promote(learner).await;
    assert!(matches!(early, Err(EtcdError::Refused { .. })), "one that never started is not in sync: {early:?}");

    let _second = place.start(1, "existing", &[0, 1]);
    let second = place.ready(1).await;
    assert!(second.report().await.unwrap().learner);
    assert!(second.members().await.is_err(), "a learner answers no linearizable read");
    let begin = Instant::now();
    while let Err(error) = first.promote(learner).await {
        assert!(matches!(error, EtcdError::Refused { .. }) && begin.elapsed() < Duration::from_secs(20), "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(second.members().await.unwrap().iter().all(|m| !m.learner), "no older than the change");

    let by_another = second.move_leader(learner).await;
    assert!(matches!(by_another, Err(EtcdError::Refused { .. })), "only the leader hands over: {by_another:?}");
    first.move_leader(learner).await.unwrap();
    assert_eq!(second.report().await.unwrap().leader, Some(learner));
    // etcd wants to have been connected to all for five seconds before it lets a living one go.
    let begin = Instant::now();
    while let Err(error) = second.remove(founder.id).await {
        assert!(matches!(error, EtcdError::Silent { .. }) && begin.elapsed() < Duration::from_secs(20), "{error:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(second.members().await.unwrap().iter().map(|m| m.id).collect::<Vec<_>>(), [learner]);
    let twice = second.remove(founder.id).await;
    assert!(matches!(twice, Err(EtcdError::NoSuchMember { .. })), "{twice:?}");

    let mistaken = place.connect(1, &name(0)).await.err();
    assert!(matches!(mistaken, Some(EtcdError::Silent { .. })), "a member proves whose it is: {mistaken:?}");
}
