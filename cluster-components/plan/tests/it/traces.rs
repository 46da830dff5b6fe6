//! Long random lives, shrunk to the shortest that breaks something. `SLIPWAY_TEST_FULL=1` makes more and longer ones.

use crate::build::{nothing, revised, spec, upgraded};
use crate::invariants::always;
use crate::faults::{Budget, Loss};
use crate::life::{Grain, Life, thorough};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Everything may go wrong, several times; the user changes their mind all the time.
fn life() -> Life {
    let specs = vec![
        spec(3, 1),
        spec(3, 3),
        upgraded(spec(3, 3)),
        upgraded(spec(5, 2)),
        upgraded(spec(5, 0)),
        upgraded(spec(3, 2)),
        revised(upgraded(spec(3, 2))),
        revised(upgraded(spec(1, 1))),
    ];
    let budget = Budget {
        crashes: 40,
        lags: 3,
        late: 3,
        losses: 4,
        replaced: 4,
        deletions: 0,
        silences: 4,
        lies: 3,
        slow: 10,
        failing: 2,
    };
    Life::new(specs, nothing(), Grain::Fine, budget).losing(&[Loss::Vanishes, Loss::Stops, Loss::Hangs, Loss::Forgets])
}

fn cases() -> u32 {
    if thorough() { 2000 } else { 40 }
}

fn length() -> usize {
    if thorough() { 600 } else { 150 }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_long_life_breaks_an_invariant(choices in prop::collection::vec(any::<prop::sample::Index>(), length())) {
        let life = life();
        let mut moment = life.first();
        let mut steps = vec![];
        for choice in choices {
            let possible = life.steps(&moment);
            if possible.is_empty() {
                break;
            }
            let step = choice.get(&possible).clone();
            moment = life.after(&moment, &step);
            steps.push(step);
            let broken = moment.broken.or_else(|| always(life.spec(&moment), &moment.truth.world));
            prop_assert!(broken.is_none(), "{broken:?} after {steps:#?}");
        }
        let end = life.converges(&moment, |_| false);
        prop_assert!(end.is_ok(), "{end:?} after {steps:#?}");
    }

    #[test]
    fn whatever_a_life_came_to_its_deletion_leaves_nothing(choices in prop::collection::vec(any::<prop::sample::Index>(), length() / 3)) {
        let mut life = life();
        life.budget.deletions = 1;
        let mut moment = life.first();
        let mut steps = vec![];
        for choice in choices {
            let possible = life.steps(&moment);
            if possible.is_empty() {
                break;
            }
            let step = choice.get(&possible).clone();
            moment = life.after(&moment, &step);
            steps.push(step);
            prop_assert!(moment.broken.is_none(), "{:?} after {steps:#?}", moment.broken);
        }
        if moment.truth.world.cluster.finalizer {
            if moment.truth.world.cluster.deleting.is_none() {
                moment = life.after(&moment, &crate::life::Step::DeleteCluster);
            }
            let path = life.converges(&moment, |_| false);
            prop_assert!(path.is_ok(), "{path:?} after {steps:#?}");
            prop_assert!(path.unwrap().last().is_some_and(slipway_plan::Observed::is_over));
        }
    }
}
