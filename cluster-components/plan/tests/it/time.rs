//! Time in the tests: it is always [`now`], and what passes is that everything else becomes older.
//!
//! What is older than the longest grace period that could still apply to it is [`long_ago`], so that worlds which differ by nothing that matters are equal.

use crate::build::now;
use jiff::{SignedDuration, Timestamp};
use slipway_plan::{AgentFacts, AgentState, Fact, Observed};

/// So long ago that every grace period is over.
pub fn long_ago() -> Timestamp {
    now() - SignedDuration::from_hours(24)
}

/// The same world after a while.
pub fn older(world: &Observed, by: SignedDuration) -> Observed {
    let mut world = world.clone();
    times(&mut world, &mut |at, limit| {
        *at -= by;
        if now().duration_since(*at) >= SignedDuration::from_secs(limit) {
            *at = long_ago();
        }
    });
    world
}

/// The same world after so long a time that every grace period is over.
pub fn aged(world: &Observed) -> Observed {
    older(world, SignedDuration::from_hours(12))
}

/// Whether some grace period still runs that the planner did not ask to be woken for.
pub fn is_young(world: &Observed) -> bool {
    *world != aged(world)
}

/// Every time that a decision may depend on, with the seconds after which none does any more.
fn times(world: &mut Observed, each: &mut impl FnMut(&mut Timestamp, i64)) {
    for machine in world.machines.known_mut().into_iter().flatten() {
        machine.deleting.iter_mut().for_each(|at| each(at, 600));
        machine.changed.iter_mut().for_each(|change| each(&mut change.at, 121));
    }
    for agent in world.agents.values_mut() {
        match agent {
            AgentFacts::Heard(state) => of_agent(state, each),
            AgentFacts::Silent { since, last, .. } => {
                each(since, 600);
                last.iter_mut().for_each(|state| of_agent(state, each));
            }
            AgentFacts::Answering => {}
        }
    }
    for member in world.etcd.known_mut().into_iter().flat_map(|e| &mut e.members) {
        match &mut member.status {
            Fact::Known(status) => each(&mut status.healthy_since, 5),
            Fact::Unknown { since, .. } => each(since, 31),
        }
    }
    for snapshot in world.snapshots.known_mut().into_iter().flatten() {
        snapshot.completed.iter_mut().for_each(|at| each(at, 3601));
    }
    for node in world.nodes.known_mut().into_iter().flatten() {
        each(&mut node.since, 1);
        node.cordoned.iter_mut().for_each(|at| each(at, 600));
    }
}

fn of_agent(state: &mut AgentState, each: &mut impl FnMut(&mut Timestamp, i64)) {
    state.trouble.iter_mut().for_each(|trouble| each(&mut trouble.since, 121));
    for probe in state.probes.values_mut() {
        each(&mut probe.since, if probe.healthy { 5 } else { 31 });
    }
}
