//! Programs and archives: found, checked against their sha256, and linked below /opt/slipway/bin. Nothing that fails the check is ever linked
//! or started.
//!
//! ```text
//! file:// on a read-only file system ── hash ───────────► link to it            (the local cloud's store: nothing is copied)
//! other file://, https:// ───────────── copy and hash ──► /var/lib/slipway/artifacts/<sha256>/<name> ──► link
//! ```
//! A file that was hashed is known by device, inode, size and times of change: it is hashed again only when one of these differs. The change
//! time cannot be set, so whoever alters a file shows. A store that the machine cannot write to may vouch for its files in the same way: see
//! [`vouched`]. Five machines of one host would else hash the same half gigabyte each, at the very moment when the processors are needed.

use crate::check::AGENT;
use crate::http::{self, Target, Trust};
use crate::root::{self, Root};
use aws_lc_rs::digest;
use http_body_util::BodyExt;
use serde::Deserialize;
use slipway_model::ArtifactRef;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Files hashed at once: more only take turns on the disk, and the first one needed is ready later.
const PARALLEL: usize = 2;
const BUFFER: usize = 256 * 1024;
const SOURCE_DEADLINE: Duration = Duration::from_secs(10);
/// A download that moves no byte for so long is given up.
const STALL: Duration = Duration::from_secs(30);

/// Device, inode, size, mtime and ctime.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp(u64, u64, u64, (i64, i64), (i64, i64));

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self(meta.dev(), meta.ino(), meta.size(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
    }
}

/// Checks and fetches artifacts.
pub struct Artifacts {
    root: Root,
    turns: Semaphore,
    /// Digests of files as they were when they were hashed.
    known: Mutex<HashMap<PathBuf, (Stamp, String)>>,
}

impl Artifacts {
    /// None checked yet.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { root: root.clone(), turns: Semaphore::new(PARALLEL), known: Mutex::default() }
    }

    /// Finds the artifact, checks it, and links it. The error says what was wrong with each source.
    pub async fn ensure(&self, wanted: &ArtifactRef) -> Result<(), String> {
        let place = self.find(wanted).await?;
        root::link(&self.root.program(&wanted.name), &place).map_err(|e| e.to_string())
    }

    /// Finds the artifact and checks it: where it is now, and stays.
    pub async fn find(&self, wanted: &ArtifactRef) -> Result<PathBuf, String> {
        let _turn = self.turns.acquire().await.map_err(|e| e.to_string())?;
        let copy = place_of_copy(&self.root, wanted);
        let mut errors = Vec::new();
        if copy.exists() {
            match self.verify(&copy, false, wanted).await {
                Ok(()) => return Ok(copy),
                Err(why) => {
                    tracing::warn!(artifact = wanted.name, %why, "a copy is not what it was; it is fetched anew");
                    let _ = root::remove(&copy);
                }
            }
        }
        for source in &wanted.sources {
            let done = match source.strip_prefix("file://") {
                Some(path) => self.take_file(&self.root.at(path), &copy, wanted).await,
                None => self.take_url(source, &copy, wanted).await,
            };
            match done {
                Ok(place) => return Ok(place),
                Err(why) => errors.push(why),
            }
        }
        Err(errors.join("; "))
    }

    async fn take_file(&self, path: &Path, copy: &Path, wanted: &ArtifactRef) -> Result<PathBuf, String> {
        let shown = path.display().to_string();
        let read_only = rustix::fs::statvfs(path)
            .map_err(|e| format!("{shown}: {}", io::Error::from(e)))?
            .f_flag
            .contains(rustix::fs::StatVfsMountFlags::RDONLY);
        if read_only {
            self.verify(path, true, wanted).await?;
            return Ok(path.to_owned());
        }
        let (from, to, wanted) = (path.to_owned(), copy.to_owned(), wanted.clone());
        spawn_blocking(move || copied(&from, &to, &wanted)).await.map_err(|e| e.to_string())??;
        Ok(copy.to_owned())
    }

    async fn take_url(&self, url: &str, copy: &Path, wanted: &ArtifactRef) -> Result<PathBuf, String> {
        let trust = if url.starts_with("https:") { Trust::system() } else { Trust::anybody() }.map_err(|e| format!("{url}: {e}"))?;
        let target = Target::parse(url).map_err(|e| e.to_string())?;
        let mut body = http::fetch(&target, &trust, SOURCE_DEADLINE).await.map_err(|e| format!("{url}: {e}"))?;
        let io = |e: io::Error| format!("{}: {}", copy.display(), root::words(&e));
        let mut part = Part::create(copy, wanted).map_err(io)?;
        loop {
            let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| format!("{url}: no byte for {} s", STALL.as_secs()))?;
            let Some(frame) = frame else { break };
            if let Some(bytes) = frame.map_err(|e| format!("{url}: {e}"))?.data_ref() {
                part.write(bytes).map_err(io)?;
            }
        }
        part.finish(url)?;
        Ok(copy.to_owned())
    }

    /// Whether the file is what the plan names, by digest.
    async fn verify(&self, path: &Path, read_only: bool, wanted: &ArtifactRef) -> Result<(), String> {
        let shown = path.display().to_string();
        let stamp = Stamp::of(&fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?);
        let known = self.known.lock().ok().and_then(|known| known.get(path).filter(|(at, _)| *at == stamp).map(|(_, sha)| sha.clone()));
        let known = known.or_else(|| (read_only && vouched(path, &stamp, wanted)).then(|| wanted.sha256.clone()));
        let found = match known {
            Some(sha256) => sha256,
            None => {
                let file = path.to_owned();
                let sha256 = spawn_blocking(move || hash(&file)).await.map_err(|e| e.to_string())?.map_err(|e| format!("{shown}: {e}"))?;
                if let Ok(mut known) = self.known.lock() {
                    known.insert(path.to_owned(), (stamp.clone(), sha256.clone()));
                }
                sha256
            }
        };
        if found == wanted.sha256 { Ok(()) } else { Err(altered(&shown, &found, stamp.2, wanted)) }
    }

    /// Removes copies that are not of the given digests. Builds of the agent are no plan's, and stay.
    pub fn prune(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        remove_copies(&self.root, |sha256, directory| keep(sha256) || holds_agent(directory))
    }
}

