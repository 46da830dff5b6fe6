//! A cluster's life as a state machine: an operator that may crash after any action, whose caches may lag and whose calls may come through late; agents
//! that are silent or lie; a world that moves by itself; a user who changes their mind; machines that die, hang and come back.

use crate::build::{look, now};
use crate::faults::{self, Budget, Lag, Lie, Loss};
use crate::harms;
use crate::invariants::{Moved, at_rest, harm};
use crate::time::{is_young, older};
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName};
use slipway_plan::{Action, AgentBuild, AgentFacts, Happening, MachineRecord, Observed, happen, happenings, outlook, plan, seen, simulate};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Whether there is time for wider lives: minutes instead of seconds.
pub fn thorough() -> bool {
    std::env::var_os("SLIPWAY_TEST_FULL").is_some()
}

/// The truth at a moment. Known by its hash, so that moments are cheap to compare.
#[derive(Debug, Clone)]
pub struct Truth {
    pub world: Observed,
    /// Ordinals that ever had a Machine, as bits, by pool; under `started` those of control planes whose etcd member ever did.
    pub used: BTreeMap<String, u32>,
    pub key: u64,
}

impl Truth {
    pub fn new(world: Observed, mut used: BTreeMap<String, u32>) -> Arc<Self> {
        note(&world, &mut used);
        let key = hash(&(&world, &used));
        Arc::new(Self { world, used, key })
    }
}

impl PartialEq for Truth {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Truth {}

impl Hash for Truth {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The same in every run, since stateright walks a path again to show it.
pub fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A moment of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Which of the life's specs holds.
    pub spec: usize,
    pub truth: Arc<Truth>,
    /// A former truth that somebody still believes.
    pub old: Option<Arc<Truth>>,
    /// A call on its way.
    pub late: Option<Action>,
    pub left: Budget,
    /// The invariant that the last step broke.
    pub broken: Option<&'static str>,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// A whole pass.
    Pass,
    /// A pass that ends after this one of its actions (others of the same plan not begun).
    Only(Action),
    /// A pass with an old view.
    Lagging(Lag),
    /// A pass in which one agent lies.
    Deceived(MachineName, Lie),
    /// Somebody remembers how things are now.
    Remember,
    /// The world moves.
    World(Happening),
    /// All that can happen in the world happens (but that silent agents speak again).
    WorldMoves,
    /// As much time passes as the planner wants to wait.
    TimePasses,
    /// A call is sent and its answer lost; its target takes its time.
    Sent(Action),
    /// It is carried out, whoever wants it still.
    Arrives,
    /// The user applies the next spec.
    Edit,
    /// The user deletes a Machine object.
    UserDeletes(MachineName),
    /// A machine is lost. By its instance's id.
    Lost(String, Loss),
    /// One that hung does so no more.
    Returns(String),
    /// An agent falls silent on a machine that works.
    FallsSilent(MachineName),
    /// A machine cannot do what it was told.
    Fails(MachineName),
    /// A build of an agent that is on trial does not stay.
    FallsBack(MachineName),
    /// Somebody wants to have a look at a machine before it goes, or does not any more.
    Keeps(MachineName, bool),
    /// The user deletes the cluster.
    DeleteCluster,
}

/// How finely the life is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// Every action and every happening by itself: all interleavings.
    Fine,
    /// Crashes after each single action; the world moves as a whole.
    Coarse,
}

/// A life: the specs the user goes through, how it begins, and what may go wrong.
pub struct Life {
    pub specs: Vec<ClusterSpec>,
    pub begin: Observed,
    pub budget: Budget,
    /// How machines may be lost.
    pub losses: &'static [Loss],
    /// Whether it is checked at every moment that it may be paused then, and goes on when it is not any more.
    pub paused: bool,
    pub grain: Grain,
    /// Builds of the agent that the operator gives, one for each spec. None: it does not say.
    pub builds: &'static [&'static str],
    /// What was computed once: the same truth is met with many budgets.
    pub memory: Memory,
}

