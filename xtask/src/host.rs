//! What the host must have: looked at before anything is changed, installed where that can be done.

use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Debian package, and a file that shows it is there.
const PACKAGES: [(&str, &str); 17] = [
    ("systemd", "/usr/lib/systemd/systemd"),
    ("dbus", "/usr/bin/dbus-daemon"),
    ("runc", "/usr/sbin/runc"),
    ("haproxy", "/usr/sbin/haproxy"),
    ("nftables", "/usr/sbin/nft"),
    ("iptables", "/usr/sbin/iptables"),
    ("iproute2", "/usr/sbin/ip"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("procps", "/usr/sbin/sysctl"),
    ("curl", "/usr/bin/curl"),
    ("openssl", "/usr/bin/openssl"),
    ("gcc", "/usr/bin/gcc"),
    ("pkg-config", "/usr/bin/pkg-config"),
    ("protobuf-compiler", "/usr/bin/protoc"),
    ("libprotobuf-dev", "/usr/include/google/protobuf/descriptor.proto"),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
];

/// Least free space for a first run, in GiB: Go's and cargo's caches, the store, five machines.
const DISK_GIB: u64 = 15;

fn missing() -> Vec<&'static str> {
    PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists()).map(|(package, _)| *package).collect()
}

/// Everything that is wrong and that nobody here can mend, each with its way out.
fn obstacles() -> Result<Vec<String>> {
    let mut found = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        found.push("not root: machines are made of namespaces, cgroups and mounts. Run it from a root shell (sudo -i).".to_owned());
    }
    if !missing().is_empty() && !Path::new("/usr/bin/apt-get").exists() {
        found.push(format!("no apt-get here to install {}: install them as your distribution names them.", missing().join(", ")));
    }
    match Command::new("go").arg("version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !go_is_new_enough(&text) {
                found.push(format!("{}: Kubernetes 1.36 needs Go 1.26 or newer, from https://go.dev/dl.", text.trim()));
            }
        }
        Err(_) => found.push(
            "no Go on PATH: it builds Kubernetes where its releases cannot be reached. Install 1.26 or newer from https://go.dev/dl."
                .into(),
        ),
    }
    let free = nix::sys::statvfs::statvfs(&crate::run::root()?)?;
    let gib = free.blocks_available().saturating_mul(free.fragment_size()) >> 30;
    if gib < DISK_GIB {
        found.push(format!("{gib} GiB free here: a first run needs {DISK_GIB} GiB. Free some, or clone onto a larger disk."));
    }
    Ok(found)
}

/// `go version go1.26.8 linux/amd64` → whether that is at least 1.26.
fn go_is_new_enough(text: &str) -> bool {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("go1."));
    version.and_then(|v| v.split('.').next()?.parse::<u32>().ok()).is_some_and(|minor| minor >= 26)
}

/// Looks first, then installs what is missing. Changes nothing where something stands in the way.
pub fn prepare() -> Result<()> {
    let obstacles = obstacles()?;
    if !obstacles.is_empty() {
        bail!("nothing was changed, since something stands in the way:\n  - {}", obstacles.join("\n  - "));
    }
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing host packages: {}", missing.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "DPkg::Lock::Timeout=120"]).args(args);
        command.stdout(std::process::Stdio::null());
        crate::run::must(&mut command)
    };
    apt(&["update"])?;
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    apt(&install)?;
    let still = self::missing();
    if !still.is_empty() {
        bail!("apt-get installed {} but their files are not where they should be", still.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn go_versions_are_read() {
        assert!(super::go_is_new_enough("go version go1.26.8 linux/amd64"));
        assert!(super::go_is_new_enough("go version go1.27 linux/amd64"));
        assert!(!super::go_is_new_enough("go version go1.25.1 linux/amd64"));
        assert!(!super::go_is_new_enough("gibberish"));
    }
}
