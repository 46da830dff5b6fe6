//! What wakes a cluster's loop. Facts (a unit runs, a machine is gone, a spec was changed) ring at once; mere words (what an agent is doing just now) wait
//! up to two seconds for company.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long words wait.
const WORDS: Duration = Duration::from_secs(2);
/// How long a fact waits for others that come with it: five machines started together say the same within milliseconds.
const TOGETHER: Duration = Duration::from_millis(8);

/// Kinds of objects in the management API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// None.
    pub const NONE: Self = Self(0);
    /// Machines.
    pub const MACHINES: Self = Self(1);
    /// NodePools.
    pub const POOLS: Self = Self(2);
    /// Secrets.
    pub const SECRETS: Self = Self(4);
    /// EtcdSnapshots.
    pub const SNAPSHOTS: Self = Self(8);

    /// These and others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// One per cluster. Ringing is cheap and never blocks.
#[derive(Debug)]
pub struct Bell {
    fact: Notify,
    word: Notify,
    words: Duration,
    changed: AtomicU8,
}

impl Default for Bell {
    fn default() -> Self {
        Self { fact: Notify::new(), word: Notify::new(), words: WORDS, changed: AtomicU8::new(0) }
    }
}

impl Bell {
    /// Something has changed that may change the plan.
    pub fn fact(&self) {
        self.fact.notify_one();
    }

    /// Something has changed that people may want to read.
    pub fn word(&self) {
        self.word.notify_one();
    }

    /// Objects of these kinds may be others than when they were last read. Rings nothing.
    pub fn changed(&self, kinds: Kinds) {
        self.changed.fetch_or(kinds.0, Ordering::SeqCst);
    }

    /// Whether objects of a kind may be others than when this was last asked.
    pub fn take_changed(&self, kind: Kinds) -> bool {
        self.changed.fetch_and(!kind.0, Ordering::SeqCst) & kind.0 != 0
    }

    /// Returns when there is a reason to look again, at the latest at `until`.
    pub async fn rung(&self, until: Instant) {
        tokio::select! {
            () = self.fact.notified() => tokio::time::sleep(TOGETHER).await,
            () = self.word.notified() => {
                let until = until.min(Instant::now() + self.words);
                tokio::select! {
                    () = self.fact.notified() => tokio::time::sleep(TOGETHER).await,
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fact_wakes_at_once_and_a_word_after_a_while() {
        let bell = Bell { words: Duration::from_millis(300), ..Bell::default() };
        let begin = Instant::now();
        let far = begin + Duration::from_secs(60);
        bell.fact();
        bell.rung(far).await;
        assert!(begin.elapsed() < Duration::from_millis(250), "{:?}", begin.elapsed());
        bell.word();
        let heard = Instant::now();
        bell.rung(far).await;
        assert!(heard.elapsed() >= Duration::from_millis(300), "{:?}", heard.elapsed());
        let soon = Instant::now() + Duration::from_millis(20);
        bell.rung(soon).await;
        assert!(Instant::now() >= soon);
    }
}
