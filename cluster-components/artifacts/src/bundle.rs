//! A version set in one file, for places without a way out: `slipway bundle create` here, `slipway bundle add` there.
//!
//! A bundle is a tar archive of a store's layout, so one unpacked by hand serves as a mirror directory too. What comes out of
//! it is hashed on its way into the store, as everything is.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::{Artifact, Store, StoreError};
use crate::{EnsureOptions, Error, Progress, SourceChoice, ensure};

/// Writes a Kubernetes version with all that belongs to it, images included, into the file `to`, fetching first what the
/// store does not have. Every file is read and checked on its way.
///
/// # Errors
/// As [`ensure()`], or if `to` cannot be written; then there is no file `to`.
pub fn create(
    store: &Store,
    kubernetes: &str,
    to: &Path,
    options: &EnsureOptions,
    progress: &dyn Progress,
) -> Result<Vec<Artifact>, Error> {
    let artifacts = ensure(store, kubernetes, options, progress)?;
    write(store, &artifacts, to)?;
    Ok(artifacts)
}

fn write(store: &Store, artifacts: &[Artifact], to: &Path) -> Result<(), StoreError> {
    let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |source| StoreError::Io { what: "write the bundle", path: to.to_owned(), source };
    let file = tempfile::NamedTempFile::new_in(directory).map_err(cannot)?;
    let mut tar = tar::Builder::new(file);
    for artifact in artifacts {
        store.verify(artifact)?;
        for path in [store.index_file(artifact), artifact.path.clone()] {
            let name = path.strip_prefix(store.root()).unwrap_or(&path);
            append(&mut tar, &path, name).map_err(cannot)?;
        }
    }
    let file = tar.into_inner().map_err(cannot)?;
    file.as_file().sync_all().map_err(cannot)?;
    file.persist(to).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Brings what is in the bundle at `from` into the store, and returns what is of this catalogue's version `kubernetes`.
///
/// # Errors
/// If the bundle cannot be read, was altered, or lacks something.
pub fn add(store: &Store, kubernetes: &str, from: &Path, progress: &dyn Progress) -> Result<Vec<Artifact>, Error> {
    let unpacked = unpack(store, from)?;
    let options = EnsureOptions { source: SourceChoice::Mirror(unpacked.path().to_owned()), ..EnsureOptions::default() };
    ensure(store, kubernetes, &options, progress)
}

/// Unpacks a bundle beside the store; the directory goes when it is dropped.
fn unpack(store: &Store, from: &Path) -> Result<tempfile::TempDir, StoreError> {
    let cannot = |source| StoreError::Io { what: "unpack the bundle", path: from.to_owned(), source };
    let scratch = store.scratch("bundle-")?;
    // This refuses paths that lead out of the directory.
    tar::Archive::new(File::open(from).map_err(cannot)?).unpack(scratch.path()).map_err(cannot)?;
    Ok(scratch)
}

/// A file of root's, from the beginning of time.
fn append(tar: &mut tar::Builder<tempfile::NamedTempFile>, path: &Path, name: &Path) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_size(fs::metadata(path)?.len());
    tar.append_data(&mut header, name, File::open(path)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Component, Silent, ensure_component};

    /// A store with a runc in it, and a bundle of that.
    fn bundle(dir: &Path) -> (Artifact, std::path::PathBuf) {
        let store = Store::open(&dir.join("here")).unwrap();
        let (file, bundle) = (dir.join("file"), dir.join("bundle.tar"));
        fs::write(&file, "a runc of some length").unwrap();
        let artifact = store.adopt("runc", "v1.4.3", "runc", "release:https://x/runc", &file).unwrap();
        write(&store, std::slice::from_ref(&artifact), &bundle).unwrap();
        (artifact, bundle)
    }

    fn add_runc(store: &Store, bundle: &Path) -> Result<Vec<Artifact>, Error> {
        let unpacked = unpack(store, bundle)?;
        let options = EnsureOptions { source: SourceChoice::Mirror(unpacked.path().to_owned()), ..EnsureOptions::default() };
        ensure_component(store, Component::Runc, "v1.4.3", &options, &Silent)
    }

    #[test]
    fn what_is_bundled_here_is_there_after_adding_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (here, bundle) = bundle(dir.path());
        let store = Store::open(&dir.path().join("there")).unwrap();
        let there = add_runc(&store, &bundle).unwrap().remove(0);
        assert_eq!((there.sha256.as_str(), there.origin.as_str()), (here.sha256.as_str(), here.origin.as_str()));
        store.verify(&there).unwrap();
        assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn an_altered_and_a_truncated_bundle_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_, bundle) = bundle(dir.path());
        let whole = fs::read(&bundle).unwrap();
        let store = Store::open(&dir.path().join("there")).unwrap();
        let altered = String::from_utf8(whole.clone()).unwrap().replace("a runc of some", "a RUNC of some");
        fs::write(&bundle, altered).unwrap();
        assert!(matches!(add_runc(&store, &bundle), Err(Error::NoSource { .. })));
        fs::write(&bundle, whole.split_at(whole.len() - 1600).0).unwrap();
        assert!(add_runc(&store, &bundle).is_err());
        assert!(store.all().is_empty());
    }
}
