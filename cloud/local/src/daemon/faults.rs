//! Injected faults: which calls fail, dawdle, or lose their reply. Dice with a seed, so that a failing run can be had again.

use crate::wire::{CallFault, Faults};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What shall happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// First wait.
    pub delay: Duration,
    /// Then fail without effect…
    pub fail: bool,
    /// …or do it and cut the connection.
    pub lose: bool,
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Injector(Mutex<(Faults, u64)>);

impl Injector {
    /// Replaces the faults.
    pub fn set(&self, faults: Faults) {
        let seed = faults.seed;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (faults, seed);
    }

    /// The faults in force, with what is left of the counted ones.
    pub fn get(&self) -> Faults {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Throws the dice for a call.
    pub fn judge(&self, call: &str) -> Verdict {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (faults, dice) = &mut *guard;
        let name = if faults.calls.contains_key(call) { call } else { "*" };
        // Who set faults must be able to end them.
        let named = super::calls::NAMES.contains(&call);
        let Some(fault) = faults.calls.get_mut(name).filter(|_| named) else {
            return Verdict { delay: Duration::ZERO, fail: false, lose: false };
        };
        let CallFault { error_rate, lost_reply_rate, fail_next, lose_next, delay_ms } = fault;
        let fail = take(fail_next) || throw(dice) < *error_rate;
        let lose = !fail && (take(lose_next) || throw(dice) < *lost_reply_rate);
        Verdict { delay: Duration::from_millis(*delay_ms), fail, lose }
    }

    /// Whether the instance that is being made for this machine shall never get up.
    pub fn never_boots(&self, machine: &str) -> bool {
        let faults = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0;
        faults.never_boot_machines.iter().any(|m| m == machine) || take(&mut faults.never_boot)
    }
}

fn take(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}

/// SplitMix64, as a number in [0, 1).
fn throw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let top = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(0);
    f64::from(top) / f64::from(u32::MAX).max(1.0)
}

/// Refuses what is no fault.
pub fn check(faults: &Faults) -> Result<(), String> {
    for (call, fault) in &faults.calls {
        for (what, rate) in [("errorRate", fault.error_rate), ("lostReplyRate", fault.lost_reply_rate)] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("calls.{call}.{what} is {rate}: it must be between 0 and 1"));
            }
        }
        if fault.delay_ms > 60_000 {
            return Err(format!("calls.{call}.delayMs is {}: at most 60000", fault.delay_ms));
        }
        if call != "*" && !super::calls::NAMES.contains(&call.as_str()) {
            return Err(format!("calls.{call}: no such call; there are {}", super::calls::NAMES.join(", ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    fn with(call: &str, fault: CallFault) -> Injector {
        let injector = Injector::default();
        injector.set(Faults { calls: [(call.to_owned(), fault)].into(), ..Faults::default() });
        injector
    }

    #[test]
    fn counted_faults_end() {
        let injector = with("inventory", CallFault { fail_next: 1, lose_next: 1, ..CallFault::default() });
        assert!(injector.judge("inventory").fail);
        assert!(injector.judge("inventory").lose);
        assert_eq!(injector.judge("inventory"), Verdict { delay: Duration::ZERO, fail: false, lose: false });
        assert!(!injector.judge("create_instance").fail);
    }

    #[test]
    fn rates_are_about_kept() {
        let injector = with("*", CallFault { error_rate: 0.3, ..CallFault::default() });
        let failed = (0..1000).filter(|_| injector.judge("inventory").fail).count();
        assert!((250..350).contains(&failed), "{failed}");
    }

    #[test]
    fn faults_can_always_be_ended() {
        let injector = with("*", CallFault { error_rate: 1.0, ..CallFault::default() });
        assert!(injector.judge("inventory").fail);
        for call in ["status", "faults", "set_faults"] {
            assert!(!injector.judge(call).fail, "{call} failed");
        }
    }
}
