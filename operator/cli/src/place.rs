//! Where things lie on this host.
//!
//! ```text
//! <state>/                     0700, all of it removed by `slipway down`
//!   lock                       held by `up` and `down`
//!   settings.json              prefix, range, store: what `up` was first told
//!   local/                     state of the daemon slipway-local
//!   slipway-local.log          what it says
//!   management/                identity of the management plane (keys: 0600)
//!   management.kubeconfig      0600
//!   <cluster>.kubeconfig       0600
//!   bin/kubectl                link into the store
//! ```

use crate::outcome::refused;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// The given directory, or the user's default one.
    pub fn new(given: Option<&Path>) -> Result<Self> {
        let root = match given {
            Some(dir) => std::path::absolute(dir).with_context(|| format!("the state directory {}", dir.display()))?,
            None => home()?.join(".local/share/slipway"),
        };
        Ok(Self { root })
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// State of the daemon.
    pub fn local(&self) -> PathBuf {
        self.root.join("local")
    }

    /// What the daemon says.
    pub fn daemon_log(&self) -> PathBuf {
        self.root.join("slipway-local.log")
    }

    /// Identity of the management plane.
    pub fn management(&self) -> PathBuf {
        self.root.join("management")
    }

    /// Kubeconfig of the management plane.
    pub fn management_kubeconfig(&self) -> PathBuf {
        self.root.join("management.kubeconfig")
    }

    /// Kubeconfig of a cluster.
    pub fn cluster_kubeconfig(&self, cluster: &str) -> PathBuf {
        self.root.join(format!("{cluster}.kubeconfig"))
    }

    /// Link to kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.root.join("bin/kubectl")
    }

    /// What `up` was first told.
    pub fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// Makes the directory, private to its owner.
    pub fn create(&self) -> Result<()> {
        private_dir(&self.root)
    }

    /// Keeps other `up`s and `down`s out while the file lives. Released by the kernel when the process ends, however it ends.
    pub fn lock(&self) -> Result<fs::File> {
        let path = self.root.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(refused(format!(
                "another `slipway up` or `slipway down` is working on {}: let it finish, or end it",
                self.root.display()
            ))),
            Err(fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("locking {}", path.display())),
        }
    }
}

/// The user's home.
pub fn home() -> Result<PathBuf> {
    std::env::var_os("HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
        .ok_or_else(|| refused("HOME is not set: say --state DIR, or set it"))
}

/// Makes a directory that only its owner may look into.
pub fn private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("making {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(|| format!("making {} private", path.display()))
}

/// Writes a file that only its owner may read: whole or not at all, and on the disk before it has its name.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::Builder::new().prefix(".slipway-").permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn keys_are_their_owners() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(&dir.path().join("state"))).unwrap();
        place.create().unwrap();
        write_private(&place.management_kubeconfig(), b"x").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(place.root()), mode(&place.management_kubeconfig())), (0o700, 0o600));
    }

    #[test]
    fn two_at_once_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path())).unwrap();
        let held = place.lock().unwrap();
        assert_eq!(Outcome::of_error(&place.lock().unwrap_err()), Outcome::Refused);
        drop(held);
        place.lock().unwrap();
    }
}
