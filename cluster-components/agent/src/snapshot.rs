//! Snapshots of this machine's etcd member, for the operator.
//!
//! ```text
//! etcdctl endpoint status ─► room on the disk? ─► etcdctl snapshot save ─► etcdutl snapshot status ─► pieces, then what it was
//!   version, size                                  a file in a private directory, gone whatever happens
//! ```
//! The file is unlinked as soon as it is open: whoever reads it while the agent dies leaves nothing behind. What an agent that died before that left is swept
//! away by the next one.

use crate::root::{self, Root};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use sha2::{Digest, Sha256};
use slipway_agent_api::refusal::Refusal;
use slipway_agent_api::v1::{EtcdSnapshotPiece, EtcdSnapshotSummary};
use slipway_model::MachinePlan;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

const UNIT: &str = "etcd.service";
const TOOLS: [&str; 2] = ["etcdctl", "etcdutl"];
/// The member's own certificate serves its clients, too.
const CREDENTIALS: [(&str, &str); 3] = [
    ("--cacert", "/etc/kubernetes/pki/etcd/ca.crt"),
    ("--cert", "/etc/kubernetes/pki/etcd/server.crt"),
    ("--key", "/etc/kubernetes/pki/etcd/server.key"),
];
/// Of this machine, not of the cluster: what is asked for is this member.
const MEMBER: &str = "https://127.0.0.1:2379";
/// A message's share of the snapshot, in bytes.
const PIECE: usize = 512 * 1024;
/// What has to stay free beside the snapshot, in bytes.
const MARGIN: u64 = 256 * 1024 * 1024;
/// Asking the member how it is.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// Saving or verifying 8 GiB, the most that a member holds, on a slow disk.
const WORK_WITHIN: Duration = Duration::from_secs(600);

/// How etcd is reached on this machine: the plan's tools, where the plan runs a member.
pub struct Program {
    etcdctl: PathBuf,
    etcdutl: PathBuf,
    credentials: Vec<String>,
}

impl Program {
    /// Of the accepted plan.
    pub fn of(plan: Option<&MachinePlan>, root: &Root) -> Result<Self, Refusal> {
        let refuse = |why: &str| Refusal::Invalid(format!("no etcd snapshot from this machine: {why}"));
        let plan = plan.ok_or_else(|| refuse("it has no plan yet"))?;
        if plan.units.iter().all(|unit| unit.name != UNIT) {
            return Err(refuse("its plan runs no etcd, ask a control-plane machine"));
        }
        if let Some(tool) = TOOLS.into_iter().find(|tool| plan.artifacts.iter().all(|artifact| artifact.name != *tool)) {
            return Err(refuse(&format!("its plan has no {tool}")));
        }
        let [etcdctl, etcdutl] = TOOLS.map(|tool| root.program(tool));
        let credentials = CREDENTIALS.map(|(flag, path)| format!("{flag}={}", root.at(path).display())).into();
        Ok(Self { etcdctl, etcdutl, credentials })
    }

    /// What the tool prints with these arguments. Its environment is empty: ETCDCTL_* would change what it does.
    async fn run(&self, tool: &Path, args: &[&str], within: Duration) -> Result<Vec<u8>, Status> {
        let what = format!("{} {}", tool.file_name().unwrap_or_default().to_string_lossy(), args.join(" "));
        let mut command = Command::new(tool);
        command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
        if tool == self.etcdctl {
            command.args(&self.credentials).args([format!("--endpoints={MEMBER}"), "--dial-timeout=3s".to_owned()]);
        }
        let output = tokio::time::timeout(within, command.output())
            .await
            .map_err(|_| Status::internal(format!("{what}: not done within {} s", within.as_secs())))?
            .map_err(|e| Status::internal(format!("{what}: {}", root::words(&e))))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        Err(Status::internal(format!("{what}: {}: {last}", output.status)))
    }

    /// The member's version and the size of its database, as it says itself.
    async fn member(&self) -> Result<(String, u64), Status> {
        let out = self.run(&self.etcdctl, &["endpoint", "status", "--write-out=json"], ASK_WITHIN).await?;
        let said: Value = serde_json::from_slice(&out).map_err(|e| Status::internal(format!("etcdctl endpoint status: {e}")))?;
        let status = said.pointer("/0/Status").ok_or_else(|| Status::internal("etcdctl endpoint status: no status in its answer"))?;
        let version = status.get("version").and_then(Value::as_str).unwrap_or_default();
        let size = status.get("dbSize").and_then(Value::as_u64);
        size.filter(|_| !version.is_empty())
            .map(|size| (format!("v{version}"), size))
            .ok_or_else(|| Status::internal("etcdctl endpoint status: neither version nor size in its answer"))
    }

    /// What a snapshot holds; fails where it is not whole.
    async fn verify(&self, file: &Path) -> Result<EtcdSnapshotSummary, Status> {
        let path = file.to_string_lossy();
        let out = self.run(&self.etcdutl, &["snapshot", "status", &path, "--write-out=json"], WORK_WITHIN).await?;
        let said: Value = serde_json::from_slice(&out).map_err(|e| Status::internal(format!("etcdutl snapshot status: {e}")))?;
        let number = |name: &str| {
            said.get(name)
                .and_then(Value::as_u64)
                .ok_or_else(|| Status::internal(format!("etcdutl snapshot status: no {name} in its answer")))
        };
        Ok(EtcdSnapshotSummary {
            revision: i64::try_from(number("revision")?).unwrap_or(i64::MAX),
            keys: number("totalKey")?,
            hash: u32::try_from(number("hash")?).unwrap_or(u32::MAX),
            ..EtcdSnapshotSummary::default()
        })
    }
}

