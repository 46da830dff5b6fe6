//! Running `go build` on an embedded module, with settings under which the same inputs make the same bytes.
//!
//! Go's own build cache makes this resumable: what was compiled before a process was killed is not compiled again.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Progress;
use crate::catalogue::host_arch;
use crate::gomod::Module;
use crate::recipe::{ENVIRONMENT, Invocation};

/// How many lines of a failed build its error repeats.
const LINES_OF_ERROR: usize = 25;
/// How often a running build says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Why something could not be built, and what to install or look at.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no `go` in `PATH`.
    #[error(
        "building needs Go {needed} or newer and there is no `go` in PATH: install it (https://go.dev/dl), or give a mirror of a filled store"
    )]
    GoMissing {
        /// The version that the module asks for.
        needed: String,
    },
    /// Go is there and too old.
    #[error(
        "building needs Go {needed} or newer, this is {found}: install a newer one (https://go.dev/dl), or give a mirror of a filled store"
    )]
    GoTooOld {
        /// The version that the module asks for.
        needed: String,
        /// The one in `PATH`.
        found: String,
    },
    /// runc has a part in C.
    #[error("building runc needs a C compiler and libseccomp: apt-get install gcc pkg-config libseccomp-dev")]
    CompilerMissing,
    /// `go build` ended with an error.
    #[error("`go build` of {what} failed ({status}):\n{output}")]
    Failed {
        /// The packages.
        what: String,
        /// How it ended.
        status: String,
        /// Its last lines.
        output: String,
    },
    /// A process could not be started, or a directory not be written.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl BuildError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Compiles `wanted` of what `invocations` can make into `scratch` and returns name and path of each.
pub(crate) fn build(
    module: &Module,
    invocations: &[Invocation],
    wanted: &[&'static str],
    scratch: &Path,
    label: &str,
    progress: &dyn Progress,
) -> Result<Vec<(&'static str, PathBuf)>, BuildError> {
    require_go(module.go_version())?;
    let source = scratch.join("module");
    let temporary = scratch.join("tmp");
    for directory in [&source, &temporary] {
        fs::create_dir_all(directory).map_err(BuildError::io(format!("make {}", directory.display())))?;
    }
    module.write(&source).map_err(BuildError::io(format!("write {}", source.display())))?;
    let mut built = Vec::new();
    for (number, invocation) in invocations.iter().enumerate() {
        let packages: Vec<_> = invocation.packages.iter().filter(|(_, binary)| wanted.contains(binary)).collect();
        if packages.is_empty() {
            continue;
        }
        if invocation.cgo {
            require_libseccomp()?;
        }
        let out = scratch.join(format!("out{number}"));
        fs::create_dir_all(&out).map_err(BuildError::io(format!("make {}", out.display())))?;
        let mut command = go();
        command.current_dir(&source).env("GOTMPDIR", &temporary);
        command.env("CGO_ENABLED", if invocation.cgo { "1" } else { "0" });
        command.args(["build", "-v", "-trimpath"]);
        if !invocation.tags.is_empty() {
            command.args(["-tags", invocation.tags]);
        }
        // The slash makes it a directory, however many packages there are.
        command.args(["-ldflags", &invocation.ldflags, "-o", &format!("{}/", out.display())]);
        command.args(packages.iter().map(|(package, _)| package));
        let names: Vec<_> = packages.iter().map(|(_, binary)| *binary).collect();
        run(command, &names.join(", "), label, progress)?;
        built.extend(packages.iter().map(|(package, binary)| (*binary, out.join(name_by_go(package)))));
    }
    Ok(built)
}

/// What `go build` calls the executable of a package: the last element of its path that is not a major version.
fn name_by_go(package: &str) -> &str {
    let is_major = |element: &str| element.strip_prefix('v').is_some_and(|rest| rest.parse::<u32>().is_ok());
    package.rsplit('/').find(|element| !is_major(element)).unwrap_or(package)
}

fn go() -> Command {
    let mut command = Command::new("go");
    command.envs(ENVIRONMENT.iter().copied()).env("GOARCH", host_arch());
    for changes_output in ["GOAMD64", "GOARM64", "GOEXPERIMENT", "GODEBUG", "GOFIPS140"] {
        command.env_remove(changes_output);
    }
    command
}

fn require_go(needed: &str) -> Result<(), BuildError> {
    let missing = || BuildError::GoMissing { needed: needed.to_owned() };
    let output = go().arg("version").output().map_err(|_| missing())?;
    // go version go1.26.8 linux/amd64
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.split_whitespace().nth(2).and_then(|word| word.strip_prefix("go")).ok_or_else(missing)?;
    if numbers(found) < numbers(needed) {
        return Err(BuildError::GoTooOld { needed: needed.to_owned(), found: found.to_owned() });
    }
    Ok(())
}

/// `1.26.8` as numbers that compare; what follows a release (`rc1`, `-custom`) counts as nothing.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

fn require_libseccomp() -> Result<(), BuildError> {
    let found = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "gcc".into());
    if found(Command::new("pkg-config").args(["--exists", "libseccomp"])) && found(Command::new(compiler).arg("--version")) {
        return Ok(());
    }
    Err(BuildError::CompilerMissing)
}

/// Runs the build and turns what it prints into progress; its last lines become the error's if it fails.
fn run(mut command: Command, what: &str, label: &str, progress: &dyn Progress) -> Result<(), BuildError> {
    progress.step(label, &format!("compiling {what}"));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(BuildError::io("start `go build`"))?;
    let mut last_lines = VecDeque::new();
    let mut compiled = 0_u32;
    let mut said = Instant::now();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // With -v each compiled package is a line of one word.
            let is_package = !line.contains(' ') && !line.starts_with('#');
            compiled += u32::from(is_package);
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                progress.step(label, &if is_package { format!("compiled {compiled} packages, now {line}") } else { line.clone() });
            }
            if !is_package {
                last_lines.push_back(line);
                if last_lines.len() > LINES_OF_ERROR {
                    last_lines.pop_front();
                }
            }
        }
    }
    let status = child.wait().map_err(BuildError::io("wait for `go build`"))?;
    if status.success() {
        return Ok(());
    }
    Err(BuildError::Failed {
        what: what.to_owned(),
        status: status.to_string(),
        output: last_lines.into_iter().collect::<Vec<_>>().join("\n"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn executables_are_named_as_go_names_them() {
        assert_eq!(name_by_go("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(name_by_go("github.com/opencontainers/runc"), "runc");
        assert_eq!(name_by_go("k8s.io/kubernetes/cmd/kube-apiserver"), "kube-apiserver");
        assert_eq!(name_by_go("github.com/containerd/containerd/v2/cmd/ctr"), "ctr");
    }

    #[test]
    fn go_versions_compare_as_numbers() {
        assert!(numbers("1.26.8") > numbers("1.26.3"));
        assert!(numbers("1.26.10") > numbers("1.26.9"));
        assert!(numbers("1.27rc1") > numbers("1.26.9"));
        assert_eq!(numbers("1.26"), numbers("1.26.0"));
    }

    #[test]
    fn an_old_go_is_told_what_to_install() {
        let said = require_go("99.0").unwrap_err().to_string();
        assert!(said.contains("99.0") && said.contains("install"), "{said}");
    }
}
