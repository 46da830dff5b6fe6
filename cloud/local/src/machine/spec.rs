//! A machine as runc wants it told (OCI runtime specification).

use serde_json::{Value, json};
use std::path::Path;

/// Names of the capabilities, by number.
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
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What must not be given to a machine even where the host has it: it shares the kernel, its modules and its clock with the host.
const WITHHELD: &[&str] = &["SYS_MODULE", "SYS_TIME", "SYS_RAWIO", "WAKE_ALARM", "MAC_OVERRIDE", "MAC_ADMIN"];

/// Capabilities to ask for: those in the bounding set of this process (`CapBnd` of /proc/self/status); asking for others fails.
pub fn capabilities(status: &str) -> Vec<String> {
    let bounding = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapBnd:")?.trim(), 16).ok()).unwrap_or(0);
    let in_bounds = CAPABILITIES.iter().enumerate().filter(|(n, _)| (bounding >> n) & 1 == 1);
    in_bounds.filter(|(_, name)| !WITHHELD.contains(name)).map(|(_, name)| format!("CAP_{name}")).collect()
}

/// What differs between machines.
#[derive(Debug, Clone)]
pub struct Spec<'a> {
    /// Container id, also the name of its network namespace.
    pub container: &'a str,
    /// Host name.
    pub hostname: &'a str,
    /// cgroup of the machine in every hierarchy.
    pub cgroup: &'a str,
    /// Paths of the host that it may read, and where: the artifact store, for one.
    pub binds: &'a [(&'a Path, &'a str)],
    /// Which boot this is.
    pub boot: u64,
    /// Fault: PID 1 does nothing.
    pub never_boot: bool,
}

/// config.json. `exists` tells what the host has, `capabilities` what may be asked for.
pub fn render(spec: &Spec<'_>, capabilities: &[String], exists: impl Fn(&str) -> bool) -> Value {
    let filesystem = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let bind = |from: &str, to: &str, mode: &str| json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", mode]});
    let mut mounts = vec![
        filesystem("/proc", "proc", &[]),
        filesystem("/dev", "tmpfs", &["nosuid", "mode=755"]),
        filesystem("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        filesystem("/dev/shm", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        filesystem("/dev/mqueue", "mqueue", &[]),
        filesystem("/sys", "sysfs", &["rw", "nosuid", "noexec", "nodev"]),
        filesystem("/sys/fs/cgroup", "cgroup", &["rw", "nosuid", "noexec", "nodev"]),
        filesystem("/run", "tmpfs", &["nosuid", "nodev", "mode=755"]),
        filesystem("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
        bind("/usr", "/usr", "ro"),
        bind("/usr/bin", "/bin", "ro"),
        bind("/usr/sbin", "/sbin", "ro"),
        bind("/usr/lib", "/lib", "ro"),
    ];
    // Debian's links for iptables and the like point to /etc/alternatives; dbus needs its policy.
    for path in ["/usr/lib64", "/etc/dbus-1", "/etc/alternatives"] {
        if exists(path) {
            mounts.push(bind(path, path.strip_prefix("/usr").unwrap_or(path), "ro"));
        }
    }
    // kubelet reads it for out-of-memory kills.
    if exists("/dev/kmsg") {
        mounts.push(bind("/dev/kmsg", "/dev/kmsg", "rw"));
    }
    mounts.extend(spec.binds.iter().map(|(from, to)| bind(&from.to_string_lossy(), to, "ro")));
    let init =
        if spec.never_boot { json!(["/usr/bin/sleep", "infinity"]) } else { json!(["/usr/lib/systemd/systemd", "--show-status=false"]) };
    let namespaces: Vec<Value> = ["pid", "mount", "ipc", "uts", "cgroup"].iter().map(|kind| json!({"type": kind})).collect();
    let network = json!({"type": "network", "path": format!("{}/{}", crate::network::NAMESPACES, spec.container)});
    json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": "rootfs"},
        "annotations": {"slipway.dev/boot": spec.boot.to_string()},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "cwd": "/",
            "args": init,
            "env": ["container=slipway", "PATH=/opt/slipway/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": capabilities},
        },
        "mounts": mounts,
        "linux": {
            "rootfsPropagation": "rshared",
            "cgroupsPath": spec.cgroup,
            "resources": {"devices": [{"allow": true, "access": "rwm"}]},
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "namespaces": namespaces.into_iter().chain([network]).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn only_what_is_in_the_bounding_set_is_asked_for() {
        assert_eq!(capabilities("Name:\tx\nCapBnd:\t0000000000000003\n"), ["CAP_CHOWN", "CAP_DAC_OVERRIDE"]);
        let most = capabilities("CapBnd:\t000001fffeffffff\n");
        assert!(!most.contains(&"CAP_SYS_RESOURCE".into()) && !most.contains(&"CAP_SYS_MODULE".into()) && most.contains(&"CAP_BPF".into()));
        assert!(capabilities("").is_empty());
    }

    #[test]
    fn rendered_as_reviewed() {
        let spec = Spec {
            container: "slw-i-4",
            hostname: "demo-cp-0",
            cgroup: "/slw/i-4",
            binds: &[(Path::new("/store"), "/opt/slipway/store")],
            boot: 2,
            never_boot: false,
        };
        insta::assert_yaml_snapshot!(render(&spec, &["CAP_CHOWN".into()], |path| path != "/dev/kmsg"));
    }
}
