//! The files of the agent's builds: where the one that runs is, which one the link leads to, which copies stay.

use super::record::Build;
use crate::artifacts;
use crate::check::AGENT;
use crate::root::{self, Root};
use slipway_model::ArtifactRef;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Leads to the program that runs, whatever became of its name.
const RUNNING: &str = "/proc/self/exe";
/// A program that needs longer to say its version hangs.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// sha256 of the program that runs.
pub fn running() -> io::Result<String> {
    artifacts::hash(Path::new(RUNNING))
}

/// The build that runs, at a path which stays when the link is moved: user data may have put its bytes where the link is going to be.
pub fn keep_running(root: &Root, sha256: &str) -> Result<Build, String> {
    let words = |e: io::Error| format!("{RUNNING}: {e}");
    let (program, running) = (fs::read_link(RUNNING).map_err(words)?, fs::metadata(RUNNING).map_err(words)?);
    let stays = program != root.program(AGENT)
        && fs::metadata(&program).is_ok_and(|there| (there.dev(), there.ino()) == (running.dev(), running.ino()));
    let program = if stays {
        program
    } else {
        let wanted = ArtifactRef { name: AGENT.into(), sha256: sha256.into(), size: running.len(), sources: vec![] };
        artifacts::copy(Path::new(RUNNING), root, &wanted)?
    };
    Ok(Build { sha256: sha256.to_owned(), program })
}

/// Whether a program can run here at all.
pub async fn says_version(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg("version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(VERSION_WITHIN, command.output())
        .await
        .map_err(|_| format!("`version` says nothing within {} s", VERSION_WITHIN.as_secs()))?
        .map_err(|e| format!("it cannot be run: {e}"))?;
    let line =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().lines().last().unwrap_or_default().chars().take(200).collect::<String>();
    if output.status.success() {
        Ok(line(&output.stdout))
    } else {
        Err(format!("`version` fails with {}: {}", output.status, line(&output.stderr)))
    }
}

/// Makes a build the agent, over reboots.
pub fn link(root: &Root, build: &Build) -> io::Result<()> {
    if build.program.starts_with(root.artifacts()) {
        // A link that survives must not lead to a file that does not.
        for directory in build.program.ancestors().skip(1).take(2) {
            File::open(directory)?.sync_all()?;
        }
    }
    root::link_durably(&root.program(AGENT), &build.program)
}

/// Removes copies of the agent, except those of the given digests. Copies of other programs are the plan's.
pub fn sweep(root: &Root, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    artifacts::remove_copies(root, |sha256, directory| !artifacts::holds_agent(directory) || keep(sha256))
}

/// The directory of copies to which the link leads.
#[must_use]
pub fn linked_copy(root: &Root) -> Option<PathBuf> {
    let program = fs::read_link(root.program(AGENT)).ok()?;
    program.parent().filter(|directory| directory.starts_with(root.artifacts())).map(Path::to_owned)
}
