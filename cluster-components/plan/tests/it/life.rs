//! A cluster's life as a state machine: an operator that may crash after any action, whose caches may lag and whose calls may come through late; a world
//! that moves by itself; a user who changes their mind; machines that die. And what must hold in all of it, by name.

use crate::build::now;
use crate::invariants::{at_rest, harm};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{ClusterSpec, MachineName};
use slipway_plan::{
    Action, AgentFacts, Happening, InstanceState, MachineRecord, Observed, actions, happen, happenings, plan, seen, simulate,
};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

/// Whether there is time for wider lives: minutes instead of seconds.
pub fn thorough() -> bool {
    std::env::var_os("SLIPWAY_TEST_FULL").is_some()
}

/// So long ago that every grace period is over.
pub fn long_ago() -> Timestamp {
    now() - SignedDuration::from_hours(24)
}

/// What is still allowed to go wrong, or to be changed, in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Passes that are cut off after some of their actions.
    pub crashes: u8,
    /// Passes whose view is partly old.
    pub lags: u8,
    /// Create calls whose answer is lost and that the cloud carries out later.
    pub late: u8,
    /// Instances that vanish or are powered off.
    pub losses: u8,
    /// Machine objects that the user deletes.
    pub replaced: u8,
    /// Whether the user may delete the cluster.
    pub deletions: u8,
}

/// The truth at a moment. Known by its hash, so that moments are cheap to compare.
#[derive(Debug, Clone)]
pub struct Truth {
    pub world: Observed,
    /// Ordinals that ever had a Machine, as bits, by pool.
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
    /// A create call on its way.
    pub late: Option<(MachineName, String)>,
    pub left: Budget,
    /// The invariant that the last step broke.
    pub broken: Option<&'static str>,
}

/// Whose view is old in a pass. The inventory is read before the Cluster, and that before the other records, so in a healthy operator only these mixes occur; the
/// last is what should not happen and must do no harm all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lag {
    /// The inventory, agents and Nodes.
    Inventory,
    /// These and the Cluster record.
    InventoryAndCluster,
    /// Everything: a former leader carries out its plan.
    Everything,
    /// The records are older than the inventory.
    Records,
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
    /// Somebody remembers how things are now.
    Remember,
    /// The world moves.
    World(Happening),
    /// All that can happen in the world happens.
    WorldMoves,
    /// Much time passes.
    TimePasses,
    /// A create call is sent and its answer lost; the cloud takes its time.
    Sent(MachineName, String),
    /// The cloud carries it out, whoever wants it still.
    Arrives,
    /// The user applies the next spec.
    Edit,
    /// The user deletes a Machine object.
    UserDeletes(MachineName),
    /// An instance vanishes.
    Dies(String),
    /// An instance is powered off.
    Stops(String),
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
    pub grain: Grain,
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
    moves: Vec<Happening>,
}

impl Life {
    pub fn first(&self) -> Moment {
        let truth = Truth::new(self.begin.clone(), BTreeMap::new());
        Moment { spec: 0, truth, old: None, late: None, left: self.budget, broken: None }
    }

