//! What a local cloud has on this host outside of anybody's records: for leak checks, for the doctor, and to know what to remove.

use crate::layout::Layout;
use crate::machine::cgroups;
use crate::network::NAMESPACES;
use std::path::Path;

/// Names in a directory that begin with a prefix.
pub(crate) fn names(directory: &Path, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(prefix)).collect();
    found.sort();
    found
}

/// Mount points below a directory, innermost last.
pub(crate) fn mounts_below(directory: &Path) -> Vec<String> {
    let below = format!("{}/", directory.display());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|p| p.starts_with(&below)).map(ToOwned::to_owned).collect()
}

/// Set for the daemon by its parent, and so for every program that it runs: what a killed daemon left behind is known by it.
pub(crate) const STATE_VARIABLE: &str = "SLIPWAY_LOCAL_STATE";

/// Processes of a state directory, save this one: the daemon and its parent, and programs that they run or ran. (pid, command line)
pub(crate) fn processes_of(state: &Path) -> Vec<(i32, Vec<String>)> {
    let own = std::process::id().to_string();
    let wanted = state.to_string_lossy();
    let variable = format!("{STATE_VARIABLE}={wanted}");
    let words = |file: String| -> Vec<String> {
        let text = std::fs::read(file).unwrap_or_default();
        text.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).filter(|w| !w.is_empty()).collect()
    };
    let mut found = Vec::new();
    for name in names(Path::new("/proc"), "").into_iter().filter(|n| *n != own) {
        let Ok(pid) = name.parse::<i32>() else { continue };
        let command = words(format!("/proc/{pid}/cmdline"));
        let program = command.first().and_then(|w| w.rsplit('/').next()).unwrap_or_default();
        let named = || command.iter().any(|w| *w == wanted || w.starts_with(&format!("{wanted}/")));
        let ours = matches!(program, "slipway-local" | "runc") && named();
        if ours || (!command.is_empty() && words(format!("/proc/{pid}/environ")).contains(&variable)) {
            found.push((pid, command));
        }
    }
    found
}

/// Everything on this host that carries the prefix `name` or lies in `state`, in words; empty after a removal.
#[must_use]
pub fn leftovers(name: &str, state: &Path) -> Vec<String> {
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
    let prefix = format!("{name}-");
    let mut found = Vec::new();
    let running = processes_of(&state).into_iter().filter(|(_, words)| !words.iter().any(|w| w == "remove"));
    found.extend(running.map(|(pid, words)| format!("process {pid}: {}", words.join(" ").trim())));
    let cgroup = format!("/{name}");
    found.extend(cgroups::processes(&cgroup).into_iter().map(|pid| format!("process {pid} in the cgroup {cgroup}")));
    found.extend(cgroups::directories(&cgroup).iter().map(|d| format!("cgroup {}", d.display())));
    found.extend(names(Path::new(NAMESPACES), &prefix).into_iter().map(|n| format!("network namespace {n}")));
    let links = names(Path::new("/sys/class/net"), &prefix);
    found.extend(links.iter().map(|n| format!("link {n}")));
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    found.extend(
        routes.lines().filter(|l| l.starts_with(&prefix)).map(|l| format!("route {}", l.split_whitespace().collect::<Vec<_>>().join(" "))),
    );
    found.extend(mounts_below(&state).into_iter().map(|m| format!("mount {m}")));
    if state.exists() {
        found.push(format!("files in {}", state.display()));
    }
    found
}

/// Prefixes of all local clouds whose core is up on this host.
pub(crate) fn clouds() -> Vec<String> {
    let cores = names(Path::new(NAMESPACES), "");
    cores.iter().filter_map(|n| n.strip_suffix("-core")).map(ToOwned::to_owned).collect()
}

/// Ids of machines that left anything: cgroups, containers, namespaces.
pub(crate) fn machines(layout: &Layout) -> Vec<String> {
    let prefix = format!("{}-", layout.name);
    let mut ids = std::collections::BTreeSet::new();
    for directory in cgroups::directories(&layout.cgroup()) {
        let is_machine = |n: &String| n.starts_with("i-") || n.starts_with("lb-");
        ids.extend(names(&directory, "").into_iter().filter(is_machine));
    }
    let containers = names(&layout.runc(), &prefix).into_iter().chain(names(Path::new(NAMESPACES), &prefix));
    ids.extend(
        containers.filter_map(|n| n.strip_prefix(&prefix).map(ToOwned::to_owned)).filter(|n| n.starts_with("i-") || n.starts_with("lb-")),
    );
    ids.into_iter().collect()
}
