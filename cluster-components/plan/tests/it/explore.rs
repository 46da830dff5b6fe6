//! Exhaustive exploration of small lives with stateright. Prints what was explored.

use crate::build::{at, complete, nothing, now, patched, rerendered, revised, settled, spec, upgraded};
use crate::faults::{Budget, Loss, NONE};
use crate::invariants::{always, refused};
use crate::life::{Grain, Life, Moment, Step, hash, records, rests, thorough};
use crate::time::aged;
use slipway_model::{Amount, ClusterSpec, DeletionPolicy, Healing, Weekday, Window};
use slipway_plan::{NodeFacts, Observed, seen};
use stateright::{Checker, Model, Property};
use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A life to explore. Truths are checked once, whatever may still go wrong in them: what is known of them is kept by their hash.
struct Exploration {
    life: Life,
    converging: Mutex<HashSet<(usize, u64)>>,
    sound: Mutex<HashSet<(usize, u64)>>,
    /// What is to be met on the way, or a life proves less than its name says: see [`Sight`].
    seen: Mutex<BTreeSet<Sight>>,
}

/// Something that lives are explored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// A machine stands at the address of another one that is still recorded.
    AddressUsedAgain,
    /// Of a zone nothing is left.
    ZoneVanished,
    /// A volume is attached to the Node of a machine that goes and whose pods have left.
    VolumeStays,
}

impl Sight {
    const ALL: [Self; 3] = [Self::AddressUsedAgain, Self::ZoneVanished, Self::VolumeStays];

    fn is_of(self, world: &Observed) -> bool {
        match self {
            Self::AddressUsedAgain => {
                let mut addresses: Vec<_> = records(world).iter().filter_map(|m| m.instance.as_ref().map(|i| i.address)).collect();
                let all = addresses.len();
                addresses.sort_unstable();
                addresses.dedup();
                addresses.len() < all
            }
            Self::ZoneVanished => {
                let there = |zone: &String| world.cloud.known().unwrap().instances.iter().any(|i| i.zone.as_ref() == Some(zone));
                records(world).iter().filter_map(|m| m.instance.as_ref()?.zone.as_ref()).any(|zone| !there(zone))
            }
            Self::VolumeStays => {
                let going = |n: &NodeFacts| records(world).iter().any(|m| m.deleting.is_some() && n.machine.as_ref() == Some(&m.name));
                let emptied = |n: &NodeFacts| n.pods.known().is_some_and(Vec::is_empty) && n.volumes.known().is_some_and(|v| !v.is_empty());
                world.nodes.known().unwrap().iter().any(|n| going(n) && emptied(n))
            }
        }
    }
}

impl Exploration {
    fn holds(&self, moment: &Moment) -> bool {
        if moment.broken.is_some() {
            return false;
        }
        let key = (moment.spec, moment.truth.key);
        let holds = self.sound.lock().unwrap().contains(&key) || always(self.life.spec(moment), &moment.truth.world).is_none();
        if holds {
            self.seen.lock().unwrap().extend(Sight::ALL.into_iter().filter(|s| s.is_of(&moment.truth.world)));
            self.sound.lock().unwrap().insert(key);
        }
        holds
    }

    fn converges(&self, moment: &Moment) -> bool {
        // Ordinals of the past do not matter for the way on.
        let key = |world: &Observed| (moment.spec, hash(world));
        let Ok(path) = self.life.converges(moment, |world| self.converging.lock().unwrap().contains(&key(world))) else { return false };
        self.converging.lock().unwrap().extend(path.iter().map(key));
        true
    }
}

