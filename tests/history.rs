//! Whether a history of reads and compare-and-swaps on registers could have happened on one copy of the data: linearizability, checked by following
//! every order that the calls' times allow (Wing and Gong's search, one call's return at a time, as Lowe arranges it).
//!
//! Values are written once each and only over a value that was read before, so a register never has a value again that it had: the search stays narrow
//! even where answers are missing.

use serde::Serialize;
use std::collections::BTreeSet;

/// A register's value. 0 is what it begins with; every write has a number of its own.
pub type Value = u64;

/// What was asked of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Call {
    /// What is its value?
    Read,
    /// If its value is `over`, make it `value`.
    Swap {
        /// The value it must have.
        over: Value,
        /// The value it gets.
        value: Value,
    },
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Return {
    /// The value read.
    Value(Value),
    /// The swap was made.
    Swapped,
    /// The swap was refused: the value was another.
    Refused,
    /// Nothing came back: it had its effect at some time after the call, or never.
    Unknown,
}

/// One call with its answer. Times are of one clock, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// Which register.
    pub register: usize,
    /// When it was called.
    pub called: u64,
    /// When it returned. For [`Return::Unknown`]: when it was given up.
    pub returned: u64,
    /// What was asked.
    pub call: Call,
    /// What came back.
    pub result: Return,
}

/// A history that no single copy of the data could have given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The register.
    pub register: usize,
    /// The operation whose answer no order explains.
    pub operation: Operation,
    /// Values that the register could have had by then.
    pub possible: Vec<Value>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Operation { client, call, result, .. } = self.operation;
        write!(
            f,
            "register {}: client {client} asked {call:?} and got {result:?}, but its value could only have been one of {:?}",
            self.register, self.possible
        )
    }
}

/// Checks every register by itself: a history is linearizable exactly if each register's is.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    let registers: BTreeSet<usize> = history.iter().map(|o| o.register).collect();
    registers.into_iter().try_for_each(|register| {
        let own: Vec<Operation> = history.iter().filter(|o| o.register == register).copied().collect();
        check_register(register, &own)
    })
}

/// A value, and which of the calls that have not returned are in it already.
type Configuration = (Value, BTreeSet<usize>);

fn check_register(register: usize, operations: &[Operation]) -> Result<(), Violation> {
    // (time, is a return, operation): a call at the very time of a return counts as concurrent with it.
    let mut events: Vec<(u64, bool, usize)> = vec![];
    for (index, operation) in operations.iter().enumerate() {
        events.push((operation.called, false, index));
        if operation.result != Return::Unknown {
            events.push((operation.returned, true, index));
        }
    }
    events.sort_unstable();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut configurations: BTreeSet<Configuration> = BTreeSet::from([(0, BTreeSet::new())]);
    for (_, is_return, index) in events {
        if !is_return {
            open.insert(index);
            continue;
        }
        let all = closure(&configurations, &open, operations);
        let possible: BTreeSet<Value> = all.iter().map(|(value, _)| *value).collect();
        configurations = all
            .into_iter()
            .filter(|(_, done)| done.contains(&index))
            .map(|(value, mut done)| {
                done.remove(&index);
                (value, done)
            })
            .collect();
        open.remove(&index);
        if configurations.is_empty() {
            let operation = operations.get(index).copied();
            let possible = possible.into_iter().collect();
            return operation.map_or(Ok(()), |operation| Err(Violation { register, operation, possible }));
        }
    }
    Ok(())
}

/// Everything that can be reached by letting open calls take effect.
fn closure(from: &BTreeSet<Configuration>, open: &BTreeSet<usize>, operations: &[Operation]) -> BTreeSet<Configuration> {
    let mut reached = from.clone();
    let mut next: Vec<Configuration> = from.iter().cloned().collect();
    while let Some((value, done)) = next.pop() {
        for index in open.difference(&done) {
            let Some(after) = operations.get(*index).and_then(|o| effect(o, value)) else { continue };
            let mut done = done.clone();
            done.insert(*index);
            let configuration = (after, done);
            if reached.insert(configuration.clone()) {
                next.push(configuration);
            }
        }
    }
    reached
}

/// The value after a call, if its answer is one that this value explains. A call without an answer is only followed where it changes something.
fn effect(operation: &Operation, value: Value) -> Option<Value> {
    match (operation.call, operation.result) {
        (Call::Read, Return::Value(read)) if read == value => Some(value),
        (Call::Swap { over, value: new }, Return::Swapped | Return::Unknown) if over == value => Some(new),
        (Call::Swap { over, .. }, Return::Refused) if over != value => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: usize, called: u64, returned: u64, call: Call, result: Return) -> Operation {
        Operation { client, register: 0, called, returned, call, result }
    }

    const fn swap(over: Value, value: Value) -> Call {
        Call::Swap { over, value }
    }

    #[test]
    fn what_happens_one_after_the_other_is_linearizable() {
        let history = [
            operation(0, 0, 1, Call::Read, Return::Value(0)),
            operation(0, 2, 3, swap(0, 1), Return::Swapped),
            operation(1, 4, 5, Call::Read, Return::Value(1)),
            operation(1, 6, 7, swap(0, 2), Return::Refused),
        ];
        assert_eq!(check(&history), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let history = [operation(0, 0, 1, swap(0, 1), Return::Swapped), operation(1, 2, 3, Call::Read, Return::Value(0))];
        assert_eq!(check(&history).map_err(|v| v.possible), Err(vec![1]));
    }

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        let history = [
            operation(0, 0, 1, swap(0, 1), Return::Swapped),
            operation(0, 2, 3, swap(1, 2), Return::Swapped),
            operation(1, 4, 5, Call::Read, Return::Value(1)),
        ];
        assert!(check(&history).is_err());
    }

    #[test]
    fn two_swaps_over_the_same_value_are_found() {
        let history = [operation(0, 0, 5, swap(0, 1), Return::Swapped), operation(1, 0, 5, swap(0, 2), Return::Swapped)];
        assert!(check(&history).is_err());
    }

    #[test]
    fn concurrent_calls_may_take_effect_in_any_order() {
        for read in [0, 1] {
            let history = [operation(0, 0, 10, swap(0, 1), Return::Swapped), operation(1, 1, 9, Call::Read, Return::Value(read))];
            assert_eq!(check(&history), Ok(()), "read {read}");
        }
    }

    #[test]
    fn a_call_without_an_answer_may_take_effect_later_or_never_but_not_before() {
        let unknown = operation(0, 10, 11, swap(0, 1), Return::Unknown);
        let read = |at: u64, value: Value| operation(1, at, at + 1, Call::Read, Return::Value(value));
        assert_eq!(check(&[unknown, read(20, 0), read(30, 1)]), Ok(()));
        assert_eq!(check(&[unknown, read(20, 0), read(30, 0)]), Ok(()));
        assert!(check(&[unknown, read(0, 1)]).is_err());
        assert!(check(&[unknown, read(20, 1), read(30, 0)]).is_err());
    }

    #[test]
    fn a_refusal_needs_another_value() {
        assert!(check(&[operation(0, 0, 1, swap(0, 1), Return::Refused)]).is_err());
    }

    #[test]
    fn registers_are_checked_each_by_itself() {
        let other = |o: Operation| Operation { register: 1, ..o };
        let history = [operation(0, 0, 1, swap(0, 1), Return::Swapped), other(operation(1, 2, 3, Call::Read, Return::Value(0)))];
        assert_eq!(check(&history), Ok(()));
    }
}
