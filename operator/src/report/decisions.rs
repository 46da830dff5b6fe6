//! Why things were done: the planner's reasons of actions that were really begun, in the statuses of the Cluster and of each Machine, so that they outlive
//! the operator. What `slipway explain` tells.

use jiff::Timestamp;
use slipway_crds::Decision;
use slipway_plan::{Action, Plan};

/// As many as a Cluster keeps.
pub const OF_CLUSTER: usize = 20;
/// As many as a Machine keeps.
pub const OF_MACHINE: usize = 10;

/// Decisions that are not in every status yet.
#[derive(Debug, Default)]
pub struct Decisions {
    /// Oldest first.
    fresh: Vec<Decision>,
}

impl Decisions {
    /// Notes why an action of this plan, which was begun at `since`, was chosen, if the plan says so.
    pub fn note(&mut self, plan: &Plan, action: &Action, since: Timestamp) {
        let Some(decision) = plan.decisions.iter().find(|d| d.action == action.key()) else { return };
        let decision = Decision {
            // To the second, as people read it and as the API keeps times.
            at: Timestamp::from_second(since.as_second()).unwrap_or(since),
            what: action.to_string(),
            machine: action.machine().map(ToString::to_string),
            because: decision.because.clone(),
        };
        if !self.fresh.contains(&decision) {
            self.fresh.push(decision);
            let surplus = self.fresh.len().saturating_sub(4 * OF_CLUSTER);
            self.fresh.drain(..surplus);
        }
    }

    /// Why an action was chosen that was noted lately.
    #[must_use]
    pub fn because(&self, action: &Action) -> Option<&str> {
        let what = action.to_string();
        self.fresh.iter().rev().find(|d| d.what == what).map(|d| d.because.as_str())
    }

    /// What a status is to say that said `before`: that, and what came since, the latest last.
    #[must_use]
    pub fn after(&self, before: &[Decision], machine: Option<&str>, most: usize) -> Vec<Decision> {
        let mut all = before.to_vec();
        let mine = |d: &&Decision| machine.is_none_or(|m| d.machine.as_deref() == Some(m));
        let last = before.last().map(|d| d.at);
        // Those older than the last that was written have been written, and may have been dropped since.
        let fresh = self.fresh.iter().filter(mine).filter(|d| last.is_none_or(|last| d.at >= last) && !before.contains(d));
        all.extend(fresh.cloned());
        let surplus = all.len().saturating_sub(most);
        all.drain(..surplus);
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decision(second: i64, machine: Option<&str>) -> Decision {
        Decision {
            at: Timestamp::from_second(second).unwrap(),
            what: format!("step {second}"),
            machine: machine.map(str::to_owned),
            because: "it was time".into(),
        }
    }

    #[test]
    fn each_decision_is_told_once_and_the_oldest_go() {
        let decisions = Decisions { fresh: vec![decision(1, None), decision(2, Some("a")), decision(3, Some("b"))] };
        let first = decisions.after(&[], None, 2);
        assert_eq!(first, [decision(2, Some("a")), decision(3, Some("b"))]);
        assert_eq!(decisions.after(&first, None, 2), first, "nothing new: nothing is written");
    }

    #[test]
    fn a_machine_tells_its_own() {
        let decisions = Decisions { fresh: vec![decision(1, None), decision(2, Some("a")), decision(3, Some("b"))] };
        assert_eq!(decisions.after(&[], Some("a"), 10), [decision(2, Some("a"))]);
    }

    #[test]
    fn what_an_earlier_operator_wrote_stays() {
        let decisions = Decisions { fresh: vec![decision(9, None)] };
        assert_eq!(decisions.after(&[decision(5, None)], None, 10), [decision(5, None), decision(9, None)]);
    }
}