/// Where a copy of an artifact is, or goes.
fn place_of_copy(root: &Root, wanted: &ArtifactRef) -> PathBuf {
    root.artifacts().join(&wanted.sha256).join(&wanted.name)
}

/// Copies a file to where copies are, if it is what is wanted.
pub fn copy(from: &Path, root: &Root, wanted: &ArtifactRef) -> Result<PathBuf, String> {
    let to = place_of_copy(root, wanted);
    copied(from, &to, wanted).map(|()| to)
}

/// Whether a directory of copies holds a build of the agent, or is about to.
#[must_use]
pub fn holds_agent(directory: &Path) -> bool {
    let copy = directory.join(AGENT);
    [part_of(&copy), copy].iter().any(|path| path.exists())
}

/// Removes the directories of copies, named after their digests, that are not to be kept.
pub fn remove_copies(root: &Root, keep: impl Fn(&str, &Path) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(root.artifacts()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(|sha256| keep(sha256, &entry.path())) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// What the host's store noted when it hashed a file: the same that [`Stamp`] holds, without the device, which differs between mounts.
#[derive(Deserialize)]
struct StoreStamp {
    sha256: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Whether the store of `<store>/sha256/<hex>/<name>` has hashed this very file since it last changed, and found the wanted digest. Believed
/// only of a store on a read-only mount: whoever can write there rules the machine's disks anyway.
fn vouched(path: &Path, now: &Stamp, wanted: &ArtifactRef) -> bool {
    let Some(store) = path.ancestors().nth(3) else { return false };
    let below = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    // <store>/index/<component>/<version>/<name>.stamp
    below(store.join("index")).flat_map(below).any(|version| {
        let note = fs::read(version.join(format!("{}.stamp", wanted.name))).ok();
        note.and_then(|note| serde_json::from_slice::<StoreStamp>(&note).ok()).is_some_and(|note| {
            let Stamp(_, inode, size, modified, changed) = now;
            note.sha256 == wanted.sha256 && (note.inode, note.size, note.modified, note.changed) == (*inode, *size, *modified, *changed)
        })
    })
}

fn altered(what: &str, found: &str, size: u64, wanted: &ArtifactRef) -> String {
    let length = if size == wanted.size { String::new() } else { format!(" and {size} bytes instead of {}", wanted.size) };
    format!("{what} is altered: it has sha256 {found}{length}, expected {}; put the right file there", wanted.sha256)
}

/// sha256 of a file, hex.
pub fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn copied(from: &Path, to: &Path, wanted: &ArtifactRef) -> Result<(), String> {
    let io = |path: &Path| {
        let shown = path.display().to_string();
        move |e: io::Error| format!("{shown}: {}", root::words(&e))
    };
    let mut source = File::open(from).map_err(io(from))?;
    let mut part = Part::create(to, wanted).map_err(io(to))?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match source.read(&mut buffer).map_err(io(from))? {
            0 => return part.finish(&from.display().to_string()),
            read => part.write(buffer.get(..read).unwrap_or_default()).map_err(io(to))?,
        }
    }
}

/// Where a copy is until it is complete and checked.
fn part_of(copy: &Path) -> PathBuf {
    copy.with_file_name(format!(".{}.part", copy.file_name().unwrap_or_default().to_string_lossy()))
}

/// A copy being written, hashed on the way. Unfinished, it is removed.
struct Part {
    path: PathBuf,
    to: PathBuf,
    file: File,
    context: digest::Context,
    size: u64,
    wanted: ArtifactRef,
}

impl Part {
    fn create(to: &Path, wanted: &ArtifactRef) -> io::Result<Self> {
        let path = part_of(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::create(&path)?;
        let context = digest::Context::new(&digest::SHA256);
        Ok(Self { path, to: to.to_owned(), file, context, size: 0, wanted: wanted.clone() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        if self.size > self.wanted.size {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than the expected {} bytes", self.wanted.size)));
        }
        self.context.update(bytes);
        self.file.write_all(bytes)
    }

    /// Checks the digest and puts the copy in its place, durably.
    fn finish(self, source: &str) -> Result<(), String> {
        let found = hex::encode(self.context.clone().finish());
        if found != self.wanted.sha256 {
            return Err(altered(source, &found, self.size, &self.wanted));
        }
        let done = (|| {
            self.file.set_permissions(fs::Permissions::from_mode(0o555))?;
            self.file.sync_all()?;
            fs::rename(&self.path, &self.to)
        })();
        done.map_err(|e: io::Error| format!("{}: {}", self.to.display(), root::words(&e)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing under this name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sha2::{Digest, Sha256};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn wanted(content: &[u8], sources: &[&str]) -> ArtifactRef {
        let sources = sources.iter().map(|&source| source.to_owned()).collect();
        ArtifactRef { name: "tool".into(), sha256: hex::encode(Sha256::digest(content)), size: content.len() as u64, sources }
    }

    #[tokio::test]
    async fn a_right_file_is_copied_and_linked_and_an_altered_copy_is_fetched_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::write(dir.path().join("tool"), b"content").unwrap();
        let (artifacts, artifact) = (Artifacts::new(&root), wanted(b"content", &["file:///nowhere", "file:///tool"]));
        artifacts.ensure(&artifact).await.unwrap();
        assert_eq!(fs::read(root.program("tool")).unwrap(), b"content");
        let copy = fs::read_link(root.program("tool")).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(&copy, b"CONTENT").unwrap();
        artifacts.ensure(&artifact).await.unwrap();
        assert_eq!(fs::read(root.program("tool")).unwrap(), b"content");
    }

    #[tokio::test]
    async fn an_altered_or_truncated_source_is_named_with_both_digests_and_never_linked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        fs::write(dir.path().join("tool"), b"conten").unwrap();
        let (artifacts, artifact) = (Artifacts::new(&root), wanted(b"content", &["file:///tool"]));
        let error = artifacts.ensure(&artifact).await.unwrap_err();
        assert!(error.contains(&artifact.sha256) && error.contains("6 bytes instead of 7") && error.contains("/tool"), "{error}");
        assert!(!root.program("tool").exists());
        fs::write(dir.path().join("tool"), b"content").unwrap();
        artifacts.ensure(&artifact).await.unwrap();
    }

    #[tokio::test]
    async fn a_plan_prunes_its_own_copies_and_none_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let (artifacts, tool) = (Artifacts::new(&root), wanted(b"content", &["file:///tool"]));
        fs::write(dir.path().join("tool"), b"content").unwrap();
        let agent = ArtifactRef { name: AGENT.into(), ..wanted(b"agent", &[]) };
        fs::write(dir.path().join("agent"), b"agent").unwrap();
        let (agent, tool) = (copy(&dir.path().join("agent"), &root, &agent).unwrap(), artifacts.find(&tool).await.unwrap());
        let fetched = root.artifacts().join("ab".repeat(32)).join(".slipway-agent.part");
        root::replace(&fetched, b"half", root::Access::PUBLIC).unwrap();
        artifacts.prune(|_| false).unwrap();
        assert!(agent.exists() && fetched.exists() && !tool.exists());
    }

    #[test]
    fn a_store_vouches_for_a_file_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = wanted(b"content", &[]);
        let path = dir.path().join("sha256").join(&artifact.sha256).join("tool");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"content").unwrap();
        let now = || Stamp::of(&fs::metadata(&path).unwrap());
        assert!(!vouched(&path, &now(), &artifact), "nobody has hashed it");
        let Stamp(_, inode, size, modified, changed) = now();
        let note = serde_json::json!({"sha256": artifact.sha256, "size": size, "inode": inode, "modified": modified, "changed": changed});
        let index = dir.path().join("index/tools/v1");
        fs::create_dir_all(&index).unwrap();
        fs::write(index.join("tool.stamp"), note.to_string()).unwrap();
        assert!(vouched(&path, &now(), &artifact));
        assert!(!vouched(&path, &now(), &wanted(b"other", &[])), "another digest is wanted");
        // As many bytes, and the old time of modification put back: the time of change shows it.
        fs::write(&path, b"CONTENT").unwrap();
        let time = std::time::UNIX_EPOCH + Duration::new(modified.0.try_into().unwrap(), modified.1.try_into().unwrap());
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert!(!vouched(&path, &now(), &artifact));
    }

    #[tokio::test]
    async fn a_download_is_checked_and_a_redirect_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ncontent",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncontent!!",
            ] {
                let (mut stream, _) = server.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let artifacts = Artifacts::new(&root);
        let artifact = wanted(b"content", &[&format!("http://{address}/tool")]);
        artifacts.ensure(&artifact).await.unwrap();
        assert_eq!(fs::read(root.program("tool")).unwrap(), b"content");
        artifacts.prune(|_| false).unwrap();
        let error = artifacts.ensure(&artifact).await.unwrap_err();
        assert!(error.contains("more than the expected 7 bytes"), "{error}");
        serving.await.unwrap();
    }
}
