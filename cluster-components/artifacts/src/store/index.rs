//! Reading the index, and checking that a file still is what the index says.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::write::hash;
use super::{Artifact, Store, StoreError};

/// What an index file holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    name: String,
    sha256: String,
    size: u64,
    origin: String,
}

impl From<&Artifact> for Entry {
    fn from(artifact: &Artifact) -> Self {
        Self { name: artifact.name.clone(), sha256: artifact.sha256.clone(), size: artifact.size, origin: artifact.origin.clone() }
    }
}

/// What a file looked like right after it was hashed. As long as it looks the same it is not hashed again: whoever alters
/// it, by accident or by an ordinary program, changes at least the time of change, which no program can set.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    sha256: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(artifact: &Artifact, file: &Metadata) -> Self {
        Self {
            sha256: artifact.sha256.clone(),
            size: file.size(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Store {
    pub(super) fn index_path(&self, component: &str, version: &str, name: &str) -> PathBuf {
        self.root.join("index").join(component).join(version).join(format!("{name}.json"))
    }

    /// Where the index says what `artifact` is.
    pub(crate) fn index_file(&self, artifact: &Artifact) -> PathBuf {
        self.index_path(&artifact.component, &artifact.version, &artifact.name)
    }

    fn stamp_path(&self, artifact: &Artifact) -> PathBuf {
        self.index_file(artifact).with_extension("stamp")
    }

    /// What the index has under that name. It says nothing about the file: see [`Store::verify`] and [`Store::check`].
    /// An entry that cannot be read counts as none: it is made anew.
    #[must_use]
    pub fn lookup(&self, component: &str, version: &str, name: &str) -> Option<Artifact> {
        let text = fs::read(self.index_path(component, version, name)).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        let is_digest = entry.sha256.len() == 64 && entry.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        (entry.name == name && is_digest).then(|| Artifact {
            component: component.to_owned(),
            version: version.to_owned(),
            path: self.blob(&entry.sha256, name),
            name: entry.name,
            sha256: entry.sha256,
            size: entry.size,
            origin: entry.origin,
        })
    }

    /// Everything in the index, ordered by component, version and name.
    #[must_use]
    pub fn all(&self) -> Vec<Artifact> {
        let mut all = Vec::new();
        for component in names(self.root.join("index")) {
            for version in names(self.root.join("index").join(&component)) {
                for file in names(self.root.join("index").join(&component).join(&version)) {
                    if let Some(name) = file.strip_suffix(".json") {
                        all.extend(self.lookup(&component, &version, name));
                    }
                }
            }
        }
        all
    }

    /// Reads the whole file and compares.
    ///
    /// # Errors
    /// If it is missing, truncated, altered or unreadable: then it must not be run.
    pub fn verify(&self, artifact: &Artifact) -> Result<(), StoreError> {
        // Until it is proven again, nothing is remembered of it.
        let _ = fs::remove_file(self.stamp_path(artifact));
        let (file, before) = self.open_sized(artifact)?;
        let (actual, size) = hash(file).map_err(StoreError::io("read", &artifact.path))?;
        if size != artifact.size {
            return Err(StoreError::Truncated { path: artifact.path.clone(), expected: artifact.size, actual: size });
        }
        if actual != artifact.sha256 {
            return Err(StoreError::Altered { path: artifact.path.clone(), actual });
        }
        self.write_stamp(artifact, &Stamp::of(artifact, &before));
        Ok(())
    }

    /// As [`Store::verify`], but a file that looks exactly as it did when it was last hashed is not read again.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn check(&self, artifact: &Artifact) -> Result<(), StoreError> {
        let (_, now) = self.open_sized(artifact)?;
        let remembered: Option<Stamp> = fs::read(self.stamp_path(artifact)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if remembered.is_some_and(|stamp| stamp == Stamp::of(artifact, &now)) {
            return Ok(());
        }
        self.verify(artifact)
    }

    /// Remembers what a file that was just written and hashed looks like.
    pub(super) fn stamp(&self, artifact: &Artifact) {
        if let Ok(file) = fs::metadata(&artifact.path) {
            self.write_stamp(artifact, &Stamp::of(artifact, &file));
        }
    }

    /// A stamp that cannot be written costs a hashing next time, nothing else; and one that is half-written is not read.
    fn write_stamp(&self, artifact: &Artifact, stamp: &Stamp) {
        if let Ok(text) = serde_json::to_vec(stamp) {
            let _ = fs::write(self.stamp_path(artifact), text);
        }
    }

    fn open_sized(&self, artifact: &Artifact) -> Result<(File, Metadata), StoreError> {
        let file = match File::open(&artifact.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreError::Missing { path: artifact.path.clone() });
            }
            opened => opened.map_err(StoreError::io("read", &artifact.path))?,
        };
        let metadata = file.metadata().map_err(StoreError::io("read", &artifact.path))?;
        if metadata.len() != artifact.size {
            let (expected, actual) = (artifact.size, metadata.len());
            return Err(StoreError::Truncated { path: artifact.path.clone(), expected, actual });
        }
        Ok((file, metadata))
    }
}