/// Takes them, one at a time.
pub struct Snapshots {
    directory: PathBuf,
    turn: Arc<Mutex<()>>,
}

impl Snapshots {
    /// Sweeps away what an agent that died has left.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        let directory = root.state("snapshot");
        drop(Room(directory.clone()));
        Self { directory, turn: Arc::default() }
    }

    /// Begins one. Dropping the stream ends it.
    pub fn take(&self, program: Program) -> Result<BoxStream<'static, Result<EtcdSnapshotPiece, Status>>, Status> {
        let turn = self.turn.clone().try_lock_owned();
        let turn = turn.map_err(|_| Status::aborted("another etcd snapshot is being taken from this machine: wait for its end"))?;
        let (pieces, stream) = mpsc::channel(2);
        let directory = self.directory.clone();
        let task = tokio::spawn(async move {
            if let Err(status) = send(&program, directory, turn, &pieces).await {
                tracing::warn!(why = status.message(), "no etcd snapshot");
                let _ = pieces.send(Err(status)).await;
            }
        });
        let task = Abort(task);
        let stream = ReceiverStream::new(stream).map(move |piece| {
            let _until_dropped = &task;
            piece
        });
        Ok(stream.boxed())
    }
}

/// A private directory, gone with everything in it when dropped.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), why = %e, "what is left of an etcd snapshot cannot be removed");
            }
            _ => {}
        }
    }
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Pieces = mpsc::Sender<Result<EtcdSnapshotPiece, Status>>;

/// Saves, verifies, sends. The turn is held to the end.
async fn send(program: &Program, directory: PathBuf, turn: OwnedMutexGuard<()>, pieces: &Pieces) -> Result<(), Status> {
    let (version, size) = program.member().await?;
    let written = |e: io::Error| Status::internal(format!("{}: {}", directory.display(), root::words(&e)));
    root::private_dir(&directory).map_err(written)?;
    let room = Room(directory.clone());
    has_space(&directory, size)?;
    let path = directory.join("etcd.db");
    program.run(&program.etcdctl, &["snapshot", "save", &path.to_string_lossy()], WORK_WITHIN).await?;
    let mut summary = program.verify(&path).await?;
    let mut file = tokio::fs::File::open(&path).await.map_err(written)?;
    drop(room);
    let (mut sum, mut bytes) = (Sha256::new(), 0_u64);
    loop {
        let mut data = vec![0; PIECE];
        let read = fill(&mut file, &mut data).await.map_err(written)?;
        data.truncate(read);
        if data.is_empty() {
            break;
        }
        bytes += read as u64;
        sum.update(&data);
        // Nobody listens any more: there is nobody to tell either.
        if pieces.send(Ok(EtcdSnapshotPiece { data, summary: None })).await.is_err() {
            return Ok(());
        }
    }
    summary.sha256 = hex::encode(sum.finalize());
    summary.bytes = bytes;
    summary.etcd_version = version;
    tracing::info!(bytes, revision = summary.revision, sha256 = summary.sha256, "an etcd snapshot was sent");
    // The next one may begin before the operator has read the end of this one.
    drop(turn);
    let _ = pieces.send(Ok(EtcdSnapshotPiece { data: vec![], summary: Some(summary) })).await;
    Ok(())
}

/// Whole pieces, whatever a read gives at once.
async fn fill(file: &mut tokio::fs::File, data: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).await? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn has_space(directory: &Path, snapshot: u64) -> Result<(), Status> {
    let shown = directory.display();
    let is = rustix::fs::statvfs(directory).map_err(|e| Status::internal(format!("{shown}: {}", io::Error::from(e))))?;
    let (free, needed) = (is.f_bavail.saturating_mul(is.f_frsize), snapshot.saturating_add(MARGIN));
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Status::internal(format!(
        "{shown}: {} MiB are free and an etcd snapshot of {} MiB needs {}: free space on the machine's disk",
        mib(free),
        mib(snapshot),
        mib(needed)
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_model::{ArtifactRef, Unit, UnitState};

    #[test]
    fn only_a_machine_whose_plan_runs_etcd_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let why = |plan: Option<&MachinePlan>| Program::of(plan, &root).err().map(|e| e.to_string()).unwrap_or_default();
        let artifact = |name: &str| ArtifactRef { name: name.into(), sha256: "ab".repeat(32), size: 1, sources: vec![] };
        let mut plan = MachinePlan::default();
        assert!(why(None).contains("no plan yet"));
        assert!(why(Some(&plan)).contains("runs no etcd"));
        let unit = Unit { name: UNIT.into(), content: String::new(), state: UnitState::Running, files: vec![], artifacts: vec![] };
        plan.units.push(unit);
        plan.artifacts.push(artifact("etcdctl"));
        assert!(why(Some(&plan)).ends_with("no etcdutl"));
        plan.artifacts.push(artifact("etcdutl"));
        let program = Program::of(Some(&plan), &root).unwrap();
        assert_eq!(program.etcdctl, dir.path().join("opt/slipway/bin/etcdctl"));
    }

    #[test]
    fn what_a_dead_agent_left_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let left = root.state("snapshot").join("etcd.db.part");
        root::replace(&left, b"half", root::Access::SECRET).unwrap();
        drop(Snapshots::new(&root));
        assert!(!root.state("snapshot").exists());
        drop(Snapshots::new(&root));
    }

    #[test]
    fn a_disk_without_room_is_told_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        has_space(dir.path(), 0).unwrap();
        let words = has_space(dir.path(), u64::MAX / 2).unwrap_err().message().to_owned();
        assert!(words.contains("free space on the machine's disk"), "{words}");
    }
}
