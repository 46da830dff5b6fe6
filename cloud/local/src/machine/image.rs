//! What is on a machine's disk before its first boot. The host's /usr is the operating system; /etc and /var are the machine's own.

use crate::host::{self, HostError};
use std::net::Ipv4Addr;
use std::path::Path;

/// What a machine is for decides its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role<'a> {
    /// Runs a user-data script once, and what that script makes of it ever after.
    Instance {
        /// The script.
        user_data: &'a str,
    },
    /// Runs HAProxy.
    Balancer {
        /// Its first configuration.
        config: &'a str,
    },
}

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Host name.
    pub hostname: &'a str,
    /// Address of its one link.
    pub address: Ipv4Addr,
    /// Seed of its machine-id.
    pub uid: &'a str,
}

/// Units of the host's /usr that make no sense, or do harm, in a machine without devices, consoles, users and a clock of its own.
const MASKED: &[&str] = &[
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-logind.service",
    "systemd-initctl.socket",
    "systemd-machine-id-commit.service",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pstore.service",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-boot-system-token.service",
    "getty.target",
    "getty-static.service",
    "console-getty.service",
    "systemd-modules-load.service",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-fs-fuse-connections.mount",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-tmpfiles-clean.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "fstrim.timer",
    "dpkg-db-backup.timer",
    "man-db.timer",
    "logrotate.timer",
    "systemd-ask-password-wall.path",
    "systemd-ask-password-console.path",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
    "ldconfig.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    "systemd-random-seed.service",
    "docker.service",
    "docker.socket",
    "nftables.service",
    "conntrackd.service",
    "networking.service",
    "cron.service",
    "ssh.service",
    "rsyslog.service",
    "unattended-upgrades.service",
    "polkit.service",
];

/// Everything in a pod shares mounts with its node (kubelet's and containerd's mounts must reach containers), so / is made shared first of all.
const SHARED: &str = "[Unit]\nDescription=Shared mounts\nDefaultDependencies=no\nBefore=sysinit.target\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/mount --make-rshared /\n";

/// Marked as done only after success: a script that failed for a passing reason is run again.
const USER_DATA: &str = "[Unit]\nDescription=User data, once\nConditionPathExists=!/var/lib/cloud/user-data.done\nStartLimitIntervalSec=0\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nEnvironment=HOME=/root\nWorkingDirectory=/\nUMask=0022\n\
    ExecStart=/bin/sh /var/lib/cloud/user-data\nExecStartPost=/usr/bin/touch /var/lib/cloud/user-data.done\nRestart=on-failure\nRestartSec=2\n";

const HAPROXY: &str = "[Unit]\nDescription=Load balancer\nStartLimitIntervalSec=0\n\
    [Service]\nExecStart=/usr/sbin/haproxy -db -f /etc/haproxy/haproxy.cfg\nRuntimeDirectory=haproxy\nRestart=always\nRestartSec=100ms\nOOMScoreAdjust=0\n";

/// In memory, since a journal's fsyncs would be etcd's too; small; not on to the host's kernel log.
const JOURNALD: &str = "[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\nForwardToSyslog=no\nForwardToKMsg=no\nForwardToConsole=no\nForwardToWall=no\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n";

/// Timeouts as a person waits for, not as a data centre does.
const SYSTEM: &str = "[Manager]\nDefaultTimeoutStartSec=60s\nDefaultTimeoutStopSec=20s\nShowStatus=no\nLogTarget=journal\nDefaultEnvironment=PATH=/opt/slipway/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nmessagebus:x:100:100::/:/usr/sbin/nologin\n\
    haproxy:x:101:101::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nlp:x:7:\nkmem:x:15:\ndialout:x:20:\naudio:x:29:\nutmp:x:43:\nvideo:x:44:\n\
    users:x:100:\nmessagebus:x:110:\nhaproxy:x:101:\ninput:x:104:\nkvm:x:105:\nrender:x:106:\nsgx:x:107:\ncdrom:x:24:\ntape:x:26:\nsystemd-journal:x:999:\nnogroup:x:65534:\n";

