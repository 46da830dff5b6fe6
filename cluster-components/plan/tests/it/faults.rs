//! What goes wrong in a life, and how it looks.

use crate::build::now;
use slipway_model::MachineName;
use slipway_plan::{
    Action, AgentFacts, AgentState, InstanceFacts, InstanceState, MachineRecord, Observed, ProbeFacts, Trouble, world_follows,
};
use std::fmt;

/// What is still allowed to go wrong, or to be changed, in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// Passes that are cut off after some of their actions.
    pub crashes: u8,
    /// Passes whose view is partly old.
    pub lags: u8,
    /// Calls whose answer is lost and that their target carries out later.
    pub late: u8,
    /// Machines that are lost.
    pub losses: u8,
    /// Machine objects that the user deletes.
    pub replaced: u8,
    /// Whether the user may delete the cluster.
    pub deletions: u8,
    /// Agents that fall silent on machines that work.
    pub silences: u8,
    /// Passes in which an agent lies.
    pub lies: u8,
    /// Times that something takes longer than the planner wants to wait.
    pub slow: u8,
    /// Machines that cannot do what they were told.
    pub failing: u8,
    /// Machines that failed or leave and that a person keeps for a look. They are given back at any time.
    pub kept: u8,
    /// Builds of agents that do not stay where they are tried.
    pub refusing: u8,
}

/// Nothing.
pub const NONE: Budget = Budget {
    crashes: 0,
    lags: 0,
    late: 0,
    losses: 0,
    replaced: 0,
    deletions: 0,
    silences: 0,
    lies: 0,
    slow: 0,
    failing: 0,
    kept: 0,
    refusing: 0,
};

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.crashes, "crashes"),
            (self.lags, "old views"),
            (self.late, "late calls"),
            (self.losses, "lost machines"),
            (self.replaced, "deleted records"),
            (self.deletions, "deletions"),
            (self.silences, "silent agents"),
            (self.lies, "lies"),
            (self.slow, "delays"),
            (self.failing, "failing changes"),
            (self.kept, "kept machines"),
            (self.refusing, "refused builds"),
        ];
        let told: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what} {n}")).collect();
        f.write_str(if told.is_empty() { "no faults".into() } else { told.join(", ") }.as_str())
    }
}

/// Calls that may reach their target long after they were sent: those that change what others rely on.
pub fn may_be_late(action: &Action) -> bool {
    matches!(
        action,
        Action::CreateInstance { .. }
            | Action::AddMember { .. }
            | Action::PromoteMember { .. }
            | Action::RemoveMember { .. }
            | Action::MoveLeader { .. }
            | Action::SetVersions { .. }
            | Action::ApplyPlan { expected: Some(_), .. }
            | Action::StartInstance { .. }
            | Action::UpdateAgent { .. }
    )
}

/// How a machine is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// The cloud does not have its instance any more.
    Vanishes,
    /// It is powered off.
    Stops,
    /// It runs and nothing on it answers.
    Hangs,
    /// It runs with an empty disk.
    Forgets,
}

impl Loss {
    pub fn may_befall(self, world: &Observed, instance: &InstanceFacts) -> bool {
        match self {
            Self::Vanishes => instance.state != InstanceState::Deleting,
            Self::Stops | Self::Hangs => instance.state == InstanceState::Running && instance.trouble.is_none(),
            Self::Forgets => world.agents.get(&instance.machine).and_then(AgentFacts::heard).is_some_and(|s| s.accepted.is_some()),
        }
    }

    /// Its agent falls silent now.
    pub fn befall(self, world: &mut Observed, id: &str) {
        let cloud = world.cloud.known_mut().unwrap();
        let machine = cloud.instances.iter().find(|i| i.id == id).unwrap().machine.clone();
        let mut instance = cloud.instances.iter_mut().filter(|i| i.id == id);
        match self {
            Self::Vanishes => cloud.instances.retain(|i| i.id != id),
            Self::Stops => instance.for_each(|i| i.state = InstanceState::Stopped),
            Self::Hangs => instance.next().unwrap().trouble = Some("it hangs".into()),
            Self::Forgets => drop(world.agents.insert(machine, AgentFacts::Heard(AgentState::default()))),
        }
        world_follows(world, now());
    }
}

