//! How callers hear what is going on; a build can take minutes, and nobody should have to guess.

use std::time::Duration;

/// Told what happens to each artifact. Calls come from the thread that called [`crate::ensure`].
pub trait Progress: Send + Sync {
    /// `artifact` (for instance `kubernetes v1.36.4`, or `etcd v3.6.14 etcdctl`) is now at `what`.
    fn step(&self, artifact: &str, what: &str);
    /// `artifact` is there: `how` it came.
    fn done(&self, artifact: &str, how: &str, took: Duration);
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str, _: &str) {}
    fn done(&self, _: &str, _: &str, _: Duration) {}
}

/// One line per step on standard error, for logs and for terminals without a better idea.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Progress for Stderr {
    fn step(&self, artifact: &str, what: &str) {
        eprintln!("{artifact}: {what}");
    }

    fn done(&self, artifact: &str, how: &str, took: Duration) {
        eprintln!("{artifact}: {how} ({:.1} s)", took.as_secs_f64());
    }
}
