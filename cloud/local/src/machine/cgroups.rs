//! A machine's cgroups, in every hierarchy that the host has (v1, v2, or both): who is in them, thawing, killing, removing.

use crate::host::HostError;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Mount points of the cgroup hierarchies, out of /proc/self/mounts.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let groups = fields.filter(|f| matches!(f.get(2), Some(&("cgroup" | "cgroup2"))));
    groups.filter_map(|f| f.get(1).map(PathBuf::from)).collect()
}

/// Directories of a cgroup (absolute, like `/slw/i-4`) in all hierarchies that have it.
pub fn directories(cgroup: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let all = hierarchies(&mounts).into_iter().map(|h| h.join(cgroup.trim_start_matches('/')));
    all.filter(|d| d.is_dir()).collect()
}

/// Calls `visit` for a directory's subdirectories and then for itself.
fn bottom_up(directory: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            bottom_up(&entry.path(), visit);
        }
    }
    visit(directory);
}

/// Processes in a cgroup and below, over all hierarchies.
pub fn processes(cgroup: &str) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for directory in directories(cgroup) {
        bottom_up(&directory, &mut |d| {
            let text = std::fs::read_to_string(d.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 1));
        });
    }
    found
}

/// Lets frozen processes run again: a frozen one cannot die, and its PID namespace waits for it for ever. (A container that its runtime
/// paused inside a machine is frozen.)
fn thaw(cgroup: &str) {
    for directory in directories(cgroup) {
        bottom_up(&directory, &mut |d| {
            // Only one of the two exists; a write that is refused means that there is nothing to thaw.
            let _ = std::fs::write(d.join("freezer.state"), "THAWED");
            let freeze = d.join("cgroup.freeze");
            if freeze.exists() {
                let _ = std::fs::write(freeze, "0");
            }
        });
    }
}

/// Kills everything in a cgroup and below, once. Frozen ones too.
pub fn kill(cgroup: &str) {
    use nix::sys::signal::{Signal, kill};
    for pid in processes(cgroup) {
        // Gone in the meantime is what we want.
        let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
    thaw(cgroup);
}

/// Removes a cgroup and all below it in every hierarchy. Fails while somebody is in it.
pub fn remove(cgroup: &str) -> Result<(), HostError> {
    let mut failed = None;
    for directory in directories(cgroup) {
        bottom_up(&directory, &mut |d| match std::fs::remove_dir(d) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => failed = Some((d.to_owned(), e)),
            _ => {}
        });
    }
    match failed {
        Some((path, why)) => Err(HostError::File { what: "removing the cgroup", path, why }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(hierarchies(mounts), [PathBuf::from("/sys/fs/cgroup/cpu"), PathBuf::from("/sys/fs/cgroup/unified")]);
    }
}
