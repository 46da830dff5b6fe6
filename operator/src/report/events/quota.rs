//! No more than so many Events per object: 25 at once, and one more every five minutes, as client-go has it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeMap;

/// At once.
const BURST: u32 = 25;
/// Seconds after which one more is allowed.
const REFILL: i64 = 300;

/// What every object may still say, by kind and name.
#[derive(Debug, Default)]
pub struct Quota(BTreeMap<(Option<String>, Option<String>), Bucket>);

#[derive(Debug)]
struct Bucket {
    left: u32,
    /// Until when refills are counted.
    counted: Timestamp,
}

impl Quota {
    /// Whether an object may say one more now; it is counted if it may.
    pub fn allows(&mut self, about: &ObjectReference, now: Timestamp) -> bool {
        self.0.retain(|_, bucket| {
            bucket.refill(now);
            bucket.left < BURST
        });
        let bucket = self.0.entry((about.kind.clone(), about.name.clone())).or_insert(Bucket { left: BURST, counted: now });
        let allowed = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        allowed
    }
}

impl Bucket {
    fn refill(&mut self, now: Timestamp) {
        let periods = (now.as_second() - self.counted.as_second()).max(0) / REFILL;
        if periods > 0 {
            self.left = self.left.saturating_add(u32::try_from(periods).unwrap_or(u32::MAX)).min(BURST);
            self.counted = Timestamp::from_second(self.counted.as_second() + periods * REFILL).unwrap_or(now);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_storm_about_one_object_is_cut_off_and_others_are_heard() {
        let about = |name: &str| ObjectReference { kind: Some("Machine".into()), name: Some(name.into()), ..ObjectReference::default() };
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let mut quota = Quota::default();
        let told = (0..100).filter(|_| quota.allows(&about("a"), at(0))).count();
        assert_eq!(told, 25);
        assert!(quota.allows(&about("b"), at(0)));
        assert!(!quota.allows(&about("a"), at(299)));
        assert!(quota.allows(&about("a"), at(300)) && !quota.allows(&about("a"), at(301)));
        assert_eq!((0..100).filter(|_| quota.allows(&about("a"), at(1_000_000))).count(), 25);
    }
}
