//! The program as scripts call it: exit codes, and which of the two outputs says what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Output};

/// In a home of its own, so that nobody's clusters are met.
fn slipway(home: &std::path::Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command.output().unwrap()
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_is_not_understood_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    for args in [&["frobnicate"][..], &[], &["up", "--timeout", "soon"], &["wait", "x", "--for", "Ready"], &["get", "elephants"]] {
        let (code, out, err) = told(&slipway(home.path(), args));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(!err.is_empty(), "{args:?}");
    }
}

#[test]
fn what_is_refused_ends_with_3_says_the_way_out_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let cluster = home.path().join("cluster.yaml");
    std::fs::write(&cluster, "apiVersion: slipway.dev/v1alpha1\nkind: Cluster\nmetadata: {name: x}\nspec: {kubernetesVersion: v1.2.3}\n")
        .unwrap();
    let cluster = cluster.to_str().unwrap();
    let state = home.path().join("state");
    let state = state.to_str().unwrap();
    for (args, way_out) in [
        (&["get"][..], "`slipway up` starts one here"),
        (&["describe", "x"], "--kubeconfig"),
        (&["logs", "management-cp-0", "etcd"], "`slipway up`"),
        (&["local", "status"], "`slipway up`"),
        (&["up", "--state", state, "--range", "10.0.0.1/99"], "198.18.0.0/20"),
        (&["up", "--state", state, "--range", "10.0.0.1/20"], "without host bits"),
        (&["up", "--state", state, "--name", "Much-Too-Long"], "lower-case letter"),
        (&["up", "--state", state, "-f", cluster], "choose one of v1."),
        (&["plan", "-f", cluster], "choose one of v1."),
        (&["plan", "-f", "/nowhere"], "/nowhere"),
    ] {
        let (code, out, err) = told(&slipway(home.path(), args));
        assert_eq!((code, out.as_str()), (3, ""), "{args:?}: {err}");
        assert!(err.contains(way_out), "{args:?}: {err}");
    }
    assert!(!std::path::Path::new(state).exists(), "a refused `up` made something");
}

#[test]
fn what_is_not_there_is_down_already() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = told(&slipway(home.path(), &["down"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("nothing to do"), "{out}");
}

#[test]
fn the_same_program_is_a_plug_in_of_kubectl() {
    let home = tempfile::tempdir().unwrap();
    let plugin = home.path().join("kubectl-slipway");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_slipway"), &plugin).unwrap();
    let output = Command::new(plugin).args(["version", "--output", "json"]).env("HOME", home.path()).output().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["kubernetes"].as_array().unwrap().len(), 3);
}

#[test]
fn the_checked_in_reference_is_what_the_program_says() {
    let home = tempfile::tempdir().unwrap();
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cli.md");
    let (code, _, err) = told(&slipway(home.path(), &["cli-docs", reference, "--check"]));
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = told(&slipway(home.path(), &["cli-docs", "/nowhere/cli.md", "--check"]));
    assert!(code == 3 && err.contains("cargo xtask gen"), "{err}");
}

#[test]
fn completion_is_printed_for_each_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = told(&slipway(home.path(), &["completion", shell]));
        assert!(code == 0 && out.contains("slipway") && out.contains("kubeconfig"), "{shell}");
    }
}
