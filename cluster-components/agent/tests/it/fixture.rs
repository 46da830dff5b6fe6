//! Test fixture: a machine of its own, a container in which systemd is PID 1, with the agent as its enabled service. Its only network is a
//! link to the host; its store is a directory of the host's, mounted read-only, so that a test can alter what the machine may not.

use crate::authority::Authority;
use crate::process::{TOKEN, claim};
use crate::waiting::until;
use serde_json::json;
use sha2::{Digest, Sha256};
use slipway_agent_api::{AgentClient, AgentError};
use slipway_local::image;
use slipway_local::spec::{self, Spec};
use slipway_model::{ArtifactRef, Unit, UnitState};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const AGENT_UNIT: &str = "\
[Unit]
Wants=dbus.socket
After=dbus.socket
StartLimitIntervalSec=0
[Service]
Type=notify
EnvironmentFile=-/etc/agent.env
ExecStart=/opt/slipway/bin/slipway-agent run
Restart=always
RestartSec=300ms
WatchdogSec=30s
KillMode=process
[Install]
WantedBy=multi-user.target
";

/// Where a machine finds the build of the agent under test.
pub const AGENT: &str = "/opt/slipway/agent";

pub struct Machine {
    pub name: String,
    pub uid: String,
    pub address: SocketAddr,
    pub authority: Authority,
    directory: tempfile::TempDir,
}

