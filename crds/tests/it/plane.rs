//! A real etcd and a real kube-apiserver on loopback, in a directory that goes with them.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The Kubernetes version whose binaries are taken from the store.
const KUBERNETES: &str = "v1.36.4";
const TOKEN: &str = "for-this-test-only";

/// A process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The running plane. Fields are dropped in order: the API server before its etcd, both before their directory.
pub struct Plane {
    api_server: Process,
    etcd: Process,
    kubectl: PathBuf,
    dir: tempfile::TempDir,
    port: u16,
}

/// A program from `SLIPWAY_TEST_BIN`, else from the artifact store: `index/<component>/<version>/<name>.json` names its digest.
fn program(component: &str, name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("SLIPWAY_TEST_BIN") {
        let path = Path::new(&dir).join(name);
        assert!(path.exists(), "SLIPWAY_TEST_BIN has no {name}: {}", path.display());
        return path;
    }
    let store = std::env::var_os("SLIPWAY_STORE").map(PathBuf::from);
    let store = store.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/slipway/store")));
    let found = store.and_then(|store| {
        let versions = fs::read_dir(store.join("index").join(component)).ok()?;
        let mut entries: Vec<PathBuf> = versions.flatten().map(|v| v.path().join(format!("{name}.json"))).filter(|p| p.exists()).collect();
        // Of etcd any version will do.
        entries.sort_by_key(|p| (component == "kubernetes" && !p.to_string_lossy().contains(KUBERNETES), p.clone()));
        let entry: serde_json::Value = serde_json::from_str(&fs::read_to_string(entries.first()?).ok()?).ok()?;
        Some(store.join("sha256").join(entry.get("sha256")?.as_str()?).join(name)).filter(|p| p.exists())
    });
    found.unwrap_or_else(|| {
        panic!("this test needs {name}, and there is none in the artifact store: run `cargo xtask test --only artifacts` or `slipway artifacts fetch`, or set SLIPWAY_TEST_BIN to a directory with etcd, kube-apiserver and kubectl")
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(dir: &Path, program: &Path, args: &[String]) -> Process {
    let log = File::create(dir.join("log").join(program.file_name().unwrap())).unwrap();
    // It dies with this process, also when that aborts and drops nothing.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    Process(child)
}

impl Plane {
    /// Starts both and waits until the API is ready. A port that somebody else took in between costs another try.
    pub async fn start() -> (Self, Client) {
        for _ in 0..3 {
            let mut plane = Self::spawn();
            match plane.ready(Duration::from_secs(120)).await {
                Ok(client) => return (plane, client),
                Err(why) => eprintln!("{why}\n{}", plane.logs()),
            }
        }
        panic!("no API server after three tries");
    }

    fn spawn() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("log")).unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd = [
            "--data-dir=etcd".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        ];
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(root.join("sa.key"), key.serialize_pem()).unwrap();
        fs::write(root.join("sa.pub"), key.public_key_pem()).unwrap();
        fs::write(root.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        let api_server = [
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            "--cert-dir=certs".to_owned(),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-account-key-file=sa.pub".to_owned(),
            "--service-account-signing-key-file=sa.key".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        ];
        let etcd = start(root, &program("etcd", "etcd"), &etcd);
        let api_server = start(root, &program("kubernetes", "kube-apiserver"), &api_server);
        Self { api_server, etcd, kubectl: program("kubernetes", "kubectl"), port, dir }
    }

    async fn ready(&mut self, limit: Duration) -> Result<Client, String> {
        let deadline = Instant::now() + limit;
        let mut last = "nothing yet".to_owned();
        while Instant::now() < deadline {
            for (name, process) in [("etcd", &mut self.etcd), ("kube-apiserver", &mut self.api_server)] {
                if let Some(status) = process.0.try_wait().unwrap() {
                    return Err(format!("{name} ended: {status}"));
                }
            }
            match self.client().await {
                Ok(client) => {
                    let asked = client.request_text(http::Request::get("/readyz").body(Vec::new()).unwrap());
                    match tokio::time::timeout(Duration::from_secs(5), asked).await {
                        Ok(Ok(_)) => return Ok(client),
                        Ok(Err(e)) => last = e.to_string(),
                        Err(_) => last = "/readyz does not answer".to_owned(),
                    }
                }
                Err(e) => last = e,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("not ready within {limit:?}: {last}"))
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    async fn client(&self) -> Result<Client, String> {
        let certificate = self.dir.path().join("certs/apiserver.crt");
        if !certificate.exists() {
            return Err("no certificate yet".to_owned());
        }
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": certificate } }],
            "users": [{ "name": "it", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": "default" } }],
        });
        fs::write(self.kubeconfig(), text.to_string()).unwrap();
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).map_err(|e| e.to_string())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(|e| e.to_string())?;
        Client::try_from(config).map_err(|e| e.to_string())
    }

    /// Runs kubectl and returns what it printed; its failure is the test's.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = Command::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(args)
            .env("HOME", self.dir.path())
            .output()
            .unwrap();
        assert!(status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["etcd", "kube-apiserver"] {
            let log = fs::read_to_string(self.dir.path().join("log").join(name)).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            text.extend(tail.iter().rev().map(|line| format!("{name}: {line}\n")));
        }
        text
    }
}