impl Exploration {
    /// Paused now, what was begun is finished and nothing else happens; resumed, it gets where the spec says.
    fn may_be_paused(&self, moment: &Moment) -> Result<(), String> {
        let resumed = self.life.spec(moment);
        let mut paused = resumed.clone();
        paused.maintenance.paused = true;
        // Told apart from those that only converge.
        let key = |world: &Observed| (moment.spec + 1000, hash(world));
        let known = |world: &Observed| self.converging.lock().unwrap().contains(&key(world));
        let path = rests(&paused, moment.truth.world.clone(), known).map_err(|why| format!("paused: {why}"))?;
        // Where the rest is known, so is that it goes on.
        if let Some(rest) =
            path.last().filter(|_| path.last().is_some_and(|w| slipway_plan::outlook(&paused, &seen(w), now()).0.is_empty()))
        {
            rests(resumed, rest.clone(), |_| false).map_err(|why| format!("resumed: {why}"))?;
        }
        self.converging.lock().unwrap().extend(path.iter().map(key));
        Ok(())
    }
}

impl Model for Exploration {
    type State = Moment;
    type Action = Step;

    fn init_states(&self) -> Vec<Moment> {
        vec![self.life.first()]
    }

    fn actions(&self, moment: &Moment, steps: &mut Vec<Step>) {
        steps.extend(self.life.steps(moment));
    }

    fn next_state(&self, moment: &Moment, step: Step) -> Option<Moment> {
        Some(self.life.after(moment, &step)).filter(|next| next != moment)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no invariant is broken", |this: &Self, moment: &Moment| this.holds(moment)),
            Property::always("a fault-free run gets where the spec says, and stays", |this: &Self, moment: &Moment| {
                moment.broken.is_some() || this.converges(moment)
            }),
            Property::always("pausing and resuming works at every step", |this: &Self, moment: &Moment| {
                !this.life.paused || moment.broken.is_some() || this.may_be_paused(moment).is_ok()
            }),
        ]
    }
}

