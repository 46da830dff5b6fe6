//! Long random lives, shrunk to the shortest that breaks something. They are the same ones at every run: what changes the result is the change that is
//! tested. `SLIPWAY_TEST_FULL=1` makes more and longer ones, and others each time; `PROPTEST_CASES` says how many, `PROPTEST_RNG_SEED` which.

use crate::build::{complete, nothing, now, revised, spec, upgraded};
use crate::faults::{self, Budget, Loss, NONE};
use crate::invariants::{always, refused};
use crate::life::{Grain, Life, Moment, Step, Truth, thorough};
use crate::time::aged;
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use slipway_plan::Observed;

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
        kept: 2,
        refusing: 2,
    };
    const BUILDS: &[&str] = &["a", "a", "a", "b", "b", "c", "c", "d"];
    Life::new(specs, nothing(), Grain::Fine, budget).giving(BUILDS).losing(&[Loss::Vanishes, Loss::Stops, Loss::Hangs, Loss::Forgets])
}

/// How many cases, usually and thoroughly, and which.
pub fn config(usually: u32, thoroughly: u32) -> ProptestConfig {
    let given = |name: &str| std::env::var_os(name).is_some();
    let mut config = ProptestConfig { failure_persistence: Some(Box::new(FileFailurePersistence::Off)), ..ProptestConfig::default() };
    if !given("PROPTEST_CASES") {
        config.cases = if thorough() { thoroughly } else { usually };
    }
    if !given("PROPTEST_MAX_SHRINK_ITERS") {
        config.max_shrink_iters = 200;
    }
    if !given("PROPTEST_RNG_SEED") && !thorough() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

fn length() -> usize {
    if thorough() { 3000 } else { 300 }
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
    #![proptest_config(config(20, 1000))]

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
            prop_assert!(path.unwrap().last().is_some_and(Observed::is_over));
        }
    }
}

// === what exploration found, as short as it gets ===

/// Does what can be done, step by step and without faults, until `there`; and nothing may break on the way.
fn until(life: &Life, mut moment: Moment, there: impl Fn(&Observed) -> bool) -> Moment {
    for _ in 0..400 {
        if there(&moment.truth.world) {
            return moment;
        }
        moment = next(life, &moment).expect("something can be done");
        let broken = moment.broken.or_else(|| always(life.spec(&moment), &moment.truth.world));
        assert_eq!(broken, None, "{:#?}", life.spec(&moment).control_plane);
    }
    panic!("it never came to that");
}

/// The next thing that is done or happens without faults, or none where only a silent agent may still speak.
fn next(life: &Life, moment: &Moment) -> Option<Moment> {
    let steps = life.steps(moment);
    [Step::Pass, Step::WorldMoves, Step::TimePasses].into_iter().find(|s| steps.contains(s)).map(|step| life.after(moment, &step))
}

fn state<'w>(world: &'w Observed, machine: &str) -> &'w slipway_plan::AgentState {
    world.agents[&machine.parse().unwrap()].heard().unwrap()
}

#[test]
fn one_that_was_told_before_another_was_lost_is_not_restarted_as_one_of_two() {
    let specs = vec![spec(3, 0), upgraded(spec(3, 0))];
    let life = Life::new(specs, complete(&spec(3, 0)), Grain::Coarse, Budget { losses: 1, ..NONE });
    let told = |world: &Observed| {
        let name = "demo-cp-0".parse().unwrap();
        state(world, "demo-cp-0").accepted.as_ref() != world.wanted.get(&name)
    };
    let moment = until(&life, life.after(&life.first(), &Step::Edit), told);
    let moment = life.after(&moment, &Step::Lost("i-uid-of-demo-cp-2".into(), Loss::Vanishes));
    until(&life, moment, |world| {
        let voters = world.etcd.known().unwrap().voters().filter(|m| m.status.known().is_some()).count();
        world.cluster.upgrade.is_none() && voters == 3
    });
}

#[test]
fn one_that_is_only_kept_for_a_look_holds_up_no_upgrade() {
    for to in [upgraded(spec(3, 0)), revised(spec(3, 0))] {
        let budget = Budget { losses: 1, kept: 1, ..NONE };
        let life = Life::new(vec![spec(3, 0), to], complete(&spec(3, 0)), Grain::Coarse, budget).losing(&[Loss::Hangs]);
        let moment = life.after(&life.first(), &Step::Lost("i-uid-of-demo-cp-2".into(), Loss::Hangs));
        let moment = life.after(&moment, &Step::Keeps("demo-cp-2".parse().unwrap(), true));
        let replaced = |world: &Observed| world.etcd.known().unwrap().voters().any(|m| m.name == "demo-cp-3");
        let moment = until(&life, moment, replaced);
        let moment = life.after(&moment, &Step::Edit);
        life.converges(&moment, |_| false).unwrap();
    }
}

#[test]
fn a_worker_that_hangs_before_its_node_came_is_replaced() {
    let life = Life::new(vec![spec(1, 1), spec(1, 2)], complete(&spec(1, 1)), Grain::Coarse, Budget { losses: 1, ..NONE });
    let claimed = |world: &Observed| crate::life::records(world).iter().any(|m| m.name.as_str() == "demo-w-1" && m.claimed);
    let moment = until(&life, life.after(&life.first(), &Step::Edit), claimed);
    let moment = life.after(&moment, &Step::Lost("i-uid-of-demo-w-1".into(), Loss::Hangs));
    life.converges(&moment, |_| false).unwrap();
}

