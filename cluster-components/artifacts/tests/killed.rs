//! A process killed in the middle of a build leaves nothing that anyone could take for an artifact, and no lock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use slipway_artifacts::Store;

/// The example `ensure`, which `cargo test` builds beside this test.
fn ensure(store: &Path, go: &Path) -> Child {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("examples/ensure");
    Command::new(program)
        .args(["v1.36.4", "--modules"])
        .env("SLIPWAY_STORE", store)
        .env("PATH", format!("{}:/usr/bin:/bin", go.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that its `go` can be killed with it.
        .process_group(0)
        .spawn()
        .expect("cargo test builds the example")
}

/// A Go that says it is new enough, leaves half an executable, and never ends.
fn endless_go(directory: &Path) {
    let script = "#!/bin/sh\n[ \"$1\" = version ] && { echo 'go version go1.99.0 linux/amd64'; exit; }\n\
                  printf half > ../out0/kubelet; : > ../started; exec sleep 600\n";
    let path = directory.join("go");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Waits until a build has begun under `store`, and returns the directory it is made in.
fn begun(store: &Path) -> std::path::PathBuf {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let scratch = fs::read_dir(store.join("tmp")).into_iter().flatten().flatten().map(|entry| entry.path());
        if let Some(found) = scratch.into_iter().find(|path| path.join("started").exists()) {
            return found;
        }
        assert!(Instant::now() < deadline, "no build began within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(mut child: Child) {
    Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]).status().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_killed_build_leaves_no_artifact_and_no_lock_and_the_next_one_clears_up() {
    let dir = tempfile::tempdir().unwrap();
    let (root, go) = (dir.path().join("store"), dir.path().join("go"));
    fs::create_dir(&go).unwrap();
    endless_go(&go);

    let first = ensure(&root, &go);
    let left = begun(&root);
    kill(first);
    let store = Store::open(&root).unwrap();
    assert!(store.all().is_empty());
    assert_eq!(fs::read_dir(root.join("sha256")).unwrap().count(), 0);
    assert!(left.exists(), "the test would show nothing");
    fs::remove_file(left.join("started")).unwrap();

    // That it begins shows that the lock is free.
    let second = ensure(&root, &go);
    let now = begun(&root);
    assert_ne!(now, left);
    assert!(!left.exists(), "what the first one left is swept");
    kill(second);
}