/// The names in a directory, sorted; none if it is not there.
fn names(directory: PathBuf) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn store_with(contents: &str) -> (tempfile::TempDir, Store, Artifact) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let source = dir.path().join("made");
        fs::write(&source, contents).unwrap();
        let artifact = store.adopt("etcd", "v1", "etcd", "own:x", &source).unwrap();
        (dir, store, artifact)
    }

    /// Writes into the file as a disk error or a careless program would, read-only or not.
    fn overwrite(path: &Path, contents: &str) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path, contents).unwrap();
    }

    #[test]
    fn what_was_adopted_is_found_under_its_digest_and_is_executable_but_not_writable() {
        let (_dir, store, artifact) = store_with("hello");
        assert_eq!(artifact.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(artifact.path, store.root().join("sha256").join(&artifact.sha256).join("etcd"));
        assert_eq!(fs::metadata(&artifact.path).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(store.lookup("etcd", "v1", "etcd"), Some(artifact.clone()));
        assert_eq!(store.all(), vec![artifact.clone()]);
        store.check(&artifact).unwrap();
        store.verify(&artifact).unwrap();
    }

    #[test]
    fn a_truncated_a_longer_an_altered_and_a_missing_file_are_told_apart() {
        let (_dir, store, artifact) = store_with("hello");
        overwrite(&artifact.path, "hell");
        assert!(matches!(store.check(&artifact), Err(StoreError::Truncated { expected: 5, actual: 4, .. })));
        overwrite(&artifact.path, "hello!");
        assert!(matches!(store.check(&artifact), Err(StoreError::Truncated { expected: 5, actual: 6, .. })));
        overwrite(&artifact.path, "jello");
        assert!(matches!(store.check(&artifact), Err(StoreError::Altered { .. })));
        assert!(matches!(store.verify(&artifact), Err(StoreError::Altered { .. })));
        fs::remove_file(&artifact.path).unwrap();
        assert!(matches!(store.check(&artifact), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn adopting_again_heals_an_altered_file_and_leaves_a_good_one_alone() {
        let (dir, store, artifact) = store_with("hello");
        let inode = fs::metadata(&artifact.path).unwrap().ino();
        let source = dir.path().join("made");
        store.adopt("etcd", "v1", "etcd", "own:x", &source).unwrap();
        assert_eq!(fs::metadata(&artifact.path).unwrap().ino(), inode, "a good file must not be replaced: it may be running");
        overwrite(&artifact.path, "jello");
        store.adopt("etcd", "v1", "etcd", "own:x", &source).unwrap();
        store.verify(&artifact).unwrap();
    }

    #[test]
    fn a_file_that_looks_as_it_did_is_not_read_again() {
        let (_dir, store, artifact) = store_with("hello");
        // A stamp that claims so is believed by check and not by verify, which shows that check did not read.
        overwrite(&artifact.path, "jello");
        store.stamp(&artifact);
        store.check(&artifact).unwrap();
        assert!(matches!(store.verify(&artifact), Err(StoreError::Altered { .. })));
        // What was once found altered is not believed again.
        assert!(matches!(store.check(&artifact), Err(StoreError::Altered { .. })));
    }

    #[test]
    fn an_unfinished_file_is_never_seen_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut temp = store.temp_file().unwrap();
        io::Write::write_all(&mut temp, b"half").unwrap();
        assert!(store.all().is_empty());
        assert!(names(store.root().join("sha256")).is_empty());
        drop(temp);
        assert!(names(store.root().join("tmp")).is_empty());
    }

    #[test]
    fn a_broken_index_entry_counts_as_none() {
        let (_dir, store, artifact) = store_with("hello");
        let path = store.index_path("etcd", "v1", "etcd");
        for broken in ["", "{", r#"{"name":"etcd","sha256":"../../x","size":5,"origin":"own"}"#] {
            fs::write(&path, broken).unwrap();
            assert_eq!(store.lookup("etcd", "v1", "etcd"), None, "{broken}");
        }
        store.check(&artifact).unwrap();
    }
}
