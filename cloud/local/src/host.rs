//! Running the host's programs and touching its files, with deadlines and with errors that name what was tried.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// Longest that one of the host's programs may take. They take milliseconds; only a sick host is slower.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why the host did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file could not be read, written or removed.
    #[error("{what} {}: {why}", path.display())]
    File {
        /// What was tried, e.g. `writing`.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        why: std::io::Error,
    },
    /// A program could not be started.
    #[error("cannot run {program}: {why}; `slipway doctor` lists the programs that must be installed")]
    NoProgram {
        /// Its name.
        program: String,
        /// The kernel's answer.
        why: std::io::Error,
    },
    /// A program said no.
    #[error("`{command}` failed: {output}")]
    Failed {
        /// With its arguments.
        command: String,
        /// What it wrote.
        output: String,
    },
    /// A program did not end.
    #[error("`{command}` did not end within {DEADLINE:?}")]
    TooSlow {
        /// With its arguments.
        command: String,
    },
    /// Something did not come to pass in time.
    #[error("{0}")]
    Waited(String),
    /// TLS material.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// What cannot be served as asked for.
    #[error("{0}")]
    Refused(String),
}

/// Attaches what was tried, and on which file.
pub fn file<T>(what: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T, HostError> {
    result.map_err(|why| HostError::File { what, path: path.to_owned(), why })
}

/// Runs a program with `input` on its standard input; gives its standard output. Killed at the deadline, or when the caller goes away.
pub async fn run<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<String, HostError> {
    let (code, out, err) = output(program, args, input).await?;
    if code != 0 {
        let said = if err.trim().is_empty() { out } else { err };
        return Err(HostError::Failed { command: describe(program, args), output: format!("exit {code}: {}", said.trim()) });
    }
    Ok(out)
}

fn describe<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let args: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
    format!("{program} {}", args.join(" "))
}

/// Like [`run`], whatever the exit code: (code, standard output, standard error).
pub async fn output<S: AsRef<OsStr>>(program: &str, args: &[S], input: &str) -> Result<(i32, String, String), HostError> {
    let missing = |why| HostError::NoProgram { program: program.to_owned(), why };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(missing)?;
    let feed = child.stdin.take();
    let all = async {
        if let Some(mut stdin) = feed {
            // A program that does not read to the end tells why by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let out =
        tokio::time::timeout(DEADLINE, all).await.map_err(|_| HostError::TooSlow { command: describe(program, args) })?.map_err(missing)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code().unwrap_or(-1), text(&out.stdout), text(&out.stderr)))
}

/// Runs an `ip` batch, in a network namespace or on the host. What exists already is no error, so that a batch can be run again over
/// what a killed daemon left.
pub async fn ip(namespace: Option<&str>, lines: &[String]) -> Result<(), HostError> {
    let mut args = Vec::new();
    if let Some(namespace) = namespace {
        args.extend(["-n", namespace]);
    }
    args.extend(["-force", "-batch", "-"]);
    let (code, _, err) = output("ip", &args, &(lines.join("\n") + "\n")).await?;
    let wrong: Vec<&str> =
        err.lines().filter(|l| !l.is_empty() && !l.contains("File exists") && !l.starts_with("Command failed")).collect();
    if code != 0 && !wrong.is_empty() {
        let place = namespace.map(|n| format!(" in namespace {n}")).unwrap_or_default();
        return Err(HostError::Failed { command: format!("ip{place}: {}", lines.join("; ")), output: wrong.join("; ") });
    }
    Ok(())
}

/// Does blocking work on a thread of its own.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, HostError> + Send + 'static) -> Result<T, HostError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(HostError::Waited(format!("a worker thread died: {e}"))),
    }
}

/// Writes a file so that after a crash there is either the old one or the new one, whole.
pub fn write_durable(path: &Path, data: &[u8]) -> Result<(), HostError> {
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("tmp");
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600);
    let mut out = file("creating", &temporary, open.open(&temporary))?;
    file("writing", &temporary, out.write_all(data))?;
    file("syncing", &temporary, out.sync_all())?;
    file("renaming", path, std::fs::rename(&temporary, path))?;
    sync_parent(path)
}

/// Removes a file for good. What is gone is removed.
pub fn remove_durable(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => {
            file("removing", path, done)?;
            sync_parent(path)
        }
    }
}

fn sync_parent(path: &Path) -> Result<(), HostError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    file("syncing", parent, std::fs::File::open(parent).and_then(|dir| dir.sync_all()))
}

/// Writes a file of a machine's disk: no need to outlive a power cut of the host.
pub fn write(path: &Path, data: &[u8], mode: u32) -> Result<(), HostError> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(parent) = path.parent() {
        file("creating", parent, std::fs::create_dir_all(parent))?;
    }
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(mode);
    file("writing", path, open.open(path).and_then(|mut out| out.write_all(data)))
}

/// Makes a symbolic link, or leaves the one that is there.
pub fn symlink(target: &str, path: &Path) -> Result<(), HostError> {
    if let Some(parent) = path.parent() {
        file("creating", parent, std::fs::create_dir_all(parent))?;
    }
    match std::os::unix::fs::symlink(target, path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        done => file("linking", path, done),
    }
}

/// Removes a tree. What is gone is removed.
pub fn remove_tree(path: &Path) -> Result<(), HostError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => file("removing", path, done),
    }
}
