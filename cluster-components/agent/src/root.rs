//! Where things are on the machine, and how they are written: atomically, and durably where a crash must not lose them.

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

/// The machine's file system. `/` on a machine; a directory of their own in tests.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// Everything below `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// An absolute path of the machine.
    #[must_use]
    pub fn at(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// Written by user data: who this machine is, and the token until it is burnt.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.at("/etc/slipway/identity.json")
    }

    /// The agent's own state, 0700.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.at("/var/lib/slipway/agent").join(name)
    }

    /// What holds for this boot only: gone with a reboot, kept over the agent's restarts.
    #[must_use]
    pub fn boot(&self, name: &str) -> PathBuf {
        self.at("/run/slipway").join(name)
    }

    /// Unit files live in /run: after a reboot nothing is there to start before its artifacts are verified anew.
    #[must_use]
    pub fn unit(&self, name: &str) -> PathBuf {
        self.at("/run/systemd/system").join(name)
    }

    /// Copies of artifacts whose source is not a read-only file system.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.at("/var/lib/slipway/artifacts")
    }

    /// The links by which units find their programs.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.at("/opt/slipway/bin").join(name)
    }

    /// Takes the agent's lock for the life of the returned file: two agents on one machine would undo each other's work.
    pub fn lock(&self) -> io::Result<File> {
        let path = self.state("lock");
        if let Some(parent) = path.parent() {
            private_dir(parent)?;
        }
        let file = File::from(rustix::fs::open(&path, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }
}

/// Owner and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// uid and gid; None leaves them to whoever writes.
    pub owner: Option<u32>,
}

impl Access {
    /// Only root reads it.
    pub const SECRET: Self = Self { mode: 0o600, owner: None };
    /// Everybody reads it.
    pub const PUBLIC: Self = Self { mode: 0o644, owner: None };
}

/// Makes a directory that only root enters.
pub fn private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Replaces a file so that readers see the old or the new one, never a part. A crash of the machine may lose it.
pub fn replace(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    put(path, bytes, access, false)
}

/// [`replace`], and it survives a crash of the machine once this returns.
pub fn replace_durably(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    put(path, bytes, access, true)
}

fn put(path: &Path, bytes: &[u8], access: Access, durably: bool) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file"));
    };
    fs::create_dir_all(parent)?;
    let part = parent.join(format!(".{}.slipway-part", name.to_string_lossy()));
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = (|| {
        // 0600 until it is complete: a key must not be readable for a moment.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
        file.write_all(bytes)?;
        if let Some(owner) = access.owner {
            fchown(&file, Some(owner), Some(owner))?;
        }
        file.set_permissions(fs::Permissions::from_mode(access.mode))?;
        if durably {
            file.sync_all()?;
        }
        fs::rename(&part, path)?;
        if durably {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    })();
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// Makes a link lead somewhere, so that readers find the old or the new place, never none. A crash of the machine may undo it.
pub fn link(link: &Path, place: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (link.parent(), link.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a link"));
    };
    if fs::read_link(link).is_ok_and(|to| to == place) {
        return Ok(());
    }
    fs::create_dir_all(parent)?;
    let part = parent.join(format!(".{}.slipway-part", name.to_string_lossy()));
    remove(&part)?;
    symlink(place, &part)?;
    fs::rename(&part, link)
}

/// [`link`], and it survives a crash of the machine once this returns.
pub fn link_durably(path: &Path, place: &Path) -> io::Result<()> {
    link(path, place)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// A failure in the file system's words, with the way out where there is one: whoever reads it may be on another continent.
pub fn words(error: &io::Error) -> String {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full { format!("{error}: free space on the machine's disk") } else { error.to_string() }
}

/// Removes a file; that it is not there is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        done => done,
    }
}

/// A file's bytes, None when there is none.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_replaced_file_has_its_bytes_and_mode_and_leaves_no_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        replace(&path, b"one", Access::PUBLIC).unwrap();
        replace_durably(&path, b"two", Access::SECRET).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_no_part_and_says_what_to_do() {
        use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
        let path = dir.path().join("plan.json");
        replace_durably(&path, b"old", Access::SECRET).unwrap();
        let error = replace_durably(&path, &[b'x'; 1 << 20], Access::SECRET).unwrap_err();
        let (left, entries) = (read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count());
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
        assert_eq!((left.as_deref(), entries), (Some(b"old".as_slice()), 1));
        assert!(words(&error).ends_with("free space on the machine's disk"), "{error}");
    }

    #[test]
    fn only_one_agent_holds_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let held = root.lock().unwrap();
        assert!(root.lock().is_err());
        drop(held);
        root.lock().unwrap();
    }
}
