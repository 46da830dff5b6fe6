//! An agent of its own on loopback, its file system a directory. It reaches no systemd, so its plans hold no units.

use crate::authority::Authority;
use crate::waiting::until;
use secrecy::SecretString;
use slipway_agent_api::{AgentClient, AgentError, UnclaimedAgent};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub const TOKEN: &str = "70ken";
pub const UID: &str = "uid-1";

pub fn token() -> SecretString {
    TOKEN.into()
}

pub struct Agent {
    process: Option<Child>,
    pub address: SocketAddr,
    pub authority: Authority,
    root: tempfile::TempDir,
}

impl Agent {
    pub async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::fs::create_dir_all(root.path().join("etc/slipway")).unwrap();
        let identity = format!(r#"{{"machineUid":"{UID}","name":"one","clusterUid":"c","token":"{TOKEN}","listen":"{address}"}}"#);
        std::fs::write(root.path().join("etc/slipway/identity.json"), identity).unwrap();
        let mut agent = Self { process: None, address, authority: Authority::new(), root };
        agent.run().await;
        agent
    }

    pub async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_slipway-agent"))
            .args(["run", "--root"])
            .arg(self.root.path())
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.process = Some(process);
        let address = self.address;
        until("the agent listens", || tokio::net::TcpStream::connect(address)).await;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.path().join(absolute.trim_start_matches('/'))
    }

    fn log_path(&self) -> PathBuf {
        self.path("/agent.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    pub async fn unclaimed(&self) -> UnclaimedAgent {
        AgentClient::connect_unclaimed(self.address).await.unwrap()
    }

    pub async fn claim_once(&self) -> Result<(), AgentError> {
        claim(&self.unclaimed().await, &self.authority, UID).await
    }

    pub async fn operator(&self) -> AgentClient {
        AgentClient::connect(self.address, UID, &self.authority.operator()).await.unwrap()
    }

    /// Claimed and sealed.
    pub async fn claimed(&self) -> AgentClient {
        self.claim_once().await.unwrap();
        let client = self.operator().await;
        assert!(client.get_info().await.unwrap().sealed);
        client
    }
}

pub async fn claim(agent: &UnclaimedAgent, authority: &Authority, uid: &str) -> Result<(), AgentError> {
    let csr = agent.claim(&token(), uid).await?;
    agent.install(&token(), uid, &authority.sign(&csr, uid), &authority.pem).await
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the agent's log:\n{}", self.log());
        }
    }
}

/// A call of any path with any body, without the generated client: grpc-status and grpc-message.
pub async fn raw(address: SocketAddr, mut config: rustls::ClientConfig, path: &str, body: Vec<u8>) -> (i32, String) {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(slipway_agent_api::server_name(UID)).unwrap();
    let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://agent{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http_body_util::Full::new(hyper::body::Bytes::from(body)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    (header("grpc-status").parse().unwrap(), header("grpc-message").replace("%20", " "))
}
