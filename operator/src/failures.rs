//! What failed, how often and until when it is left alone: the **book of failures** of one cluster.
//!
//! It lives in memory: an operator that starts anew may try everything once at once. Entries go when the action succeeds, or when nobody plans it
//! any more. Waits double from 250 ms to 30 s, spread by up to a quarter so that many machines do not ask in step.

use jiff::{SignedDuration, Timestamp};
use slipway_plan::Failure;
use std::collections::BTreeMap;

/// First wait.
const FIRST: SignedDuration = SignedDuration::from_millis(250);
/// First wait where the other side says how long: zero is what an action asks for that was planned from an older picture, and nothing is wrong.
const ASKED: SignedDuration = SignedDuration::from_millis(20);
/// Longest wait.
const LONGEST: SignedDuration = SignedDuration::from_secs(30);
/// Longest wait for what others make possible any moment, in the first minute.
const STEADY: SignedDuration = SignedDuration::from_secs(1);
const STEADY_FOR: SignedDuration = SignedDuration::from_mins(1);

/// When what failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After longer and longer waits.
    Doubling,
    /// When the other side wants to be asked again, and after longer and longer waits if that is not enough.
    Asked(SignedDuration),
    /// Every second for a minute, then after longer and longer waits: somebody else is about to make it possible, and nobody says when.
    Steady,
}

/// Failures by the action's key.
#[derive(Debug)]
pub struct Failures<K> {
    entries: BTreeMap<K, Failure>,
    /// State of the jitter: any number does.
    spread: u64,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), spread: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl<K: Ord + Clone> Failures<K> {
    /// Writes down one more failure.
    pub fn failed(&mut self, key: K, error: String, again: Again, now: Timestamp) {
        let spread = self.draw();
        let entry = self.entries.entry(key).or_insert(Failure { attempts: 0, since: now, last: now, error: String::new(), next_try: now });
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last = now;
        entry.error = error;
        let doubled = |first: SignedDuration| first.checked_mul(1 << (entry.attempts - 1).min(10)).unwrap_or(LONGEST).min(LONGEST);
        let pause = match again {
            Again::Asked(wait) => wait.max(doubled(ASKED)),
            Again::Steady if now < entry.since + STEADY_FOR => doubled(FIRST).min(STEADY),
            Again::Steady | Again::Doubling => doubled(FIRST),
        };
        let extra = SignedDuration::from_millis(i64::try_from(pause.as_millis() / 4).unwrap_or(0) * spread / 256);
        entry.next_try = now + pause + extra;
    }

    /// The action was done.
    pub fn succeeded(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Forgets what nobody plans any more. Not at once: the planner holds a failing action back until its next try.
    pub fn forget_stale(&mut self, planned: impl Fn(&K) -> bool, now: Timestamp) {
        self.entries.retain(|key, failure| planned(key) || failure.next_try + LONGEST > now);
    }

    /// Whether an action may start.
    #[must_use]
    pub fn may_start(&self, key: &K, now: Timestamp) -> bool {
        self.entries.get(key).is_none_or(|f| f.next_try <= now)
    }

    /// When the next one may be tried again.
    #[must_use]
    pub fn next_try(&self) -> Option<Timestamp> {
        self.entries.values().map(|f| f.next_try).min()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Failure)> {
        self.entries.iter()
    }

    /// 0 to 255. xorshift64: spreading needs no better randomness.
    fn draw(&mut self) -> i64 {
        self.spread ^= self.spread << 13;
        self.spread ^= self.spread >> 7;
        self.spread ^= self.spread << 17;
        i64::try_from(self.spread & 0xff).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_a_success_ends_them() {
        let mut book = Failures::default();
        let now = Timestamp::UNIX_EPOCH;
        let mut waits = vec![];
        for _ in 0..12 {
            book.failed("a", "no".into(), Again::Doubling, now);
            waits.push(
                (book.entries.get("a").unwrap().next_try - now).get_milliseconds()
                    + (book.entries.get("a").unwrap().next_try - now).get_seconds() * 1000,
            );
        }
        assert!((250..=320).contains(waits.first().unwrap()), "{waits:?}");
        assert!((500..=640).contains(waits.get(1).unwrap()), "{waits:?}");
        assert!((30_000..=37_600).contains(waits.last().unwrap()), "{waits:?}");
        assert!(!book.may_start(&"a", now) && book.may_start(&"b", now));
        assert_eq!(book.entries.get("a").unwrap().attempts, 12);
        book.succeeded(&"a");
        assert!(book.may_start(&"a", now));
    }

    #[test]
    fn what_others_make_possible_is_tried_every_second_for_a_minute() {
        let mut book = Failures::default();
        let mut now = Timestamp::UNIX_EPOCH;
        while now < Timestamp::UNIX_EPOCH + STEADY_FOR {
            book.failed("a", "a disruption budget does not allow it".into(), Again::Steady, now);
            let next = book.next_try().unwrap();
            assert!(next.duration_since(now) <= SignedDuration::from_millis(1250), "{now}: {next}");
            now = next;
        }
        book.failed("a", "a disruption budget does not allow it".into(), Again::Steady, now);
        assert!(book.next_try().unwrap() >= now + LONGEST);
    }

    #[test]
    fn what_was_only_too_early_is_tried_again_soon_and_not_for_ever_so_soon() {
        let mut book = Failures::default();
        let now = Timestamp::UNIX_EPOCH;
        let mut tried_within = |milliseconds| {
            book.failed("a", "no address yet".into(), Again::Asked(SignedDuration::ZERO), now);
            book.may_start(&"a", now + SignedDuration::from_millis(milliseconds))
        };
        assert!(tried_within(25) && tried_within(50));
        for _ in 0..12 {
            assert!(!tried_within(25));
        }
    }

    #[test]
    fn the_others_wish_counts_before_ours() {
        let mut book = Failures::default();
        book.failed("a", "slow down".into(), Again::Asked(SignedDuration::from_secs(8)), Timestamp::UNIX_EPOCH);
        assert!(!book.may_start(&"a", Timestamp::UNIX_EPOCH + SignedDuration::from_secs(7)));
        assert!(book.may_start(&"a", Timestamp::UNIX_EPOCH + SignedDuration::from_secs(11)));
    }
}