/// Whether somebody may want to have a look at a machine: it is silent, or it is on its way out.
pub fn may_be_kept(world: &Observed, machine: &MachineRecord) -> bool {
    let silent = matches!(world.agents.get(&machine.name), Some(AgentFacts::Silent { .. }));
    machine.instance.is_some() && !machine.kept && (silent || machine.deleting.is_some())
}

pub fn hangs(instance: &InstanceFacts) -> bool {
    instance.state == InstanceState::Running && instance.trouble.is_some()
}

/// A machine that hung goes on as if nothing had been; that its agent speaks again is the world's next step.
pub fn comes_back(world: &mut Observed, id: &str) {
    world.cloud.known_mut().unwrap().instances.iter_mut().filter(|i| i.id == id).for_each(|i| i.trouble = None);
    world_follows(world, now());
}

/// The machine works; only nobody hears of it.
pub fn falls_silent(world: &mut Observed, machine: &MachineName) {
    if let Some(AgentFacts::Heard(state)) = world.agents.remove(machine) {
        let last = AgentState { probes: Default::default(), ..state };
        world.agents.insert(machine.clone(), AgentFacts::Silent { since: now(), error: "no answer".into(), last: Some(last) });
    }
    world_follows(world, now());
}

/// It stays between what it ran and what it was told, until it is told something else.
pub fn fails(world: &mut Observed, machine: &MachineName) {
    if let Some(AgentFacts::Heard(state)) = world.agents.get_mut(machine) {
        state.trouble = Some(Trouble { message: "it does not start".into(), since: now() });
    }
    world_follows(world, now());
}

/// Whose view is old in a pass. The inventory is read before the Cluster, and that before the other records, so in a healthy operator only these mixes
/// occur; the last is what should not happen and must do no harm all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lag {
    /// The inventory, agents, etcd and Nodes.
    Inventory,
    /// These and the Cluster record.
    InventoryAndCluster,
    /// Everything: a former leader carries out its plan.
    Everything,
    /// The records are older than the inventory.
    Records,
}

impl Lag {
    pub const ALL: [Self; 4] = [Self::Inventory, Self::InventoryAndCluster, Self::Everything, Self::Records];

    /// A view that is partly old.
    pub fn view(self, new: &Observed, old: &Observed) -> Observed {
        let mut view = new.clone();
        let inventory = |view: &mut Observed| {
            view.cloud = old.cloud.clone();
            view.agents = old.agents.clone();
            view.etcd = old.etcd.clone();
            view.nodes = old.nodes.clone();
            view.addons = old.addons.clone();
        };
        match self {
            Self::Inventory => inventory(&mut view),
            Self::InventoryAndCluster => {
                inventory(&mut view);
                view.cluster = old.cluster.clone();
            }
            Self::Everything => {
                view = old.clone();
                // What the user wants is in the same object as what is recorded: nobody acts on a spec without having looked for it.
                view.preflight = new.preflight.clone();
                view.wanted_addons.clone_from(&new.wanted_addons);
            }
            Self::Records => {
                view.machines = old.machines.clone();
                view.pools = old.pools.clone();
                view.secrets = old.secrets.clone();
                view.snapshots = old.snapshots.clone();
            }
        }
        view
    }
}

/// What an agent says that is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// That it knows of no configuration.
    Forgot,
    /// That all is well and done.
    Well,
    /// That nothing works.
    Ill,
}

impl Lie {
    pub const ALL: [Self; 3] = [Self::Forgot, Self::Well, Self::Ill];

    pub fn view(self, truth: &Observed, machine: &MachineName) -> Observed {
        let mut view = truth.clone();
        let mut state = view.agents.get(machine).and_then(AgentFacts::heard).cloned().unwrap_or_default();
        let probes = |healthy: bool| {
            let probe = |name: &str| (name.to_owned(), ProbeFacts { healthy, message: String::new(), since: crate::time::long_ago() });
            [slipway_plan::PROBE_ETCD, slipway_plan::PROBE_API_SERVER].map(probe).into()
        };
        match self {
            Self::Forgot => state = AgentState::default(),
            Self::Well => {
                state.accepted = view.wanted.get(machine).cloned();
                state.applied.clone_from(&state.accepted);
                state.probes = probes(true);
            }
            Self::Ill => state.probes = probes(false),
        }
        view.agents.insert(machine.clone(), AgentFacts::Heard(state));
        view
    }
}
