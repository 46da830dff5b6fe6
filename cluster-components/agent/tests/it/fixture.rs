//! Test fixture: a machine of its own, a container in which systemd is PID 1, with the agent as its enabled service. Its only network is a
//! link to the host; its store is a directory of the host's, mounted read-only, so that a test can alter what the machine may not.

use crate::authority::Authority;
use crate::process::{TOKEN, claim};
use crate::waiting::until;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use slipway_agent_api::{AgentClient, AgentError};
use slipway_model::{ArtifactRef, Unit, UnitState};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// As the name of the units says: what a container without devices, consoles and clocks of its own does not need.
const MASKED: &[&str] = &[
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
    "systemd-update-done.service",
    "systemd-random-seed.service",
    "systemd-journal-catalog-update.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path",
    "ldconfig.service",
    "getty.target",
    "console-getty.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "proc-sys-fs-binfmt_misc.automount",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
];

const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
];

const AGENT_UNIT: &str = "\
[Unit]
Wants=dbus.socket
After=dbus.socket
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/opt/slipway/agent run
Restart=always
RestartSec=300ms
WatchdogSec=30s
KillMode=process
[Install]
WantedBy=multi-user.target
";

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

    fn lay_out(&self) {
        for directory in "proc sys dev usr bin sbin lib lib64 run tmp root var/tmp var/log/journal var/lib/systemd opt/slipway".split(' ') {
            fs::create_dir_all(self.path(directory)).unwrap();
        }
        fs::create_dir_all(self.store()).unwrap();
        let id = hex::encode(&Sha256::digest(&self.name)[..16]);
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nmessagebus:x:100:100::/:/bin/false\n", 0o644);
        self.write("/etc/group", "root:x:0:\nmessagebus:x:100:\nadm:x:4:\ntty:x:5:\nutmp:x:43:\nsystemd-journal:x:999:\n", 0o644);
        self.write("/etc/machine-id", &format!("{id}\n"), 0o644);
        self.write("/etc/hostname", &self.name, 0o644);
        self.write("/etc/os-release", "ID=test\n", 0o644);
        let identity = json!({"machineUid": self.uid, "name": self.name, "clusterUid": "c", "token": TOKEN, "listen": "0.0.0.0:7443"});
        self.write("/etc/slipway/identity.json", &identity.to_string(), 0o600);
        self.write("/etc/systemd/system/slipway-agent.service", AGENT_UNIT, 0o644);
        let system = self.path("/etc/systemd/system");
        fs::create_dir_all(system.join("multi-user.target.wants")).unwrap();
        symlink("../slipway-agent.service", system.join("multi-user.target.wants/slipway-agent.service")).unwrap();
        symlink("/usr/lib/systemd/system/multi-user.target", system.join("default.target")).unwrap();
        for unit in MASKED {
            symlink("/dev/null", system.join(unit)).unwrap();
        }
        fs::write(self.directory.path().join("config.json"), self.oci().to_string()).unwrap();
    }

    fn oci(&self) -> Value {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
        let bounding = u64::from_str_radix(bounding, 16).unwrap();
        // In the kernel's order, up to SETFCAP.
        let capabilities: Vec<_> =
            CAPABILITIES.iter().enumerate().filter(|(n, _)| bounding >> n & 1 == 1).map(|(_, name)| format!("CAP_{name}")).collect();
        let bind = |from: &str, to: &str, how: &str| json!({"destination": to, "source": from, "type": "bind", "options": ["rbind", how]});
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "source": kind, "type": kind, "options": options});
        let agent = env!("CARGO_BIN_EXE_slipway-agent");
        json!({
            "ociVersion": "1.0.2",
            "hostname": self.name,
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/usr/lib/systemd/systemd", "--show-status=false"],
                "env": ["container=slipway-test", "PATH=/usr/sbin:/usr/bin"],
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": capabilities},
            },
            "mounts": [
                mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666"]), mount("/dev/shm", "tmpfs", &[]),
                mount("/sys", "sysfs", &["rw"]), mount("/sys/fs/cgroup", "cgroup", &["rw"]),
                mount("/run", "tmpfs", &["mode=755"]), mount("/tmp", "tmpfs", &[]),
                bind("/usr", "/usr", "ro"), bind("/usr/bin", "/bin", "ro"), bind("/usr/sbin", "/sbin", "ro"),
                bind("/usr/lib", "/lib", "ro"), bind("/usr/lib64", "/lib64", "ro"), bind("/etc/dbus-1", "/etc/dbus-1", "ro"),
                bind(agent, "/opt/slipway/agent", "ro"), bind(self.store().to_str().unwrap(), "/opt/slipway/store", "ro"),
            ],
            "linux": {
                "rootfsPropagation": "rshared", "cgroupsPath": format!("/{}", self.name),
                "resources": {"devices": [{"allow": true, "access": "rwm"}]},
                "namespaces": [
                    {"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "cgroup"},
                    {"type": "network", "path": format!("/run/netns/{}", self.name)},
                ],
            },
        })
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
