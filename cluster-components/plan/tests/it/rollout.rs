//! The rollout in tables: what all of them share.

mod order;
mod pools;
mod stopping;

use crate::build::{look, now};
use crate::life::records;
use crate::time::older;
use jiff::SignedDuration;
use slipway_model::{ClusterSpec, MachineName, MachineVersions, Part};
use slipway_plan::{Action, AgentFacts, Observed, Reason, Trouble, happen, happenings, plan, seen, simulate};

fn demo(rest: &str) -> MachineName {
    format!("demo-{rest}").parse().unwrap()
}

/// What may interfere with a world after each pass.
type Meddle<'a> = &'a mut dyn FnMut(&mut Observed);

/// Runs until nothing moves any more, and returns what was done, in order.
fn run(spec: &ClusterSpec, world: &mut Observed, meddle: Meddle<'_>) -> Vec<Action> {
    look(spec, world);
    let mut done = vec![];
    for _ in 0..600 {
        let next = plan(spec, &seen(world), now());
        let before = world.clone();
        for action in next.actions {
            let unchanged = world.clone();
            if simulate(spec, world, &action, now()).is_ok() && *world != unchanged {
                done.push(action);
            }
        }
        meddle(world);
        for happening in happenings(world) {
            happen(world, &happening, now());
            meddle(world);
        }
        if *world != before {
            continue;
        }
        match next.requeue.filter(|pause| !pause.is_zero()) {
            Some(pause) if pause.as_secs() < 3600 => *world = older(world, SignedDuration::try_from(pause).unwrap()),
            _ => return done,
        }
    }
    panic!("no rest: {:#?}", plan(spec, &seen(world), now()));
}

fn run_alone(spec: &ClusterSpec, world: &mut Observed) -> Vec<Action> {
    run(spec, world, &mut |_| {})
}

const PARTS: [Part; 4] = [Part::Etcd, Part::ApiServer, Part::Controllers, Part::Node];

/// `machine: parts`, in the order in which they were told.
fn told(done: &[Action]) -> Vec<String> {
    let one = |action: &Action| match action {
        Action::SetVersions { machine, from, to, .. } => {
            let parts: Vec<String> = PARTS.into_iter().filter(|p| from.differs(*p, to)).map(|p| format!("{p:?}")).collect();
            Some(format!("{} {}", machine.as_str().trim_start_matches("demo-"), parts.join("+")))
        }
        _ => None,
    };
    done.iter().filter_map(one).collect()
}

fn position(done: &[Action], of: impl Fn(&Action) -> bool) -> usize {
    done.iter().position(of).unwrap_or_else(|| panic!("not done: {done:#?}"))
}

fn waits(spec: &ClusterSpec, world: &Observed) -> Vec<(Reason, String)> {
    plan(spec, &seen(world), now()).waits.into_iter().map(|w| (w.reason, w.to_string())).collect()
}

fn says(spec: &ClusterSpec, world: &Observed, reason: Reason) -> String {
    let all = waits(spec, world);
    all.iter().find(|(r, _)| *r == reason).map(|(_, text)| text.clone()).unwrap_or_else(|| panic!("no {reason}: {all:#?}"))
}

fn leader(world: &Observed) -> String {
    world.etcd.known().unwrap().leader().unwrap().name.trim_start_matches("demo-").to_owned()
}

fn versions_of(world: &Observed, machine: &str) -> MachineVersions {
    records(world).iter().find(|m| m.name == demo(machine)).unwrap().versions
}

fn all_at(spec: &ClusterSpec, world: &Observed) -> bool {
    records(world).iter().all(|m| match m.is_control_plane() {
        true => m.versions == spec.control_plane.versions,
        false => spec.pools.iter().any(|p| p.name == m.pool && p.versions == m.versions),
    })
}

/// Whenever a machine is given `poison`, it cannot make it real.
fn poisoned(poison: &'static str, machine: &'static str) -> impl FnMut(&mut Observed) {
    move |world: &mut Observed| {
        let Some(AgentFacts::Heard(state)) = world.agents.get_mut(&demo(machine)) else { return };
        let given = state.accepted.as_ref().is_some_and(|d| d.0.contains(poison));
        if given && state.applied != state.accepted && state.trouble.is_none() {
            state.trouble = Some(Trouble { message: "the unit does not start".into(), since: now() });
        }
    }
}
