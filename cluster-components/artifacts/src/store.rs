//! The content-addressed store: every file lies under its own sha256, and an index says which file is which artifact.
//!
//! ```text
//! <store>/sha256/<hex>/<name>                           0555 (archives 0444), never written in place
//!         index/<component>/<version>/<name>.json       what it is, how big, where it came from
//!         index/<component>/<version>/<name>.stamp      what the file looked like when it was last hashed
//!         locks/<component>-<version>.lock              held while that component is fetched or built
//!         partial/<sha256>.partial                      downloads to be resumed
//!         tmp/                                          half-made things; nobody reads here
//! ```
//! A file is made under `tmp/`, synced, and renamed to its place; then its index entry is, in the same way. So whatever a
//! reader finds is whole, and a process killed at any point leaves nothing but rubbish in `tmp/`. A directory of the same
//! layout, a copy of a store for instance, serves as a mirror.

mod index;
mod lock;
mod write;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use write::hash_file;

/// Why a store cannot be used, or why one of its files must not be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {what} {}: {source}; check that the disk is not full and that this user may write there, or choose another store with SLIPWAY_STORE", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither `SLIPWAY_STORE` nor `HOME` says where the store is.
    #[error("where the artifact store is was not said: set SLIPWAY_STORE, or HOME")]
    NoPlace,
    /// The index names a file that is not there.
    #[error("{} is missing; `slipway artifacts fetch` brings it back", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file is not as long as it was made.
    #[error("{} is truncated or grown: {actual} bytes instead of {expected}; `slipway artifacts fetch` replaces it", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length by the index.
        expected: u64,
        /// Its length now.
        actual: u64,
    },
    /// A file's content is not what its name says.
    #[error("{} has been altered: its sha256 is {actual}; `slipway artifacts fetch` replaces it", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// The digest of what it holds now.
        actual: String,
    },
}

impl StoreError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// A file in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The component that brings it, for instance `kubernetes`.
    pub component: String,
    /// That component's version.
    pub version: String,
    /// The file's name, for instance `kubelet` or `pause.tar`.
    pub name: String,
    /// Its digest in lower-case hex.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
    /// Where it lies.
    pub path: PathBuf,
    /// `release:<url>`, `gomod:<digest of module and recipe>`, or `own:<digest of what it was packed from>`.
    pub origin: String,
}

/// A store on this machine's disk. Cheap to clone; any number of processes may have the same one open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// `$SLIPWAY_STORE`, or `~/.cache/slipway/store`.
    ///
    /// # Errors
    /// If neither that variable nor `HOME` is set.
    pub fn default_dir() -> Result<PathBuf, StoreError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("SLIPWAY_STORE").or_else(|| set("HOME").map(|home| home.join(".cache/slipway/store"))).ok_or(StoreError::NoPlace)
    }

    /// Opens the store in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If the directories cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        for part in ["sha256", "index", "locks", "partial", "tmp"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(StoreError::io("make the directory", &path))?;
        }
        // Absolute, since paths of artifacts end up in other processes' configuration.
        let root = dir.canonicalize().map_err(StoreError::io("find", dir))?;
        Ok(Self { root })
    }

    /// Opens the store at [`Store::default_dir`].
    ///
    /// # Errors
    /// As [`Store::default_dir`] and [`Store::open`].
    pub fn open_default() -> Result<Self, StoreError> {
        Self::open(&Self::default_dir()?)
    }

    /// A directory of a store's layout to read from; nothing is made in it.
    pub(crate) fn mirror(dir: &Path) -> Result<Self, StoreError> {
        let root = dir.canonicalize().map_err(StoreError::io("find the mirror", dir))?;
        let index = root.join("index");
        fs::read_dir(&index).map_err(StoreError::io("read the mirror's", &index))?;
        Ok(Self { root })
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of this digest and name lies, whether or not it is there.
    #[must_use]
    pub fn blob(&self, sha256: &str, name: &str) -> PathBuf {
        self.root.join("sha256").join(sha256).join(name)
    }

    /// A directory of one's own under `tmp/` for half-made things, removed when dropped.
    pub(crate) fn scratch(&self, prefix: &str) -> Result<tempfile::TempDir, StoreError> {
        let tmp = self.root.join("tmp");
        tempfile::Builder::new().prefix(prefix).tempdir_in(&tmp).map_err(StoreError::io("make a directory in", &tmp))
    }

    /// Removes what killed processes left under `tmp/` with this prefix. Only for the holder of the lock that guards it.
    pub(crate) fn sweep(&self, prefix: &str) {
        let entries = fs::read_dir(self.root.join("tmp")).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)) {
            // Rubbish that stays costs disk, nothing else.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
