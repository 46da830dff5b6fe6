//! Counts every effect on the outside world, in the one place where the executor begins them, and lets a test end the operator right after the N-th.
//!
//! A create that survives `--die-after-effects N` for every N survives a crash between any two effects. For tests only: nothing but the count and
//! the flag is here, and the flag is refused nowhere because an operator that ends is harmless by design.

use std::sync::atomic::{AtomicU64, Ordering};

/// The count.
#[derive(Debug, Default)]
pub struct Effects {
    done: AtomicU64,
    die_after: Option<u64>,
}

/// Exit status of an operator that was told to die.
pub const DIED_AS_TOLD: i32 = 86;

impl Effects {
    /// Counts, and ends the process after `die_after` effects, if that is given.
    #[must_use]
    pub fn new(die_after: Option<u64>) -> Self {
        Self { done: AtomicU64::new(0), die_after }
    }

    /// One more effect has happened (or may have: its answer can be lost). The process ends here if this was the last it may have.
    pub fn done(&self, what: &str) {
        let n = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        tracing::info!("effect {n}: {what}");
        if self.die_after == Some(n) {
            tracing::warn!("ending after effect {n}, as --die-after-effects says");
            std::process::exit(DIED_AS_TOLD);
        }
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }
}