/// Explores a life to its end, and fails with the shortest way to what is broken. Returns what was met on the way.
pub fn explore(title: &str, life: Life) -> BTreeSet<Sight> {
    let started = Instant::now();
    let title = format!("{title}, {}", life.faults());
    let model = Exploration { life, converging: Mutex::default(), sound: Mutex::default(), seen: Mutex::default() };
    let checker = model
        .checker()
        .threads(1)
        .timeout(Duration::from_secs(if thorough() { 1800 } else { 300 }))
        .finish_when(stateright::HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    println!(
        "explored {title}: {} states ({} unique, {} worlds), depth {}, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.model().sound.lock().unwrap().len(),
        checker.max_depth(),
        started.elapsed().as_secs_f32()
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let life = &checker.model().life;
        let last = path.last_state();
        let broken = last.broken.or_else(|| always(life.spec(last), &last.truth.world));
        let plan = slipway_plan::plan(life.spec(last), &slipway_plan::seen(&last.truth.world), now());
        let stuck = life.converges(last, |_| false).err().or_else(|| checker.model().may_be_paused(last).err().filter(|_| life.paused));
        let refused = refused(life.spec(last), &last.truth.world);
        panic!(
            "{title}: {property}: {broken:?} {stuck:?} refused {refused:?} after\n{}\nplan would be {plan:#?}",
            life.told(&path.into_vec())
        );
    }
    assert!(checker.is_done(), "{title}: not explored to its end in time");
    std::mem::take(&mut *checker.model().seen.lock().unwrap())
}

/// A life with these faults, and with wider ones where there is time for it.
pub fn life(specs: Vec<ClusterSpec>, begin: Observed, quick: Budget, wide: Option<(Grain, Budget)>) -> Life {
    let (grain, budget) = wide.filter(|_| thorough()).unwrap_or((Grain::Coarse, quick));
    Life::new(specs, begin, grain, budget)
}

#[test]
fn one_control_plane_and_a_worker_are_made_whatever_crashes() {
    explore("create 1+1", Life::new(vec![spec(1, 1)], nothing(), Grain::Fine, Budget { crashes: 2, ..NONE }));
}

#[test]
fn one_control_plane_and_a_worker_are_made_whatever_lags() {
    let wide = (Grain::Coarse, Budget { crashes: 1, lags: 1, late: 1, ..NONE });
    explore("create 1+1", life(vec![spec(1, 1)], nothing(), Budget { lags: 1, late: 1, ..NONE }, Some(wide)));
}

#[test]
fn three_control_planes_and_two_workers_are_made_whatever_crashes() {
    let wide = (Grain::Coarse, Budget { crashes: 2, late: 1, ..NONE });
    explore("create 3+2", life(vec![spec(3, 2)], nothing(), Budget { crashes: 2, ..NONE }, Some(wide)));
}

#[test]
fn a_pool_is_scaled_up_and_down_and_nothing_is_lost() {
    let specs = vec![spec(1, 1), spec(1, 2), spec(1, 1)];
    let wide = (Grain::Fine, Budget { crashes: 1, lags: 1, late: 1, ..NONE });
    let quick = Budget { lags: 1, ..NONE };
    explore("scale 1+1 to 1+2 to 1+1", life(specs.clone(), complete(&spec(1, 1)), Budget { crashes: 2, ..NONE }, None));
    explore("scale 1+1 to 1+2 to 1+1", life(specs, complete(&spec(1, 1)), quick, Some(wide)));
}

#[test]
fn a_pool_that_is_gone_from_the_cluster_leaves() {
    let specs = vec![spec(1, 2), spec(1, 0), spec(1, 1)];
    let wide = (Grain::Coarse, Budget { crashes: 2, ..NONE });
    explore("scale 1+2 to 1+0 to 1+1", life(specs, complete(&spec(1, 2)), Budget { crashes: 1, ..NONE }, Some(wide)));
}

#[test]
fn workers_that_die_are_replaced() {
    let wide = (Grain::Coarse, Budget { crashes: 1, losses: 2, ..NONE });
    explore("heal 1+2", life(vec![spec(1, 2)], complete(&spec(1, 2)), Budget { losses: 2, ..NONE }, Some(wide)));
}

#[test]
fn workers_whose_record_is_deleted_are_replaced() {
    let wide = (Grain::Coarse, Budget { crashes: 1, losses: 1, replaced: 1, ..NONE });
    let quick = Budget { lags: 1, replaced: 1, ..NONE };
    explore("replace in 1+1", life(vec![spec(1, 1)], complete(&spec(1, 1)), quick, Some(wide)));
}

#[test]
fn a_deleted_cluster_leaves_nothing_behind() {
    let wide = (Grain::Coarse, Budget { crashes: 1, late: 1, losses: 1, deletions: 1, ..NONE });
    let quick = Budget { crashes: 1, late: 1, deletions: 1, ..NONE };
    explore("create 1+1 and delete it at any time", life(vec![spec(1, 1)], nothing(), quick, Some(wide)));
}

#[test]
fn a_deleted_cluster_leaves_nothing_behind_whatever_lags() {
    let wide = (Grain::Coarse, Budget { lags: 1, late: 1, deletions: 1, ..NONE });
    let quick = Budget { lags: 1, deletions: 1, ..NONE };
    explore("create 1+1 and delete it at any time", life(vec![spec(1, 1)], nothing(), quick, Some(wide)));
}

#[test]
fn an_orphaned_cluster_keeps_its_machines() {
    let orphan = ClusterSpec { deletion_policy: DeletionPolicy::Orphan, ..spec(1, 1) };
    let wide = (Grain::Coarse, Budget { crashes: 2, late: 1, deletions: 1, ..NONE });
    let quick = Budget { crashes: 1, late: 1, deletions: 1, ..NONE };
    explore("create 1+1 and orphan it at any time", life(vec![orphan], nothing(), quick, Some(wide)));
}

#[test]
fn a_founding_that_loses_a_machine_begins_anew() {
    let wide = (Grain::Coarse, Budget { crashes: 1, losses: 1, replaced: 1, ..NONE });
    explore("create 3+0", life(vec![spec(3, 0)], nothing(), Budget { losses: 1, ..NONE }, Some(wide)));
}

#[test]
fn a_founding_survives_deleted_records_and_old_views() {
    let wide = (Grain::Coarse, Budget { crashes: 1, replaced: 1, ..NONE });
    explore("create 3+0", life(vec![spec(3, 0)], nothing(), Budget { replaced: 1, ..NONE }, Some(wide)));
    let wide = (Grain::Coarse, Budget { lags: 1, losses: 1, replaced: 1, ..NONE });
    explore("create 1+0", life(vec![spec(1, 0)], nothing(), Budget { lags: 1, replaced: 1, ..NONE }, Some(wide)));
    explore("create 1+0", life(vec![spec(1, 0)], nothing(), Budget { lags: 1, losses: 1, ..NONE }, None));
}

#[test]
fn a_control_plane_is_scaled_up_and_down_whatever_crashes() {
    let specs = vec![spec(1, 0), spec(3, 0), spec(1, 0)];
    let wide = (Grain::Coarse, Budget { crashes: 2, late: 1, ..NONE });
    explore("scale 1 to 3 to 1", life(specs, complete(&spec(1, 0)), Budget { crashes: 1, ..NONE }, Some(wide)));
    let specs = vec![spec(3, 0), spec(5, 0), spec(3, 0), spec(1, 0)];
    let wide = (Grain::Coarse, Budget { crashes: 2, ..NONE });
    explore("scale 3 to 5 to 3 to 1", life(specs, complete(&spec(3, 0)), NONE, Some(wide)));
}

#[test]
fn a_control_plane_is_scaled_down_whatever_dies() {
    let life = life(vec![spec(3, 0), spec(1, 0)], complete(&spec(3, 0)), Budget { losses: 1, ..NONE }, None);
    explore("scale 3 to 1", life.losing(&[Loss::Vanishes, Loss::Hangs]));
}

#[test]
fn a_control_plane_is_scaled_whatever_lags_or_lies() {
    let specs = || vec![spec(1, 0), spec(3, 0)];
    let wide = (Grain::Coarse, Budget { lags: 1, late: 1, ..NONE });
    explore("scale 1 to 3", life(specs(), complete(&spec(1, 0)), Budget { late: 1, ..NONE }, Some(wide)));
    let wide = (Grain::Coarse, Budget { lies: 1, silences: 1, ..NONE });
    explore("scale 1 to 3", life(specs(), complete(&spec(1, 0)), Budget { lies: 1, ..NONE }, Some(wide)));
}

/// Every way to lose a machine.
const ANYHOW: &[Loss] = &[Loss::Vanishes, Loss::Stops, Loss::Hangs, Loss::Forgets];

#[test]
fn control_planes_that_die_are_replaced_as_far_as_the_quorum_bears() {
    for planes in [1, 3, 5] {
        let wide = (Grain::Coarse, Budget { losses: 1, crashes: 2, ..NONE });
        let life = life(vec![spec(planes, 0)], complete(&spec(planes, 0)), Budget { losses: 1, ..NONE }, Some(wide)).losing(ANYHOW);
        explore(&format!("heal {planes}"), life);
    }
    let losses: &[Loss] = if thorough() { &[Loss::Vanishes, Loss::Hangs] } else { &[Loss::Vanishes] };
    let twice = Life::new(vec![spec(3, 0)], complete(&spec(3, 0)), Grain::Coarse, Budget { losses: 2, ..NONE }).losing(losses);
    let met = explore("heal 3", twice);
    assert!(met.contains(&Sight::AddressUsedAgain), "a member's machine is not told by its address");
}

#[test]
fn control_planes_that_die_are_replaced_whatever_else_goes_wrong() {
    let wide = (Grain::Coarse, Budget { losses: 1, lags: 1, ..NONE });
    let quick = Budget { silences: 1, crashes: 1, ..NONE };
    explore("heal 3", life(vec![spec(3, 0)], complete(&spec(3, 0)), quick, Some(wide)).losing(&[Loss::Hangs]));
    let wide = (Grain::Coarse, Budget { losses: 1, silences: 1, ..NONE });
    explore("heal 3", life(vec![spec(3, 0)], complete(&spec(3, 0)), Budget { lies: 1, ..NONE }, Some(wide)).losing(&[Loss::Hangs]));
    let wide = (Grain::Coarse, Budget { losses: 1, lies: 1, late: 1, ..NONE });
    let quick = Budget { losses: 1, late: 1, ..NONE };
    explore("heal 3", life(vec![spec(3, 0)], complete(&spec(3, 0)), quick, Some(wide)).losing(&[Loss::Vanishes]));
}

#[test]
fn control_planes_whose_record_is_deleted_are_replaced_gracefully() {
    for planes in [1, 3] {
        let wide = (Grain::Coarse, Budget { replaced: 1, losses: 1, ..NONE });
        let quick = Budget { replaced: 1, losses: u8::from(planes == 1), crashes: 1, ..NONE };
        let life = life(vec![spec(planes, 0)], complete(&spec(planes, 0)), quick, Some(wide)).losing(&[Loss::Hangs]);
        explore(&format!("replace in {planes}"), life);
    }
}

#[test]
fn a_cluster_is_upgraded_whatever_crashes() {
    for (planes, workers) in [(1, 1), (3, 0)] {
        let old = spec(planes, workers);
        let specs = vec![old.clone(), upgraded(old.clone()), old.clone()];
        let wide = (Grain::Coarse, Budget { crashes: 2, ..NONE });
        let quick = Budget { crashes: 1, ..NONE };
        explore(&format!("upgrade {planes}+{workers} and call it off at any time"), life(specs, complete(&old), quick, Some(wide)));
    }
}

#[test]
fn a_cluster_is_upgraded_whatever_fails_dies_or_lags() {
    let specs = || vec![spec(3, 0), upgraded(spec(3, 0))];
    let begin = complete(&spec(3, 0));
    let wide = (Grain::Coarse, Budget { failing: 1, slow: 1, ..NONE });
    explore("upgrade 3", life(specs(), begin.clone(), Budget { failing: 1, ..NONE }, Some(wide)).losing(&[Loss::Hangs]));
    let wide = (Grain::Coarse, Budget { losses: 1, crashes: 1, ..NONE });
    explore("upgrade 3", life(specs(), begin.clone(), Budget { losses: 1, ..NONE }, Some(wide)).losing(&[Loss::Vanishes, Loss::Hangs]));
    let wide = (Grain::Coarse, Budget { lags: 1, late: 1, ..NONE });
    explore("upgrade 3", life(specs(), begin.clone(), Budget { late: 1, ..NONE }, Some(wide)));
    let wide = (Grain::Coarse, Budget { lies: 1, silences: 1, ..NONE });
    explore("upgrade 3", life(specs(), begin, Budget { silences: 1, ..NONE }, Some(wide)));
}

/// A complete cluster in two zones: what has an even number stands in one, the rest in the other.
fn zoned(spec: &ClusterSpec) -> Observed {
    let mut world = complete(spec);
    for instance in &mut world.cloud.known_mut().unwrap().instances {
        let even = instance.machine.as_str().ends_with(['0', '2', '4']);
        instance.zone = Some(if even { "a" } else { "b" }.into());
    }
    aged(&settled(spec, world))
}

#[test]
fn a_zone_that_vanishes_is_left_alone_and_what_dies_one_by_one_is_replaced() {
    // One of two, two of two at once or one after the other, three of four, and what may follow.
    let budget = Budget { losses: 2, ..NONE };
    let wide = |losses| Some((Grain::Coarse, Budget { losses, crashes: 1, ..NONE }));
    let vanishing: &[Loss] = &[Loss::Vanishes];
    let met = explore("heal 1+3 in two zones", life(vec![spec(1, 3)], zoned(&spec(1, 3)), budget, wide(2)).losing(vanishing));
    assert!(met.contains(&Sight::ZoneVanished));
    let met = explore("heal 3 in two zones", life(vec![spec(3, 0)], zoned(&spec(3, 0)), budget, wide(2)).losing(vanishing));
    assert!(met.contains(&Sight::ZoneVanished));
}

/// A cluster that is complete, and one more machine that hung, was replaced, and is kept.
fn beside_a_kept_one(spec: &ClusterSpec) -> Observed {
    let mut world = complete(spec);
    Loss::Hangs.befall(&mut world, "i-uid-of-demo-cp-2");
    world.machines.known_mut().unwrap().iter_mut().for_each(|m| m.kept = m.name.as_str() == "demo-cp-2");
    aged(&settled(spec, world))
}

#[test]
fn machines_that_are_kept_for_a_look_hold_up_nothing_else() {
    let hangs: &[Loss] = &[Loss::Hangs];
    let wide = Some((Grain::Coarse, Budget { losses: 1, kept: 1, ..NONE }));
    let old = spec(3, 0);
    // Where there is no time for losing one at any moment, it was lost and replaced before, and is kept.
    let life_of = |next: &ClusterSpec| match thorough() {
        true => life(vec![old.clone(), next.clone()], complete(&old), NONE, wide),
        false => life(vec![old.clone(), next.clone()], beside_a_kept_one(&old), Budget { crashes: 1, ..NONE }, None),
    };
    explore("upgrade 3 beside one that is kept", life_of(&upgraded(old.clone())).losing(hangs));
    explore("roll 3 by replacement beside one that is kept", life_of(&revised(old.clone())).losing(hangs));
    let mut next = spec(1, 2);
    next.pools[0].revision = "r2".into();
    let quick = Budget { losses: 1, ..NONE };
    explore("roll a pool of 2 by replacement", life(vec![spec(1, 2), next], complete(&spec(1, 2)), quick, wide).losing(hangs));
}

/// The same cluster, paused.
fn paused(mut spec: ClusterSpec) -> ClusterSpec {
    spec.maintenance.paused = true;
    spec
}

/// The same cluster, with a window that is open when the tests live (on a Thursday, at midnight), or with one on Saturday.
fn in_window(mut spec: ClusterSpec, open: bool) -> ClusterSpec {
    let (day, start) = if open { (Weekday::Thursday, 0) } else { (Weekday::Saturday, 120) };
    spec.maintenance.windows = vec![Window { days: vec![day], start, minutes: 60 }];
    spec
}

#[test]
fn an_upgrade_is_paused_and_goes_on_at_every_step() {
    let (planes, pool) = (spec(3, 0), spec(1, 2));
    let rolls = [(&planes, upgraded(planes.clone())), (&pool, upgraded(pool.clone())), (&planes, revised(planes.clone()))];
    let others = [(&planes, rerendered(planes.clone())), (&pool, rerendered(pool.clone()))];
    for (old, next) in rolls.into_iter().chain(others) {
        let old = old.clone();
        let begin = complete(&old);
        let wide = (Grain::Coarse, Budget { crashes: 1, failing: 1, ..NONE });
        let title = format!("roll {}+{}", old.control_plane.replicas, old.pools.first().map_or(0, |p| p.replicas.unwrap()));
        let anywhere = life(vec![old.clone(), next.clone()], begin.clone(), Budget { crashes: 1, ..NONE }, Some(wide)).paused_anywhere();
        explore(&format!("{title}, paused anywhere"), anywhere);
        // By hand, and by the hour; and what is begun in a window may end after it. Meanwhile machines come to be told something else.
        let other = rerendered(next.clone());
        let by_hand = vec![old.clone(), next.clone(), paused(other.clone()), other.clone()];
        explore(
            &format!("{title}, pause it and go on"),
            life(by_hand, begin.clone(), NONE, Some((Grain::Coarse, Budget { crashes: 1, ..NONE }))),
        );
        let hours = [(&next, false), (&next, true), (&other, false), (&other, true)].map(|(spec, open)| in_window(spec.clone(), open));
        let by_hour = std::iter::once(in_window(old, false)).chain(hours).collect();
        explore(&format!("{title}, window after window"), life(by_hour, begin, NONE, Some((Grain::Coarse, Budget { crashes: 1, ..NONE }))));
    }
}

#[test]
fn the_dead_are_replaced_whatever_the_hour_unless_healing_waits_for_windows() {
    for healing in [Healing::Always, Healing::InWindows] {
        for old in [spec(3, 0), spec(1, 2)] {
            // Its machines come to be told something else when nobody may be disturbed.
            let other = rerendered(old.clone());
            let with = |mut spec: ClusterSpec| {
                spec.maintenance.healing = healing;
                spec
            };
            let hours = vec![in_window(old.clone(), false), in_window(other.clone(), false), paused(other.clone()), in_window(other, true)];
            let hours = hours.into_iter().map(with).collect();
            let budget = Budget { losses: 1, ..NONE };
            let wide = (Grain::Coarse, Budget { losses: 1, crashes: 1, ..NONE });
            let title = format!("heal {}+{}, {healing:?}", old.control_plane.replicas, old.pools.len() * 2);
            explore(&title, life(hours, complete(&old), budget, Some(wide)).losing(&[Loss::Vanishes, Loss::Hangs]));
        }
    }
}

#[test]
fn pools_are_upgraded_and_no_more_are_away_than_they_allow() {
    let specs = vec![spec(1, 2), upgraded(spec(1, 2)), upgraded(spec(1, 3))];
    let wide = (Grain::Coarse, Budget { crashes: 1, losses: 1, ..NONE });
    explore("upgrade 1+2 and scale it", life(specs, complete(&spec(1, 2)), NONE, Some(wide)));
}

/// The same cluster with two pools of that size, `v` and `w`.
fn with_two_pools(mut spec: ClusterSpec) -> ClusterSpec {
    let mut other = spec.pools[0].clone();
    other.name = "v".parse().unwrap();
    spec.pools.push(other);
    spec
}

/// The same cluster, whose pools may spare nobody.
fn sparing_nobody(mut spec: ClusterSpec) -> ClusterSpec {
    spec.pools.iter_mut().for_each(|p| p.upgrade.max_unavailable = Amount::Count(0));
    spec
}

#[test]
fn versions_and_configurations_of_a_pool_come_out_of_one_budget() {
    let quick = Budget { crashes: 1, ..NONE };
    let wide = || Some((Grain::Coarse, Budget { crashes: 1, losses: 1, ..NONE }));
    let pool = || spec(1, 2);
    for (title, old, next) in [
        ("upgrade 1+2", pool(), upgraded(rerendered(pool()))),
        ("roll 1+2 by replacement", pool(), revised(rerendered(pool()))),
        ("1+2 that spare nobody", sparing_nobody(pool()), rerendered(sparing_nobody(pool()))),
        ("two pools of 1+2+2", with_two_pools(pool()), rerendered(with_two_pools(pool()))),
    ] {
        let begin = complete(&old);
        let at_once = life(vec![old.clone(), next.clone()], begin.clone(), quick, wide()).losing(&[Loss::Hangs]);
        explore(&format!("{title}, another configuration with it"), at_once);
        // And when a window opens on what came one after the other.
        let other = ClusterSpec { network: next.network.clone(), ..old.clone() };
        let hours = vec![in_window(old, false), in_window(other, false), in_window(next.clone(), false), in_window(next, true)];
        explore(
            &format!("{title}, another configuration before it, when a window opens"),
            life(hours, begin, quick, wide()).losing(&[Loss::Hangs]),
        );
    }
}

#[test]
fn workers_follow_their_control_plane_whatever_is_silent_fails_or_comes_late() {
    let begin = complete(&spec(1, 1));
    let and_back = || vec![spec(1, 1), upgraded(spec(1, 1)), spec(1, 1)];
    let wide = (Grain::Coarse, Budget { silences: 1, crashes: 1, ..NONE });
    explore("upgrade 1+1 and call it off", life(and_back(), begin.clone(), Budget { silences: 1, ..NONE }, Some(wide)));
    let wide = (Grain::Coarse, Budget { silences: 1, failing: 1, ..NONE });
    explore("upgrade 1+1 and call it off", life(and_back(), begin.clone(), Budget { failing: 1, ..NONE }, Some(wide)));
    let specs = vec![spec(1, 1), upgraded(spec(1, 1))];
    explore("upgrade 1+1", life(specs, begin, Budget { crashes: 1, late: 1, silences: 1, ..NONE }, None));
}

#[test]
fn machines_are_replaced_when_only_new_ones_will_do() {
    let specs = vec![spec(3, 0), revised(spec(3, 0))];
    let wide = (Grain::Coarse, Budget { crashes: 1, losses: 1, ..NONE });
    explore("roll 3 by replacement", life(specs, complete(&spec(3, 0)), Budget { crashes: 1, ..NONE }, Some(wide)));
    let mut specs = vec![spec(1, 2), revised(spec(1, 2)), at(revised(spec(1, 2)), patched())];
    specs.truncate(if thorough() { 3 } else { 2 });
    let wide = (Grain::Coarse, NONE);
    explore("roll 1+2 by replacement and patch", life(specs, complete(&spec(1, 2)), NONE, Some(wide)));
}

#[test]
fn the_user_changes_their_mind_in_the_middle_of_everything() {
    let mut specs = vec![spec(3, 0), upgraded(spec(3, 0)), upgraded(spec(5, 0)), upgraded(spec(3, 0))];
    specs.truncate(if thorough() { 4 } else { 3 });
    explore("upgrade 3, grow to 5 and shrink", life(specs, complete(&spec(3, 0)), NONE, None));
    let specs = vec![spec(1, 0), upgraded(spec(1, 0)), upgraded(spec(3, 0)), spec(3, 0)];
    explore("upgrade 1, grow to 3, go back", life(specs, complete(&spec(1, 0)), Budget { crashes: 1, ..NONE }, None));
}

/// A complete cluster whose agents are a build.
fn running(spec: &ClusterSpec, build: &str) -> Observed {
    let mut world = complete(spec);
    crate::agents::run_build(&mut world, build);
    world
}

#[test]
fn agents_are_exchanged_whatever_crashes_is_late_or_falls_back() {
    let specs = || vec![spec(1, 2), spec(1, 2), spec(1, 2)];
    let life = |quick, wide| self::life(specs(), running(&spec(1, 2), "a"), quick, Some(wide)).giving(&["a", "b", "c"]);
    let wide = (Grain::Coarse, Budget { crashes: 1, refusing: 2, late: 1, ..NONE });
    explore("exchange agents of 1+2 twice", life(Budget { refusing: 1, late: 1, ..NONE }, wide));
    let wide = (Grain::Coarse, Budget { refusing: 1, lags: 1, silences: 1, ..NONE });
    explore("exchange agents of 1+2 twice", life(Budget { refusing: 1, lags: 1, ..NONE }, wide));
    let wide = (Grain::Coarse, Budget { refusing: 1, losses: 1, crashes: 1, ..NONE });
    let lossy = life(Budget { refusing: 1, losses: 1, ..NONE }, wide).losing(&[Loss::Stops, Loss::Hangs, Loss::Forgets]);
    explore("exchange agents of 1+2 twice", lossy);
}

#[test]
fn agents_are_exchanged_beside_an_upgrade_and_a_growing_pool() {
    let specs = vec![spec(1, 1), upgraded(spec(1, 1)), upgraded(spec(1, 2))];
    let quick = Budget { crashes: 1, refusing: 1, late: 1, ..NONE };
    let life = life(specs, running(&spec(1, 1), "a"), quick, None).giving(&["a", "b", "b"]);
    explore("exchange agents of 1+1 while it is upgraded and grows", life);
}