#[test]
fn a_worker_that_is_only_kept_for_a_look_holds_up_neither_healing_nor_a_roll() {
    let losing = Budget { losses: 2, kept: 1, ..NONE };
    let life = Life::new(vec![spec(1, 3), revised(spec(1, 3))], complete(&spec(1, 3)), Grain::Coarse, losing).losing(&[Loss::Hangs]);
    let lost = |moment: &Moment, machine: &str| life.after(moment, &Step::Lost(format!("i-uid-of-{machine}"), Loss::Hangs));
    let moment = life.after(&lost(&life.first(), "demo-w-0"), &Step::Keeps("demo-w-0".parse().unwrap(), true));
    let replaced = |by: &'static str| move |world: &Observed| world.nodes.known().unwrap().iter().any(|n| n.name == by);
    let moment = until(&life, moment, replaced("demo-w-3"));
    let moment = until(&life, lost(&moment, "demo-w-1"), replaced("demo-w-4"));
    life.converges(&life.after(&moment, &Step::Edit), |_| false).unwrap();
}

#[test]
fn a_learner_that_hangs_before_its_node_came_is_replaced() {
    let budget = Budget { losses: 1, replaced: 1, ..NONE };
    let life = Life::new(vec![spec(1, 0)], complete(&spec(1, 0)), Grain::Coarse, budget).losing(&[Loss::Hangs]);
    let moment = life.after(&life.first(), &Step::UserDeletes("demo-cp-0".parse().unwrap()));
    let started = |world: &Observed| world.etcd.known().unwrap().members.iter().any(|m| m.learner && !m.name.is_empty());
    let moment = until(&life, moment, started);
    let moment = life.after(&moment, &Step::Lost("i-uid-of-demo-cp-1".into(), Loss::Hangs));
    life.converges(&moment, |_| false).unwrap();
}

#[test]
fn one_whose_member_was_removed_behind_its_back_is_emptied_before_it_goes() {
    let mut world = complete(&spec(3, 0));
    world.etcd.known_mut().unwrap().members.retain(|m| m.name != "demo-cp-1");
    slipway_plan::world_follows(&mut world, now());
    let life = Life::new(vec![spec(3, 0)], world, Grain::Coarse, NONE);
    life.converges(&life.first(), |_| false).unwrap();
}

#[test]
fn a_member_that_answers_proves_that_its_machine_lives_whatever_else_is_silent() {
    let spec = spec(3, 0);
    let mut world = complete(&spec);
    faults::falls_silent(&mut world, &"demo-cp-1".parse().unwrap());
    world.nodes.known_mut().unwrap().iter_mut().for_each(|n| n.ready = n.name != "demo-cp-1");
    let plan = slipway_plan::plan(&spec, &slipway_plan::seen(&aged(&world)), now());
    assert_eq!(plan.actions, []);
}

#[test]
fn one_that_etcd_has_taken_in_and_nobody_recorded_comes_before_all_others() {
    let specs = vec![spec(1, 0), spec(3, 0)];
    let life = Life::new(specs, complete(&spec(1, 0)), Grain::Coarse, NONE);
    let claimed = |world: &Observed| {
        let joining = crate::life::records(world).iter().filter(|m| m.claimed && m.join.is_none());
        joining.count() == 3
    };
    let mut moment = until(&life, life.after(&life.first(), &Step::Edit), claimed);
    let mut world = moment.truth.world.clone();
    let second = crate::life::records(&world)[2].clone();
    let address = second.instance.unwrap().address;
    let half = slipway_plan::Action::AddMember { machine: second.name, uid: second.uid, address };
    slipway_plan::arrives(life.spec(&moment), &mut world, &half, now());
    moment.truth = Truth::new(world, moment.truth.used.clone());
    life.converges(&moment, |_| false).unwrap();
}

#[test]
fn one_that_falls_silent_after_workers_followed_it_is_not_told_its_old_versions() {
    let specs = vec![spec(1, 1), upgraded(spec(1, 1))];
    let life = Life::new(specs, complete(&spec(1, 1)), Grain::Coarse, Budget { silences: 1, ..NONE });
    let plane: slipway_model::MachineName = "demo-cp-0".parse().unwrap();
    let worker = "demo-w-0".parse().unwrap();
    let new = crate::build::new().node.kubelet;
    let followed = |world: &Observed| slipway_plan::what_runs(world, &worker).iter().any(|v| v.node.kubelet == new);
    let moment = until(&life, life.after(&life.first(), &Step::Edit), followed);
    // Nobody knows any more what it runs: it was told v1.37, and v1.36 before.
    let moment = life.after(&moment, &Step::FallsSilent(plane.clone()));
    let stopped = |world: &Observed| world.cluster.upgrade.as_ref().is_some_and(|u| u.stopped.is_some());
    let mut moment = until(&life, moment, stopped);
    while let Some(next) = next(&life, &moment) {
        moment = next;
    }
    let told = crate::life::records(&moment.truth.world).iter().find(|m| m.name == plane).unwrap().versions;
    assert_eq!(told.control_plane.unwrap().api_server, new, "its worker's kubelet would be newer than its API server");
    let plan = slipway_plan::plan(life.spec(&moment), &slipway_plan::seen(&moment.truth.world), now());
    let wait = plan.waits.iter().find(|w| w.what.contains("it cannot be told its old versions again")).unwrap();
    assert!(wait.what.contains("the kubelet v1.37.2 of demo-w-0 would meet kube-apiserver v1.36.4 of demo-cp-0"), "{wait}");
    // It was well all the time, and then the roll goes on.
    let path = life.converges(&moment, |_| false).unwrap();
    assert!(path.last().unwrap().cluster.upgrade.is_none());
    assert!(path.iter().all(|world| always(life.spec(&moment), world).is_none()));
}
