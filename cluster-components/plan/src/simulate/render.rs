//! Stands for rendering: what a machine is told has a digest as soon as all that it is made of is known, and the digest says in words what that is.

use crate::simulate::record;
use crate::{AgentFacts, AgentState, Certificates, Fact, MachineRecord, Observed};
use slipway_model::{ControlPlaneVersions, MachineName, MachineVersions, NodeVersions, PlanDigest};

/// Gives every machine its digest that can have one and has none yet.
pub(crate) fn render(world: &mut Observed) {
    let Fact::Known(machines) = &world.machines else { return };
    world.wanted.retain(|name, _| machines.iter().any(|m| m.name == *name));
    let missing: Vec<MachineName> = machines.iter().map(|m| m.name.clone()).filter(|n| !world.wanted.contains_key(n)).collect();
    missing.iter().for_each(|name| again(world, name));
}

/// Renders a machine anew, after something that it is made of has changed.
pub(super) fn again(world: &mut Observed, name: &MachineName) {
    let own = world.wanted.get(name);
    // All are rendered alike; certificates are each one's own.
    let of_all = || world.wanted.values().find_map(|digest| part(digest, RENDERING));
    let rendering = own.map_or_else(of_all, |digest| part(digest, RENDERING)).map(str::to_owned);
    let renewed = own.is_some_and(|digest| part(digest, RENEWED).is_some());
    write(world, name, rendering.as_deref(), renewed);
}

/// Renders every machine anew, from something that no record says: a proxy mode, or what a newer operator does otherwise. For exploration.
pub(super) fn all_otherwise(world: &mut Observed, rendering: Option<&str>) {
    let names: Vec<MachineName> = world.wanted.keys().cloned().collect();
    for name in names {
        let renewed = world.wanted.get(&name).is_some_and(|digest| part(digest, RENEWED).is_some());
        write(world, &name, rendering, renewed);
    }
}

/// Renders a machine with other certificates than before.
pub(super) fn renew(world: &mut Observed, name: &MachineName) {
    let Some(own) = world.wanted.get(name) else { return };
    let (rendering, renewed) = (part(own, RENDERING).map(str::to_owned), part(own, RENEWED).is_some());
    write(world, name, rendering.as_deref(), !renewed);
}

/// Of a digest that was made here: what it was rendered from beside its record.
const RENDERING: &str = "rendering ";
/// See [`RENDERING`]: its certificates were renewed an odd number of times.
const RENEWED: &str = "renewed";

fn part<'w>(digest: &'w PlanDigest, what: &str) -> Option<&'w str> {
    digest.0.split(", ").find_map(|part| part.strip_prefix(what))
}

fn write(world: &mut Observed, name: &MachineName, rendering: Option<&str>, renewed: bool) {
    let Some(machine) = record(world, name).filter(|m| can_be_rendered(world, m)) else { return };
    let joined = machine.join.as_ref().map(|j| format!(", member {} of {}", j.member, j.members.len())).unwrap_or_default();
    let retiring = if machine.retiring { ", retiring" } else { "" };
    let rendering = rendering.map(|r| format!(", {RENDERING}{r}")).unwrap_or_default();
    let renewed = if renewed { format!(", {RENEWED}") } else { String::new() };
    let digest = PlanDigest(format!("configuration of {name}: {}{joined}{retiring}{rendering}{renewed}", machine.versions));
    world.wanted.insert(name.clone(), digest);
}

fn can_be_rendered(world: &Observed, machine: &MachineRecord) -> bool {
    let (Fact::Known(machines), Fact::Known(secrets)) = (&world.machines, &world.secrets) else { return false };
    let made_of = secrets.pki && secrets.of(&machine.name).certificates != Certificates::Missing && world.cluster.endpoint.is_some();
    let founders = &world.cluster.founders;
    let addressed = |name: &MachineName| machines.iter().any(|m| m.name == *name && m.instance.is_some());
    // Later on a founder is rendered from what was recorded of all of them.
    let founded = founders.contains(&machine.name) && (world.cluster.bootstrapped || founders.iter().all(addressed));
    made_of && (!machine.is_control_plane() || founded || machine.join.is_some())
}

/// What a machine said of itself last, heard or not.
pub(super) fn state<'w>(world: &'w Observed, machine: &MachineName) -> Option<&'w AgentState> {
    match world.agents.get(machine)? {
        AgentFacts::Heard(state) | AgentFacts::Silent { last: Some(state), .. } => Some(state),
        AgentFacts::Silent { last: None, .. } | AgentFacts::Answering => None,
    }
}

/// Whether etcd goes on while a configuration is made real: of all that is told, only what etcd is made of counts.
pub(super) fn keeps_etcd(state: &AgentState) -> bool {
    let others = ["kube-apiserver ", "controllers ", "kubelet ", "containerd ", "retiring"];
    let of_etcd = |digest: &PlanDigest| -> Vec<String> {
        digest
            .0
            .split(", ")
            .map(|p| p.rsplit(": ").next().unwrap_or(p))
            .filter(|p| !others.iter().any(|o| p.starts_with(o)))
            .map(str::to_owned)
            .collect()
    };
    match (&state.applied, &state.accepted) {
        (Some(applied), Some(accepted)) => applied == accepted || of_etcd(applied) == of_etcd(accepted),
        (None, _) | (_, None) => false,
    }
}

/// Whether what it made real is the configuration of a machine that retires.
pub(super) fn has_retired(state: &AgentState) -> bool {
    state.applied.as_ref().is_some_and(|digest| digest.0.contains(", retiring"))
}

/// What a machine runs, all of it made real.
pub(crate) fn running(world: &Observed, machine: &MachineName) -> Option<MachineVersions> {
    meaning(world, machine, state(world, machine)?.applied.as_ref()?)
}

/// What may run on a machine: what it made real, and what it is making real.
pub(super) fn may_run(world: &Observed, machine: &MachineName) -> Vec<MachineVersions> {
    let Some(state) = state(world, machine) else { return vec![] };
    let digests = state.applied.iter().chain(state.accepted.iter().filter(|a| Some(*a) != state.applied.as_ref()));
    digests.filter_map(|digest| meaning(world, machine, digest)).collect()
}

/// The versions that a digest stands for. One that was not made here (a forecast begins with a real one) stands for what the record says, or said before.
fn meaning(world: &Observed, machine: &MachineName, digest: &PlanDigest) -> Option<MachineVersions> {
    parse(&digest.0).or_else(|| {
        let record = record(world, machine)?;
        let is_wanted = world.wanted.get(machine) == Some(digest);
        let before = record.changed.as_ref().map(|c| c.from).filter(|_| !is_wanted);
        Some(before.unwrap_or(record.versions))
    })
}

/// Reads [`MachineVersions`] as they are displayed.
fn parse(digest: &str) -> Option<MachineVersions> {
    let (_, told) = digest.split_once(": ")?;
    let of = |what: &str| told.split(", ").find_map(|part| part.strip_prefix(what)).map(str::trim);
    let node = NodeVersions { kubelet: of("kubelet ")?.parse().ok()?, containerd: of("containerd ")?.parse().ok()? };
    let control_plane = match of("etcd ") {
        Some(etcd) => Some(ControlPlaneVersions {
            etcd: etcd.parse().ok()?,
            api_server: of("kube-apiserver ")?.parse().ok()?,
            controllers: of("controllers ")?.parse().ok()?,
        }),
        None => None,
    };
    Some(MachineVersions { control_plane, node })
}