/// See [`Life::memory`].
#[derive(Default)]
pub struct Memory {
    outlooks: Mutex<HashMap<(usize, u64), Arc<Outlook>>>,
    changes: Mutex<HashMap<(usize, u64, u64), Change>>,
}

/// A truth after a step, and the invariant that the step broke.
type Change = (Arc<Truth>, Option<&'static str>);

/// What can be done and what can happen, in a truth.
struct Outlook {
    actions: Vec<Action>,
    pause: Option<Duration>,
    moves: Vec<Happening>,
}

impl Life {
    pub fn new(specs: Vec<ClusterSpec>, begin: Observed, grain: Grain, budget: Budget) -> Self {
        Self { specs, begin, budget, losses: &[Loss::Vanishes, Loss::Stops], paused: false, grain, builds: &[], memory: Memory::default() }
    }

    pub fn giving(self, builds: &'static [&'static str]) -> Self {
        Self { builds, ..self }
    }

    /// What the operator looks at and gives because of a spec.
    fn look(&self, spec: usize, world: &mut Observed) {
        look(&self.specs[spec], world);
        if let Some(build) = self.builds.get(spec) {
            world.wanted_agent = Some((*build).to_owned());
        }
    }

    pub fn paused_anywhere(self) -> Self {
        Self { paused: true, ..self }
    }

    pub fn losing(self, losses: &'static [Loss]) -> Self {
        Self { losses, ..self }
    }

    pub fn first(&self) -> Moment {
        let mut world = self.begin.clone();
        self.look(0, &mut world);
        Moment { spec: 0, truth: Truth::new(world, BTreeMap::new()), old: None, late: None, left: self.budget, broken: None }
    }

    /// What may go wrong in it, for people.
    pub fn faults(&self) -> String {
        format!("{} ({:?})", self.budget, self.grain)
    }

    pub fn spec(&self, moment: &Moment) -> &ClusterSpec {
        &self.specs[moment.spec]
    }

    fn outlook(&self, moment: &Moment) -> Arc<Outlook> {
        let key = (moment.spec, moment.truth.key);
        if let Some(outlook) = self.memory.outlooks.lock().unwrap().get(&key) {
            return outlook.clone();
        }
        let world = &moment.truth.world;
        let (actions, pause) = outlook(self.spec(moment), &seen(world), now());
        let outlook = Arc::new(Outlook { actions, pause: pause.filter(|p| !p.is_zero()), moves: happenings(world) });
        self.memory.outlooks.lock().unwrap().insert(key, outlook.clone());
        outlook
    }

    /// Every step that is possible now.
    pub fn steps(&self, moment: &Moment) -> Vec<Step> {
        if moment.broken.is_some() {
            return vec![];
        }
        let (world, left) = (&moment.truth.world, moment.left);
        let outlook = self.outlook(moment);
        let (actions, moves) = (&outlook.actions, &outlook.moves);
        let mut steps = vec![];
        if !actions.is_empty() {
            steps.push(Step::Pass);
        }
        if left.crashes > 0 && actions.len() > 1 {
            steps.extend(actions.iter().cloned().map(Step::Only));
        }
        if left.late > 0 && moment.late.is_none() {
            steps.extend(actions.iter().filter(|a| faults::may_be_late(a)).cloned().map(Step::Sent));
        }
        if moment.late.is_some() {
            steps.push(Step::Arrives);
        }
        if left.lags > 0 {
            match moment.old {
                None => steps.push(Step::Remember),
                Some(_) => steps.extend(Lag::ALL.map(Step::Lagging)),
            }
        }
        // Silence ends by itself, but at a time of its own.
        let (returning, moving): (Vec<&Happening>, Vec<&Happening>) = moves.iter().partition(|m| matches!(m, Happening::SpeaksAgain(_)));
        steps.extend(returning.into_iter().cloned().map(Step::World));
        match self.grain {
            Grain::Fine => steps.extend(moving.iter().map(|m| Step::World((*m).clone()))),
            Grain::Coarse if moving.is_empty() => {}
            Grain::Coarse => steps.push(Step::WorldMoves),
        }
        if world.is_over() {
            return steps;
        }
        // Time passes while nothing can be done; or else something is slow.
        if outlook.pause.is_some() && ((actions.is_empty() && moving.is_empty()) || left.slow > 0) {
            steps.push(Step::TimePasses);
        }
        self.faults_of(moment, world, &mut steps);
        steps
    }

    fn faults_of(&self, moment: &Moment, world: &Observed, steps: &mut Vec<Step>) {
        let left = moment.left;
        if moment.spec + 1 < self.specs.len() && world.cluster.deleting.is_none() {
            steps.push(Step::Edit);
        }
        if left.deletions > 0 && world.cluster.deleting.is_none() && world.cluster.finalizer {
            steps.push(Step::DeleteCluster);
        }
        if left.replaced > 0 {
            steps.extend(records(world).iter().filter(|m| m.deleting.is_none()).map(|m| Step::UserDeletes(m.name.clone())));
        }
        if left.losses > 0 {
            for instance in &world.cloud.known().unwrap().instances {
                let possible = self.losses.iter().filter(|loss| loss.may_befall(world, instance));
                steps.extend(possible.map(|loss| Step::Lost(instance.id.clone(), *loss)));
            }
        }
        if left.kept > 0 {
            steps.extend(records(world).iter().filter(|m| faults::may_be_kept(world, m)).map(|m| Step::Keeps(m.name.clone(), true)));
        }
        steps.extend(records(world).iter().filter(|m| m.kept).map(|m| Step::Keeps(m.name.clone(), false)));
        let hung = world.cloud.known().unwrap().instances.iter().filter(|i| faults::hangs(i));
        steps.extend(hung.map(|i| Step::Returns(i.id.clone())));
        let heard = || world.agents.iter().filter_map(|(name, agent)| agent.heard().map(|state| (name, state)));
        if left.silences > 0 {
            steps.extend(heard().map(|(name, _)| Step::FallsSilent(name.clone())));
        }
        // While etcd is being founded every agent is believed: there is nobody else to ask, and no data to lose.
        if left.lies > 0 && world.cluster.bootstrapped {
            let planes = records(world).iter().filter(|m| m.is_control_plane() && m.claimed);
            let all = planes.flat_map(|m| Lie::ALL.map(|lie| Step::Deceived(m.name.clone(), lie)));
            steps.extend(all);
        }
        if left.failing > 0 {
            let under_way = heard().filter(|(_, s)| s.applied.is_some() && s.applied != s.accepted && s.trouble.is_none());
            steps.extend(under_way.map(|(name, _)| Step::Fails(name.clone())));
        }
        if left.refusing > 0 {
            let on_trial = world.agents.iter().filter(|(_, agent)| own_build(agent).is_some_and(|b| b.trial.is_some()));
            steps.extend(on_trial.map(|(name, _)| Step::FallsBack(name.clone())));
        }
    }

    /// What a step leads to.
    pub fn after(&self, moment: &Moment, step: &Step) -> Moment {
        let mut next = moment.clone();
        let believed = if matches!(step, Step::Lagging(_)) { moment.old.as_ref().map(|o| o.key) } else { None };
        let arriving = if matches!(step, Step::Arrives) { moment.late.as_ref() } else { None };
        let key = (moment.spec, moment.truth.key, hash(&(step, believed, arriving)));
        let known = self.memory.changes.lock().unwrap().get(&key).cloned();
        let (truth, broken) = known.unwrap_or_else(|| {
            let change = self.change(moment, step);
            self.memory.changes.lock().unwrap().insert(key, change.clone());
            change
        });
        (next.truth, next.broken) = (truth, broken);
        // Before a build is tried, every agent hears who leads: what an earlier operator still sends is refused then.
        let tries = |truth: &Truth| truth.world.agents.values().filter_map(own_build).filter(|b| b.trial.is_some()).count();
        if matches!(next.late, Some(Action::UpdateAgent { .. })) && tries(&next.truth) > tries(&moment.truth) {
            next.late = None;
        }
        match step {
            Step::Only(_) => next.left.crashes -= 1,
            Step::Lagging(_) => {
                next.left.lags -= 1;
                next.old = next.old.filter(|_| next.left.lags > 0);
            }
            Step::Deceived(..) => next.left.lies -= 1,
            Step::Remember => next.old = Some(moment.truth.clone()),
            Step::Sent(action) => {
                next.left.late -= 1;
                next.late = Some(action.clone());
            }
            Step::Arrives => next.late = None,
            Step::Edit => next.spec += 1,
            Step::UserDeletes(_) => next.left.replaced -= 1,
            Step::Lost(..) => next.left.losses -= 1,
            Step::FallsSilent(_) => next.left.silences -= 1,
            Step::Fails(_) => next.left.failing -= 1,
            Step::FallsBack(_) => next.left.refusing -= 1,
            Step::DeleteCluster => next.left.deletions -= 1,
            Step::Keeps(_, keep) => next.left.kept -= u8::from(*keep),
            Step::TimePasses => {
                let outlook = self.outlook(moment);
                let free = outlook.actions.is_empty() && outlook.moves.iter().all(|m| matches!(m, Happening::SpeaksAgain(_)));
                next.left.slow -= u8::from(!free);
            }
            Step::Pass | Step::World(_) | Step::WorldMoves | Step::Returns(_) => {}
        }
        next
    }

    /// What a step does to the truth.
    fn change(&self, moment: &Moment, step: &Step) -> Change {
        let spec = self.spec(moment);
        let mut world = moment.truth.world.clone();
        let used = &moment.truth.used;
        let mut broken = None;
        match step {
            Step::Pass => broken = carry_out(spec, &mut world, used, &self.outlook(moment).actions, true),
            Step::Only(action) => broken = carry_out(spec, &mut world, used, std::slice::from_ref(action), true),
            Step::Lagging(lag) => {
                let view = lag.view(&seen(&world), &seen(&moment.old.as_ref().unwrap().world));
                broken = carry_out(spec, &mut world, used, &outlook(spec, &view, now()).0, false);
            }
            Step::Deceived(machine, lie) => {
                let view = lie.view(&seen(&world), machine);
                broken = carry_out(spec, &mut world, used, &outlook(spec, &view, now()).0, false);
            }
            Step::World(happening) => happen(&mut world, happening, now()),
            Step::WorldMoves => {
                let moves = &self.outlook(moment).moves;
                let moving = moves.iter().filter(|m| !matches!(m, Happening::SpeaksAgain(_)));
                moving.for_each(|happening| happen(&mut world, happening, now()));
            }
            Step::TimePasses => world = passed(&world, self.outlook(moment).pause.unwrap()),
            Step::Arrives => {
                let (before, late) = (world.clone(), moment.late.as_ref().unwrap());
                slipway_plan::arrives(spec, &mut world, late, now());
                // A create call comes through whatever is recorded by then: nobody can help it.
                let create = matches!(late, Action::CreateInstance { .. });
                let moved = Moved { spec, before: &before, after: &world, action: late, used, fresh: false };
                // Versions, too, are told after their upgrade has ended; its snapshot was there when they were sent.
                let told =
                    matches!(late, Action::SetVersions { .. }) && before.snapshots.known().unwrap().iter().any(|s| s.completed.is_some());
                let expected = |harm: &&str| told && *harm == harms::BEFORE_A_SNAPSHOT;
                broken = if create || before == world { None } else { harm(&moved).filter(|harm| !expected(harm)) };
            }
            Step::UserDeletes(machine) => {
                let machines = world.machines.known_mut().unwrap();
                machines.iter_mut().find(|m| m.name == *machine).unwrap().deleting = Some(now());
            }
            Step::Keeps(machine, keep) => {
                let machines = world.machines.known_mut().unwrap();
                machines.iter_mut().find(|m| m.name == *machine).unwrap().kept = *keep;
            }
            Step::Lost(id, loss) => loss.befall(&mut world, id),
            Step::Returns(id) => faults::comes_back(&mut world, id),
            Step::FallsSilent(machine) => faults::falls_silent(&mut world, machine),
            Step::Fails(machine) => faults::fails(&mut world, machine),
            Step::DeleteCluster => world.cluster.deleting = Some(now()),
            Step::FallsBack(machine) => slipway_plan::falls_back(&mut world, machine, now()),
            Step::Edit => self.look(moment.spec + 1, &mut world),
            Step::Remember | Step::Sent(..) => return (moment.truth.clone(), None),
        }
        (Truth::new(world, used.clone()), broken)
    }

    /// A way, for people: each step with what the planner did in it.
    pub fn told(&self, way: &[(Moment, Option<Step>)]) -> String {
        let actions = |moment: &Moment| self.outlook(moment).actions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let line = |(moment, step): &(Moment, Option<Step>)| match step {
            Some(Step::Pass) => format!("  Pass: {}", actions(moment)),
            Some(Step::Only(action)) => format!("  Only: {action}"),
            Some(Step::Sent(action)) => format!("  Sent: {action}"),
            Some(step) => format!("  {step:?}"),
            None => String::new(),
        };
        way.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// From here, without faults and without the user, the cluster gets where its spec says and stays there, or to a world that is `known` to. Returns
    /// the worlds on the way. A call that is still late is left out: when it arrives, that is a moment of its own.
    pub fn converges(&self, moment: &Moment, known: impl Fn(&Observed) -> bool) -> Result<Vec<Observed>, String> {
        rests(self.spec(moment), moment.truth.world.clone(), known)
    }
}

/// See [`Life::converges`]. The last world is that at rest, if it was not known.
pub fn rests(spec: &ClusterSpec, mut world: Observed, known: impl Fn(&Observed) -> bool) -> Result<Vec<Observed>, String> {
    let mut path = vec![];
    for _ in 0..600 {
        if known(&world) {
            return Ok(path);
        }
        path.push(world.clone());
        let (actions, pause) = outlook(spec, &seen(&world), now());
        for action in actions {
            let _ = simulate(spec, &mut world, &action, now());
        }
        for happening in happenings(&world) {
            happen(&mut world, &happening, now());
        }
        if path.last() == Some(&world) {
            match pause.filter(|p| !p.is_zero() && is_young(&world)) {
                Some(pause) => world = passed(&world, pause),
                None => return at_rest(spec, &world).map(|()| path),
            }
        }
    }
    Err(format!("no rest; still planned: {:#?}", plan(spec, &seen(&world), now())))
}

pub fn records(world: &Observed) -> &[MachineRecord] {
    world.machines.known().unwrap()
}

/// What an agent says of its build, or said last.
pub fn own_build(agent: &AgentFacts) -> Option<&AgentBuild> {
    match agent {
        AgentFacts::Heard(state) | AgentFacts::Silent { last: Some(state), .. } => state.build.as_ref(),
        AgentFacts::Silent { last: None, .. } | AgentFacts::Answering => None,
    }
}

fn passed(world: &Observed, pause: Duration) -> Observed {
    older(world, SignedDuration::try_from(pause).unwrap())
}

/// Notes which ordinals are in use, and which members of etcd have started.
fn note(world: &Observed, used: &mut BTreeMap<String, u32>) {
    for machine in records(world) {
        *used.entry(machine.pool.to_string()).or_default() |= 1 << machine.ordinal;
        let started = world.etcd.known().is_some_and(|e| e.members.iter().any(|m| m.name == machine.name.as_str()));
        if started && machine.is_control_plane() {
            *used.entry("started".into()).or_default() |= 1 << machine.ordinal;
        }
    }
}

/// Carries actions out, and says which invariant one of them breaks.
fn carry_out(
    spec: &ClusterSpec,
    world: &mut Observed,
    used: &BTreeMap<String, u32>,
    actions: &[Action],
    fresh: bool,
) -> Option<&'static str> {
    let mut broken = None;
    for action in actions {
        let before = world.clone();
        if simulate(spec, world, action, now()).is_ok() && *world != before {
            broken = broken.or_else(|| harm(&Moved { spec, before: &before, after: world, action, used, fresh }));
        }
    }
    broken
}
