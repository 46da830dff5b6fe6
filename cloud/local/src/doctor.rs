//! What this host must have for a local cloud, and how to mend what is missing. Reads only; changes nothing.

use crate::daemon::serve::{SYSCTLS, sysctl_path};
use crate::{leftovers, network};
use ipnet::Ipv4Net;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it will do.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where nothing must be done.
    pub mend: String,
}

fn check(name: impl Into<String>, ok: bool, found: impl Into<String>, mend: impl Into<String>) -> Check {
    Check { name: name.into(), ok, found: found.into(), mend: if ok { String::new() } else { mend.into() } }
}

/// Programs that the daemon or the machines run, and Debian's package of each. Looked for in the PATH that machines have.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/lib/systemd/systemd", "systemd"),
    ("journalctl", "systemd"),
    ("dbus-daemon", "dbus"),
    ("runc", "runc"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("sysctl", "procps"),
    ("mount", "mount"),
];

/// Kernel features by a symbol that is there when they are built in or loaded, and the module that brings them otherwise.
const FEATURES: &[(&str, &str, &str)] = &[
    ("virtual Ethernet links", "veth_newlink", "veth"),
    ("bridges", "br_add_bridge", "bridge"),
    ("nftables", "nf_tables_newtable", "nf_tables"),
    ("connection tracking", "nf_conntrack_in", "nf_conntrack"),
];

/// Free disk and memory that a cluster of five machines needs.
const DISK_GIB: u64 = 5;
const MEMORY_MIB: u64 = 3 << 10;
/// Files that one process may have open.
const FILES: u64 = 4096;

/// For what local cloud.
#[derive(Debug, Clone)]
pub struct Options {
    /// State directory.
    pub state: PathBuf,
    /// Artifact store.
    pub store: PathBuf,
    /// Prefix.
    pub name: String,
    /// Addresses.
    pub range: Ipv4Net,
    /// Whether its daemon runs: then what it occupies is its own.
    pub running: bool,
}

/// All checks. Runs programs and reads files: a blocking call of some tens of milliseconds.
#[must_use]
pub fn checks(options: &Options) -> Vec<Check> {
    let mut all = vec![root(), capabilities(), namespaces(), cgroups(), overlay()];
    all.extend(PROGRAMS.iter().map(|(program, package)| has_program(program, package)));
    let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    all.extend(FEATURES.iter().map(|(feature, symbol, module)| kernel(feature, &symbols, symbol, module)));
    all.extend(SYSCTLS.iter().map(|(name, least)| limit(name, *least)));
    all.push(files());
    all.push(addresses(&options.name, options.range));
    if !options.running {
        all.push(remains(&options.state, &options.name));
        all.push(memory());
    }
    all.extend([disk("state", &options.state), disk("store", &options.store)]);
    all
}

fn root() -> Check {
    let root = rustix::process::geteuid().is_root();
    check("root", root, if root { "running as root" } else { "not root" }, "run it as root: sudo -i")
}

fn capabilities() -> Check {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok()).unwrap_or(0);
    let needed = [("NET_ADMIN", 12), ("SYS_CHROOT", 18), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("MKNOD", 27)];
    let missing: Vec<&str> = needed.iter().filter(|(_, bit)| (effective >> bit) & 1 == 0).map(|(name, _)| *name).collect();
    let found = if missing.is_empty() { "as needed".to_owned() } else { format!("missing: {}", missing.join(", ")) };
    check("capabilities", missing.is_empty(), found, "run it on a host or virtual machine, or in a container with --privileged")
}

fn namespaces() -> Check {
    let missing: Vec<&str> =
        ["pid", "mnt", "net", "uts", "ipc", "cgroup"].into_iter().filter(|n| !Path::new("/proc/self/ns").join(n).exists()).collect();
    let found = if missing.is_empty() { "all six".to_owned() } else { format!("missing: {}", missing.join(", ")) };
    check("namespaces", missing.is_empty(), found, "use a kernel with CONFIG_NAMESPACES and all kinds of namespaces")
}

/// Controllers that systemd and kubelet need within machines.
fn cgroups() -> Check {
    let root = Path::new("/sys/fs/cgroup");
    let mend = "mount cgroups at /sys/fs/cgroup, as systemd does, with the controllers cpu, memory and pids";
    if let Ok(two) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        let missing: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|c| !two.split_whitespace().any(|have| have == *c)).collect();
        return check("cgroups", missing.is_empty(), format!("version 2 with {}", two.trim()), mend);
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let has = |controller: &str| mounts.lines().any(|l| l.contains(" cgroup ") && l.split([' ', ',']).any(|w| w == controller));
    let wanted = ["cpu", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "name=systemd"];
    let missing: Vec<&str> = wanted.into_iter().filter(|c| !has(c)).collect();
    let found =
        if missing.is_empty() { "version 1, all controllers".to_owned() } else { format!("version 1 without {}", missing.join(", ")) };
    check("cgroups", missing.is_empty(), found, mend)
}