/// Mount points and directories that must exist.
const DIRECTORIES: &[&str] = &[
    "proc",
    "sys",
    "dev",
    "usr",
    "bin",
    "sbin",
    "lib",
    "lib64",
    "run",
    "tmp",
    "root",
    "home",
    "mnt",
    "srv",
    "opt/slipway/bin",
    "opt/slipway/store",
    "etc/dbus-1",
    "etc/alternatives",
    "var/tmp",
    "var/log",
    "var/lib/systemd",
    "var/lib/kubelet",
    "var/lib/cloud",
    "var/cache",
];

/// A machine-id: 32 hexadecimal digits that follow from the machine's UID.
fn machine_id(uid: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(uid.as_bytes()).get(..16).unwrap_or_default())
}

/// Files with their modes, links, in the order of their making. Pure: goldens are made of it.
pub fn files(identity: &Identity<'_>, role: &Role<'_>) -> Vec<(&'static str, String, u32)> {
    let Identity { hostname, address, uid } = identity;
    let mut files = vec![
        ("etc/passwd", PASSWD.to_owned(), 0o644),
        ("etc/group", GROUP.to_owned(), 0o644),
        // nft names protocols by it, and kube-proxy compares those names: without it every second sync of its maps goes wrong.
        ("etc/protocols", "ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n".to_owned(), 0o644),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n".to_owned(), 0o644),
        ("etc/resolv.conf", String::new(), 0o644),
        ("etc/hosts", format!("127.0.0.1 localhost\n{address} {hostname}\n"), 0o644),
        ("etc/hostname", format!("{hostname}\n"), 0o644),
        ("etc/machine-id", format!("{}\n", machine_id(uid)), 0o444),
        ("etc/os-release", "ID=debian\nNAME=\"Slipway machine\"\nPRETTY_NAME=\"Slipway machine\"\n".to_owned(), 0o644),
        ("etc/systemd/journald.conf", JOURNALD.to_owned(), 0o644),
        ("etc/systemd/system.conf", SYSTEM.to_owned(), 0o644),
        ("etc/systemd/system/slipway-shared-mounts.service", SHARED.to_owned(), 0o644),
    ];
    match role {
        Role::Instance { user_data } => {
            files.push(("var/lib/cloud/user-data", (*user_data).to_owned(), 0o600));
            files.push(("etc/systemd/system/slipway-user-data.service", USER_DATA.to_owned(), 0o644));
        }
        Role::Balancer { config } => {
            files.push(("etc/haproxy/haproxy.cfg", (*config).to_owned(), 0o644));
            files.push(("etc/systemd/system/haproxy.service", HAPROXY.to_owned(), 0o644));
        }
    }
    files
}

/// Writes a machine's disk. May be repeated until the machine has booted once.
pub fn write(root: &Path, identity: &Identity<'_>, role: &Role<'_>) -> Result<(), HostError> {
    for directory in DIRECTORIES {
        let path = root.join(directory);
        host::file("creating", &path, std::fs::create_dir_all(&path))?;
    }
    for (path, text, mode) in files(identity, role) {
        host::write(&root.join(path), text.as_bytes(), mode)?;
    }
    let units = root.join("etc/systemd/system");
    let own = match role {
        Role::Instance { .. } => "slipway-user-data.service",
        Role::Balancer { .. } => "haproxy.service",
    };
    host::symlink(&format!("../{own}"), &units.join("multi-user.target.wants").join(own))?;
    host::symlink("../slipway-shared-mounts.service", &units.join("sysinit.target.wants/slipway-shared-mounts.service"))?;
    host::symlink("/usr/lib/systemd/system/multi-user.target", &units.join("default.target"))?;
    for unit in MASKED.iter().filter(|unit| **unit != own) {
        host::symlink("/dev/null", &units.join(unit))?;
    }
    Ok(())
}
