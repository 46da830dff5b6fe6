//! Putting a file into the store: hashed while it is written, synced, renamed; then the index entry, in the same way.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::index::Entry;
use super::{Artifact, Store, StoreError};

/// A file being written under `tmp/`, hashed on the way. Dropped without [`Store::adopt`], it is gone.
#[derive(Debug)]
pub(crate) struct TempFile {
    file: tempfile::NamedTempFile,
    hash: Sha256,
    size: u64,
}

impl Write for TempFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hash.update(buffer.get(..written).unwrap_or(buffer));
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The digest in lower-case hex and the length of a file.
pub(crate) fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    File::open(path).and_then(hash)
}

/// The digest in lower-case hex and the length of all that `reader` has.
pub(super) fn hash(mut reader: impl Read) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let size = io::copy(&mut reader, &mut HashWriter(&mut hash))?;
    Ok((hex::encode(hash.finalize()), size))
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Begins a file that [`Store::adopt_temp`] will put in its place.
    pub(crate) fn temp_file(&self) -> Result<TempFile, StoreError> {
        let tmp = self.root.join("tmp");
        let file = tempfile::Builder::new().prefix("file-").tempfile_in(&tmp).map_err(StoreError::io("make a file in", &tmp))?;
        Ok(TempFile { file, hash: Sha256::new(), size: 0 })
    }

    /// Copies the file at `source` into the store as the artifact `name` of `component` at `version`, and returns it.
    ///
    /// # Errors
    /// If `source` cannot be read or the store cannot be written.
    pub fn adopt(&self, component: &str, version: &str, name: &str, origin: &str, source: &Path) -> Result<Artifact, StoreError> {
        let mut from = File::open(source).map_err(StoreError::io("read", source))?;
        let mut temp = self.temp_file()?;
        io::copy(&mut from, &mut temp).map_err(StoreError::io("copy", source))?;
        self.adopt_temp(component, version, name, origin, temp)
    }

    /// Copies another store's artifact, if it is still what that store's index says.
    pub(crate) fn adopt_expecting(&self, there: &Artifact) -> Result<Artifact, StoreError> {
        let mut from = File::open(&there.path).map_err(StoreError::io("read", &there.path))?;
        let mut temp = self.temp_file()?;
        io::copy(&mut from, &mut temp).map_err(StoreError::io("copy", &there.path))?;
        if temp.size != there.size {
            let (expected, actual) = (there.size, temp.size);
            return Err(StoreError::Truncated { path: there.path.clone(), expected, actual });
        }
        let actual = hex::encode(temp.hash.clone().finalize());
        if actual != there.sha256 {
            return Err(StoreError::Altered { path: there.path.clone(), actual });
        }
        self.adopt_temp(&there.component, &there.version, &there.name, &there.origin, temp)
    }

    /// Puts a finished [`TempFile`] in its place.
    pub(crate) fn adopt_temp(
        &self,
        component: &str,
        version: &str,
        name: &str,
        origin: &str,
        temp: TempFile,
    ) -> Result<Artifact, StoreError> {
        let sha256 = hex::encode(temp.hash.finalize());
        let size = temp.size;
        let path = self.blob(&sha256, name);
        // What is there under this digest is kept if it is what it says: it may be running.
        let already = hash_file(&path).is_ok_and(|(found, _)| found == sha256);
        if !already {
            let mode = if Path::new(name).extension().is_some_and(|ending| ending == "tar") { 0o444 } else { 0o555 };
            persist(temp.file, mode, &path)?;
        }
        let artifact = Artifact {
            component: component.to_owned(),
            version: version.to_owned(),
            name: name.to_owned(),
            sha256,
            size,
            path,
            origin: origin.to_owned(),
        };
        self.write_index(&artifact)?;
        self.stamp(&artifact);
        Ok(artifact)
    }

    fn write_index(&self, artifact: &Artifact) -> Result<(), StoreError> {
        let path = self.index_path(&artifact.component, &artifact.version, &artifact.name);
        let text = serde_json::to_vec_pretty(&Entry::from(artifact)).map_err(io::Error::other).map_err(StoreError::io("write", &path))?;
        let mut temp = self.temp_file()?;
        temp.write_all(&text).map_err(StoreError::io("write", &path))?;
        persist(temp.file, 0o644, &path)
    }
}

/// Mode, contents to the disk, rename, directory to the disk: after this returns, a power cut does not undo it; before the
/// rename, nobody sees it.
fn persist(file: tempfile::NamedTempFile, mode: u32, path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(StoreError::io("make the directory", parent))?;
    file.as_file()
        .set_permissions(Permissions::from_mode(mode))
        .and_then(|()| file.as_file().sync_all())
        .map_err(StoreError::io("write", path))?;
    file.persist(path).map_err(|error| StoreError::io("put in place", path)(error.error))?;
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(StoreError::io("sync", parent))
}
