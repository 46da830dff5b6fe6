//! Processes as the host sees them, those inside machines included.

use std::path::Path;

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// On the host.
    pub pid: i32,
    /// File name of its first argument.
    pub name: String,
    /// All arguments.
    pub arguments: Vec<String>,
    /// What `/etc/hostname` says where it lives: a machine's name, for what runs in one.
    pub host: String,
}

/// Everything that runs.
#[must_use]
pub fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A process may end while it is looked at: then it is none.
            let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
            let arguments: Vec<String> =
                arguments.split(|b| *b == 0).filter(|a| !a.is_empty()).map(|a| String::from_utf8_lossy(a).into_owned()).collect();
            let name = arguments.first()?.rsplit('/').next()?.to_owned();
            let host = std::fs::read_to_string(Path::new("/proc").join(pid_text(pid)).join("root/etc/hostname")).unwrap_or_default();
            Some(Process { pid, name, arguments, host: host.trim().to_owned() })
        })
        .collect()
}

fn pid_text(pid: i32) -> String {
    pid.to_string()
}