fn run(command: &str) -> bool {
    Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

impl Machine {
    /// Boots one and waits until its agent answers.
    pub async fn boot() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // A /30 of 198.19.240.0/20 each.
        let net = 0xC613_F000 + ((pid * 16 + n) % 1024) * 4;
        let (host, own) = (Ipv4Addr::from(net + 1), Ipv4Addr::from(net + 2));
        let name = format!("slwa{pid}-{n}");
        let machine = Self {
            uid: format!("uid-{pid}-{n}"),
            address: SocketAddr::from((own, 7443)),
            authority: Authority::new(),
            directory: tempfile::Builder::new().prefix(&name).tempdir().unwrap(),
            name,
        };
        machine.lay_out();
        let (name, link) = (&machine.name, format!("v{pid}-{n}"));
        assert!(
            run(&format!(
                "set -e; ip netns add {name}; ip link add {link} type veth peer name eth0 netns {name}; ip addr add {host}/30 dev {link}; \
                 ip link set {link} up; ip -n {name} addr add {own}/30 dev eth0; ip -n {name} link set eth0 up; ip -n {name} link set lo up"
            )),
            "no network for a machine: these tests need root and ip(8)"
        );
        machine.power_on();
        machine.answers().await;
        machine
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    /// A path of the machine's, as the host sees it.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root().join(absolute.trim_start_matches('/'))
    }

    fn write(&self, absolute: &str, text: &str, mode: u32) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A disk and a bundle as the local cloud makes them, with the agent where user data would have put it.
    fn lay_out(&self) {
        let IpAddr::V4(address) = self.address.ip() else { panic!("machines have IPv4 addresses") };
        let who = image::Identity { hostname: &self.name, address, uid: &self.uid };
        image::write(&self.root(), &who, &image::Role::Instance { user_data: "" }).unwrap();
        let identity = json!({"machineUid": self.uid, "name": self.name, "clusterUid": "c", "token": TOKEN, "listen": "0.0.0.0:7443"});
        self.write("/etc/slipway/identity.json", &identity.to_string(), 0o600);
        self.write("/etc/systemd/system/slipway-agent.service", AGENT_UNIT, 0o644);
        symlink("../slipway-agent.service", self.path("/etc/systemd/system/multi-user.target.wants/slipway-agent.service")).unwrap();
        fs::create_dir_all(self.path("/opt/slipway/bin")).unwrap();
        symlink(AGENT, self.path("/opt/slipway/bin/slipway-agent")).unwrap();
        fs::create_dir_all(self.store()).unwrap();
        let spec = Spec {
            container: &self.name,
            hostname: &self.name,
            cgroup: &format!("/{}", self.name),
            binds: &[(Path::new(env!("CARGO_BIN_EXE_slipway-agent")), AGENT), (&self.store(), "/opt/slipway/store")],
            boot: 1,
            never_boot: false,
        };
        let capabilities = spec::capabilities(&fs::read_to_string("/proc/self/status").unwrap());
        let bundle = spec::render(&spec, &capabilities, |path| Path::new(path).exists());
        fs::write(self.directory.path().join("config.json"), bundle.to_string()).unwrap();
    }

    pub fn power_on(&self) {
        let directory = self.directory.path().display();
        let started = run(&format!("exec runc run --detach --bundle {directory} {} >{directory}/runc.log 2>&1", self.name));
        assert!(started, "{}", fs::read_to_string(self.directory.path().join("runc.log")).unwrap_or_default());
    }

    /// Pulls the plug.
    pub fn power_off(&self) {
        let name = &self.name;
        run(&format!("runc kill {name} KILL; for i in $(seq 200); do runc delete -f {name} && exit 0; sleep 0.05; done"));
    }

    pub async fn answers(&self) {
        until("the agent answers", || async {
            match AgentClient::connect_unclaimed(self.address).await?.get_info().await {
                Ok(_) | Err(AgentError::AlreadyClaimed { .. }) => Ok(()),
                Err(e) => Err(e),
            }
        })
        .await;
    }

    pub async fn claimed(&self) -> AgentClient {
        claim(&AgentClient::connect_unclaimed(self.address).await.unwrap(), &self.authority, &self.uid).await.unwrap();
        self.operator().await
    }

    pub async fn operator(&self) -> AgentClient {
        let identity = self.authority.operator();
        until("the operator is let in", || AgentClient::connect(self.address, &self.uid, &identity)).await
    }

    /// Runs a command in the machine: what it prints.
    pub fn exec(&self, command: &str) -> String {
        let output = Command::new("runc").args(["exec", &self.name, "sh", "-c", command]).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn main_pid(&self, unit: &str) -> String {
        self.exec(&format!("systemctl show --property=MainPID --value {unit}"))
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Where the host finds a program of the store.
    pub fn stored(&self, name: &str) -> PathBuf {
        self.store().join(name)
    }

    /// Puts a program into the store.
    pub fn program(&self, name: &str, text: &str) -> ArtifactRef {
        fs::write(self.stored(name), text).unwrap();
        fs::set_permissions(self.stored(name), fs::Permissions::from_mode(0o555)).unwrap();
        let sources = vec![format!("file:///opt/slipway/store/{name}")];
        ArtifactRef { name: name.into(), sha256: hex::encode(Sha256::digest(text)), size: text.len() as u64, sources }
    }
}

impl Machine {
    /// Puts a program of the host's into the store.
    pub fn adopted(&self, name: &str, path: &Path) -> ArtifactRef {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::write(self.stored(name), &bytes).unwrap();
        fs::set_permissions(self.stored(name), fs::Permissions::from_mode(0o555)).unwrap();
        let sources = vec![format!("file:///opt/slipway/store/{name}")];
        ArtifactRef { name: name.into(), sha256: hex::encode(Sha256::digest(&bytes)), size: bytes.len() as u64, sources }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the machine's journal:\n{}", self.exec("journalctl --no-pager --lines=60"));
        }
        self.power_off();
        run(&format!("ip netns del {}", self.name));
        run(&format!("for d in /sys/fs/cgroup/*/{0} /sys/fs/cgroup/{0}; do find $d -depth -type d -exec rmdir {{}} +; done", self.name));
    }
}

/// A service that runs a program of the plan for ever.
pub fn service(name: &str, program: &str, files: &[&str]) -> Unit {
    Unit {
        name: format!("{name}.service"),
        content: format!("[Service]\nExecStart=/opt/slipway/bin/{program}\nRestart=always\nRestartSec=300ms\n"),
        state: UnitState::Running,
        files: files.iter().map(|&file| file.to_owned()).collect(),
        artifacts: vec![program.to_owned()],
    }
}
