//! The order of sources, healing, and that many at once build once. The builds are of our own small programs, which need
//! Go and no network.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use super::*;
use crate::Silent;

/// Remembers what it was told.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Progress for Recorder {
    fn step(&self, artifact: &str, what: &str) {
        self.0.lock().unwrap().push(format!("{artifact}: {what}"));
    }
    fn done(&self, artifact: &str, how: &str, _: Duration) {
        self.0.lock().unwrap().push(format!("{artifact}: done: {how}"));
    }
}

impl Recorder {
    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

fn open(dir: &Path, name: &str) -> Store {
    Store::open(&dir.join(name)).unwrap()
}

fn put(store: &Store, dir: &Path, origin: &str, contents: &str) -> Artifact {
    let file = dir.join("file");
    fs::write(&file, contents).unwrap();
    store.adopt("runc", "v1.4.3", "runc", origin, &file).unwrap()
}

fn overwrite(artifact: &Artifact, contents: &str) {
    fs::set_permissions(&artifact.path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&artifact.path, contents).unwrap();
}

fn from_mirror(store: &Store, mirror: &Store) -> Result<Vec<Artifact>, Error> {
    let options = EnsureOptions { source: SourceChoice::Mirror(mirror.root().to_owned()), ..EnsureOptions::default() };
    ensure_component(store, Component::Runc, "v1.4.3", &options, &Silent)
}

/// False, and said so, where there is no Go to build with.
fn can_build() -> bool {
    let found = std::process::Command::new("go").arg("version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no Go here");
    }
    found
}

fn build_pause(store: &Store, progress: &dyn Progress) -> Vec<Artifact> {
    let options = EnsureOptions { source: SourceChoice::GoModules, ..EnsureOptions::default() };
    ensure_component(store, Component::Pause, "3.10.2", &options, progress).unwrap()
}

#[test]
fn a_mirror_fills_the_store_and_a_truncated_or_altered_file_is_had_from_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mirror) = (open(dir.path(), "store"), open(dir.path(), "mirror"));
    put(&mirror, dir.path(), "release:https://x/runc", "runc");
    let got = from_mirror(&store, &mirror).unwrap();
    let artifact = got.first().unwrap();
    assert!(artifact.path.starts_with(store.root()));
    assert_eq!(artifact.origin, "release:https://x/runc");
    for broken in ["run", "runc and more", "RUNC"] {
        overwrite(artifact, broken);
        assert_eq!(from_mirror(&store, &mirror).unwrap(), got);
        assert_eq!(fs::read_to_string(&artifact.path).unwrap(), "runc", "{broken}");
    }
}

#[test]
fn an_altered_file_in_a_mirror_is_refused_and_the_error_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mirror) = (open(dir.path(), "store"), open(dir.path(), "mirror"));
    overwrite(&put(&mirror, dir.path(), "release:https://x/runc", "runc"), "RUNC");
    let error = from_mirror(&store, &mirror).unwrap_err().to_string();
    assert!(error.contains("runc v1.4.3 (runc) could not be had"), "{error}");
    assert!(store.all().is_empty());
}

#[test]
fn what_another_recipe_built_is_stale_in_the_store_and_in_a_mirror() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mirror) = (open(dir.path(), "store"), open(dir.path(), "mirror"));
    put(&store, dir.path(), "gomod:0123", "old");
    put(&mirror, dir.path(), "gomod:0123", "old");
    assert!(matches!(from_mirror(&store, &mirror), Err(Error::NoSource { .. })));
    put(&mirror, dir.path(), "release:https://x/runc", "new");
    let got = from_mirror(&store, &mirror).unwrap();
    assert_eq!(fs::read_to_string(&got.first().unwrap().path).unwrap(), "new");
}

#[test]
fn an_unknown_version_is_answered_with_those_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "store");
    let error = ensure(&store, "v1.20.0", &EnsureOptions::default(), &Silent).unwrap_err().to_string();
    assert_eq!(error, "Kubernetes v1.20.0 is not in the catalogue; there are v1.35.8, v1.36.4, v1.37.2");
    let unknown = ensure_component(&store, Component::Etcd, "v9", &EnsureOptions::default(), &Silent);
    assert!(matches!(unknown, Err(Error::UnknownComponentVersion { .. })));
}

#[test]
fn two_at_once_build_once_and_get_the_same() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "store");
    let (recorder, together) = (Recorder::default(), Barrier::new(2));
    let results: Vec<_> = thread::scope(|scope| {
        let builders = [(); 2].map(|()| {
            scope.spawn(|| {
                together.wait();
                build_pause(&store, &recorder)
            })
        });
        builders.into_iter().map(|builder| builder.join().unwrap()).collect()
    });
    assert_eq!(recorder.count("compiling pause"), 1, "{:?}", recorder.0.lock().unwrap());
    assert_eq!(results.first(), results.last());
    let names: Vec<_> = results.first().unwrap().iter().map(|artifact| artifact.name.clone()).collect();
    assert_eq!(names, ["pause", "pause.tar"]);
}

#[test]
fn an_altered_build_is_built_anew_to_the_same_bytes_and_its_image_with_it() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "store");
    let before = build_pause(&store, &Silent);
    for artifact in &before {
        overwrite(artifact, "altered");
    }
    // What a killed build left is swept by the next one.
    fs::create_dir_all(store.root().join("tmp/build-pause-3.10.2-killed/out0")).unwrap();
    let recorder = Recorder::default();
    assert_eq!(build_pause(&store, &recorder), before);
    before.iter().for_each(|artifact| store.verify(artifact).unwrap());
    // The image of a program that is not there is not looked at.
    assert_eq!(recorder.count("getting it anew"), 1);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    // And a third time there is nothing to do.
    let recorder = Recorder::default();
    build_pause(&store, &recorder);
    assert_eq!(*recorder.0.lock().unwrap(), ["pause 3.10.2: done: in the store"]);
}

#[test]
fn a_release_in_the_store_does_not_serve_who_asks_for_a_build() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "store");
    let file = dir.path().join("file");
    fs::write(&file, "something else").unwrap();
    store.adopt("pause", "3.10.2", "pause", "release:https://x/pause", &file).unwrap();
    let built = build_pause(&store, &Silent);
    assert!(built.first().unwrap().origin.starts_with("gomod:"));
    assert_ne!(fs::read(&built.first().unwrap().path).unwrap(), b"something else");
}