    /// What may go wrong in it, for people.
    pub fn faults(&self) -> String {
        let Budget { crashes, lags, late, losses, replaced, deletions } = self.budget;
        let parts = [
            (crashes, "crashes"),
            (lags, "old views"),
            (late, "late calls"),
            (losses, "lost machines"),
            (replaced, "deleted records"),
            (deletions, "deletions"),
        ];
        let told: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what} {n}")).collect();
        format!("{} ({:?})", told.join(", "), self.grain)
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
        let outlook = Arc::new(Outlook { actions: actions(self.spec(moment), &seen(world), now()), moves: happenings(world) });
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
            steps.extend(actions.iter().filter_map(|a| match a {
                Action::CreateInstance { machine, uid } => Some(Step::Sent(machine.clone(), uid.clone())),
                _ => None,
            }));
        }
        if moment.late.is_some() {
            steps.push(Step::Arrives);
        }
        if left.lags > 0 {
            match moment.old {
                None => steps.push(Step::Remember),
                Some(_) => steps.extend([Lag::Inventory, Lag::InventoryAndCluster, Lag::Everything, Lag::Records].map(Step::Lagging)),
            }
        }
        match self.grain {
            Grain::Fine => steps.extend(moves.iter().cloned().map(Step::World)),
            Grain::Coarse if moves.is_empty() => {}
            Grain::Coarse => steps.push(Step::WorldMoves),
        }
        if world.is_over() {
            return steps;
        }
        if is_young(world) {
            steps.push(Step::TimePasses);
        }
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
                if instance.state != InstanceState::Deleting {
                    steps.push(Step::Dies(instance.id.clone()));
                }
                if instance.state == InstanceState::Running {
                    steps.push(Step::Stops(instance.id.clone()));
                }
            }
        }
        steps
    }

    /// What a step leads to.
    pub fn after(&self, moment: &Moment, step: &Step) -> Moment {
        let mut next = moment.clone();
        let believed = if matches!(step, Step::Lagging(_)) { moment.old.as_ref().map(|o| o.key) } else { None };
        let key = (moment.spec, moment.truth.key, hash(&(step, believed)));
        let known = self.memory.changes.lock().unwrap().get(&key).cloned();
        let (truth, broken) = known.unwrap_or_else(|| {
            let change = self.change(moment, step);
            self.memory.changes.lock().unwrap().insert(key, change.clone());
            change
        });
        (next.truth, next.broken) = (truth, broken);
        match step {
            Step::Only(_) => next.left.crashes -= 1,
            Step::Lagging(_) => {
                next.left.lags -= 1;
                next.old = next.old.filter(|_| next.left.lags > 0);
            }
            Step::Remember => next.old = Some(moment.truth.clone()),
            Step::Sent(machine, uid) => {
                next.left.late -= 1;
                next.late = Some((machine.clone(), uid.clone()));
            }
            Step::Arrives => next.late = None,
            Step::Edit => next.spec += 1,
            Step::UserDeletes(_) => next.left.replaced -= 1,
            Step::Dies(_) | Step::Stops(_) => next.left.losses -= 1,
            Step::DeleteCluster => next.left.deletions -= 1,
            Step::Pass | Step::World(_) | Step::WorldMoves | Step::TimePasses => {}
        }
        next
    }

    /// What a step does to the truth.
    fn change(&self, moment: &Moment, step: &Step) -> Change {
        let spec = self.spec(moment);
        let mut world = moment.truth.world.clone();
        let mut broken = None;
        match step {
            Step::Pass => broken = carry_out(spec, &mut world, &moment.truth.used, &self.outlook(moment).actions),
            Step::Only(action) => broken = carry_out(spec, &mut world, &moment.truth.used, std::slice::from_ref(action)),
            Step::Lagging(lag) => {
                let view = mixed(&seen(&world), &seen(&moment.old.as_ref().unwrap().world), *lag);
                broken = carry_out(spec, &mut world, &moment.truth.used, &actions(spec, &view, now()));
            }
            Step::World(happening) => happen(&mut world, happening, now()),
            Step::WorldMoves => self.outlook(moment).moves.iter().for_each(|happening| happen(&mut world, happening, now())),
            Step::TimePasses => world = aged(&world),
            Step::Arrives => {
                let (machine, uid) = moment.late.as_ref().unwrap();
                slipway_plan::cloud_creates(&mut world, machine, uid);
            }
            Step::UserDeletes(machine) => {
                let machines = world.machines.known_mut().unwrap();
                machines.iter_mut().find(|m| m.name == *machine).unwrap().deleting = Some(now());
            }
            Step::Dies(id) | Step::Stops(id) => lose(&mut world, id, matches!(step, Step::Dies(_))),
            Step::DeleteCluster => world.cluster.deleting = Some(now()),
            Step::Remember | Step::Sent(..) | Step::Edit => return (moment.truth.clone(), None),
        }
        (Truth::new(world, moment.truth.used.clone()), broken)
    }

    /// From here, without faults and without the user, the cluster gets where its spec says and stays there, or to a world that is `known` to. Returns
    /// the worlds on the way. A call that is still late is left out: when it arrives, that is a moment of its own.
    pub fn converges(&self, moment: &Moment, known: impl Fn(&Observed) -> bool) -> Result<Vec<Observed>, String> {
        let spec = self.spec(moment);
        let mut world = moment.truth.world.clone();
        let mut path = vec![];
        for _ in 0..80 {
            if known(&world) {
                return Ok(path);
            }
            path.push(world.clone());
            for action in actions(spec, &seen(&world), now()) {
                let _ = simulate(spec, &mut world, &action, now());
            }
            for happening in happenings(&world) {
                happen(&mut world, &happening, now());
            }
            if path.last() == Some(&world) {
                let older = aged(&world);
                if older == world || actions(spec, &seen(&older), now()) == actions(spec, &seen(&world), now()) {
                    return at_rest(spec, &world).map(|()| path);
                }
                world = older;
            }
        }
        Err(format!("no rest; still planned: {:#?}", plan(spec, &seen(&world), now())))
    }
}