fn overlay() -> Check {
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = systems.lines().any(|l| l.split_whitespace().last() == Some("overlay"));
    check("overlayfs", has, if has { "there" } else { "not registered" }, "modprobe overlay")
}

fn find_program(program: &str) -> Option<String> {
    let places = ["", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"];
    places.iter().map(|p| format!("{p}{program}")).find(|p| p.starts_with('/') && Path::new(p).exists())
}

fn has_program(program: &str, package: &str) -> Check {
    let found = find_program(program);
    let name = program.rsplit('/').next().unwrap_or(program);
    let place = found.clone().unwrap_or_else(|| "not found".to_owned());
    check(format!("program {name}"), found.is_some(), place, format!("apt-get install {package}"))
}

fn kernel(feature: &str, symbols: &str, symbol: &str, module: &str) -> Check {
    let there = symbols.lines().any(|l| l.split_whitespace().nth(2) == Some(symbol));
    let modprobe = || Command::new("modprobe").args(["--dry-run", "--quiet", module]).stderr(Stdio::null()).status();
    let ok = there || modprobe().is_ok_and(|status| status.success());
    let found = if there {
        "there"
    } else if ok {
        "a module that can be loaded"
    } else {
        "not in this kernel"
    };
    check(format!("kernel: {feature}"), ok, found, format!("modprobe {module}, or use a kernel that has it"))
}

fn limit(name: &str, least: u64) -> Check {
    let path = sysctl_path(name);
    let value = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
    let enough = value.parse::<u64>().is_ok_and(|v| v >= least);
    let can = rustix::fs::access(&path, rustix::fs::Access::WRITE_OK).is_ok();
    let found = if enough { value } else { format!("{value}, will be raised to {least} and put back on removal") };
    check(name, enough || can, found, format!("sysctl -w {name}={least}"))
}

fn files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    check(
        "open files",
        limit >= FILES,
        format!("at most {limit}"),
        format!("ulimit -Hn {FILES}, or LimitNOFILE={FILES} in the unit that starts this"),
    )
}

fn addresses(name: &str, range: Ipv4Net) -> Check {
    match network::range_conflict(range, &format!("{name}-host")) {
        Ok(None) => check(format!("addresses {range}"), true, "free", ""),
        Ok(Some(conflict)) => check(
            format!("addresses {range}"),
            false,
            format!("in use: {conflict}"),
            "choose another range, e.g. a free /20 of 198.18.0.0/15",
        ),
        Err(e) => check(format!("addresses {range}"), false, e.to_string(), "apt-get install iproute2"),
    }
}

/// Remains without a daemon block a new one.
fn remains(state: &Path, name: &str) -> Check {
    let configured = state.join("config.json").exists();
    let left = if configured { Vec::new() } else { leftovers::leftovers(name, &state.join("none")) };
    let found = match (configured, left.is_empty()) {
        (true, _) => format!("a local cloud in {}", state.display()),
        (false, true) => "nothing of an earlier local cloud".to_owned(),
        (false, false) => left.join("; "),
    };
    let mend = format!("slipway-local remove --state {} --name {name}, or choose another name", state.display());
    check(format!("name {name}"), left.is_empty(), found, mend)
}

fn disk(what: &str, directory: &Path) -> Check {
    let place = directory.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(place).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize) >> 30);
    check(
        format!("disk for the {what}"),
        free >= DISK_GIB,
        format!("{free} GiB free at {}", place.display()),
        format!("free {DISK_GIB} GiB, or put the {what} elsewhere"),
    )
}

fn memory() -> Check {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find(|l| l.starts_with("MemAvailable:"));
    let mib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) >> 10;
    check("memory", mib >= MEMORY_MIB, format!("{mib} MiB available"), format!("free {MEMORY_MIB} MiB, or make fewer machines"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn every_failed_check_says_how_to_mend_it() {
        let nowhere = PathBuf::from("/nowhere/at/all");
        let range = "198.18.0.0/15".parse().unwrap();
        let all = checks(&Options { state: nowhere.clone(), store: nowhere, name: "none".into(), range, running: false });
        assert!(all.len() > 20);
        for check in all {
            assert_eq!(check.ok, check.mend.is_empty(), "{check:?}");
            assert!(!check.found.is_empty(), "{check:?}");
        }
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let missing = has_program("no-such-program", "some-package");
        assert!(!missing.ok && missing.mend.contains("some-package"));
    }
}
