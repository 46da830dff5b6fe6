//! Long random lives, shrunk to the shortest that breaks something. `SLIPWAY_TEST_FULL=1` makes more and longer ones.

use crate::build::{nothing, revised, spec, upgraded};
use crate::invariants::{always, refused};
use crate::faults::{Budget, Loss};
use crate::life::{Grain, Life, Moment, Step, thorough};
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
    if thorough() { 30 } else { 10 }
}

fn length() -> usize {
    if thorough() { 3000 } else { 200 }
}

/// Walks a life as the choices say, to where it ends or something breaks.
fn walk(life: &Life, choices: &[prop::sample::Index]) -> Result<Vec<(Moment, Option<Step>)>, String> {
    let mut way = vec![(life.first(), None)];
    for choice in choices {
        let (moment, _) = way.last().unwrap();
        let possible = life.steps(moment);
        if possible.is_empty() {
            break;
        }
        let step = choice.get(&possible).clone();
        let next = life.after(moment, &step);
        way.last_mut().unwrap().1 = Some(step);
        let (spec, world) = (life.spec(&next), next.truth.world.clone());
        let broken = next.broken.or_else(|| always(spec, &world));
        way.push((next, None));
        if let Some(broken) = broken {
            return Err(format!("{broken}; refused {:?} after\n{}", refused(spec, &world), life.told(&way)));
        }
    }
    Ok(way)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_long_life_breaks_an_invariant(choices in prop::collection::vec(any::<prop::sample::Index>(), length())) {
        let life = life();
        let way = walk(&life, &choices).map_err(TestCaseError::fail)?;
        let end = life.converges(&way.last().unwrap().0, |_| false);
        prop_assert!(end.is_ok(), "{} after\n{}", end.unwrap_err(), life.told(&way));
    }

    #[test]
    fn whatever_a_life_came_to_its_deletion_leaves_nothing(choices in prop::collection::vec(any::<prop::sample::Index>(), length() / 3)) {
        let mut life = life();
        life.budget.deletions = 1;
        let way = walk(&life, &choices).map_err(TestCaseError::fail)?;
        let mut moment = way.last().unwrap().0.clone();
        if moment.truth.world.cluster.finalizer {
            if moment.truth.world.cluster.deleting.is_none() {
                moment = life.after(&moment, &Step::DeleteCluster);
            }
            let path = life.converges(&moment, |_| false);
            prop_assert!(path.is_ok(), "{} after\n{}", path.unwrap_err(), life.told(&way));
            prop_assert!(path.unwrap().last().is_some_and(slipway_plan::Observed::is_over));
        }
    }
}