pub fn records(world: &Observed) -> &[MachineRecord] {
    world.machines.known().unwrap()
}

/// Notes which ordinals are in use.
fn note(world: &Observed, used: &mut BTreeMap<String, u32>) {
    for machine in records(world) {
        *used.entry(machine.pool.to_string()).or_default() |= 1 << machine.ordinal;
    }
}

/// Carries actions out, and says which invariant one of them breaks.
fn carry_out(spec: &ClusterSpec, world: &mut Observed, used: &BTreeMap<String, u32>, actions: &[Action]) -> Option<&'static str> {
    let mut broken = None;
    for action in actions {
        let before = world.clone();
        if simulate(spec, world, action, now()).is_ok() && *world != before {
            broken = broken.or(harm(spec, &before, world, action, used));
        }
    }
    broken
}

/// An instance vanishes, or is powered off; its agent falls silent now.
fn lose(world: &mut Observed, id: &str, vanishes: bool) {
    let cloud = world.cloud.known_mut().unwrap();
    if vanishes {
        cloud.instances.retain(|i| i.id != id);
    } else {
        cloud.instances.iter_mut().filter(|i| i.id == id).for_each(|i| i.state = InstanceState::Stopped);
    }
    slipway_plan::world_follows(world, now());
}

/// Whether some grace period still runs.
fn is_young(world: &Observed) -> bool {
    let silent = |a: &AgentFacts| matches!(a, AgentFacts::Silent { since, .. } if *since != long_ago());
    world.agents.values().any(silent) || records(world).iter().any(|m| m.deleting.is_some_and(|since| since != long_ago()))
}

/// The same world after a long time: silences are old, and so are deletions that were asked for.
fn aged(world: &Observed) -> Observed {
    let mut world = world.clone();
    for agent in world.agents.values_mut() {
        if let AgentFacts::Silent { since, .. } = agent {
            *since = long_ago();
        }
    }
    for machine in world.machines.known_mut().unwrap() {
        machine.deleting = machine.deleting.map(|_| long_ago());
    }
    world
}

/// A view that is partly old.
fn mixed(new: &Observed, old: &Observed, lag: Lag) -> Observed {
    let mut view = new.clone();
    let inventory = |view: &mut Observed| {
        view.cloud = old.cloud.clone();
        view.agents = old.agents.clone();
        view.nodes = old.nodes.clone();
        view.addons = old.addons.clone();
    };
    match lag {
        Lag::Inventory => inventory(&mut view),
        Lag::InventoryAndCluster => {
            inventory(&mut view);
            view.cluster = old.cluster.clone();
        }
        Lag::Everything => view = old.clone(),
        Lag::Records => {
            view.machines = old.machines.clone();
            view.pools = old.pools.clone();
            view.secrets = old.secrets.clone();
        }
    }
    view
}
