//! The plan while it is being made: what every rule reads and what it adds to.

use crate::{
    Action, ActionKey, AgentFacts, AgentState, CloudFacts, Decision, EtcdFacts, Fact, InstanceFacts, InstanceState, MachineRecord,
    NodeFacts, Observed, Plan, Reason, Removal, SecretFacts, Wait, conditions,
};
use jiff::{SignedDuration, Timestamp};
use slipway_model::{ClusterSpec, MachineName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an agent may be silent before its worker can be dead (a second witness has to agree).
pub const DEAD_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// How long a machine may take from being made to its agent's first answer before it counts as dead.
pub const BOOT_TIMEOUT: SignedDuration = SignedDuration::from_mins(10);
/// When to look again at what could not be seen.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A cluster's control-plane probes, named like their components.
pub const PROBE_ETCD: &str = "etcd";
/// See [`PROBE_ETCD`].
pub const PROBE_API_SERVER: &str = "kube-apiserver";

/// What is being planned.
pub(crate) struct Draft<'a> {
    pub spec: &'a ClusterSpec,
    pub observed: &'a Observed,
    pub now: Timestamp,
    actions: BTreeSet<Action>,
    waits: BTreeSet<Wait>,
    because: BTreeMap<ActionKey, String>,
    look_at: Option<Timestamp>,
    taken: BTreeSet<MachineName>,
    /// More control planes than the spec's replicas, while some are replaced because they are outdated. The rollout says so before
    /// `control_plane::members` is called.
    pub surge: u32,
    /// This plan changes etcd's membership: then no other control plane is disturbed by it.
    pub membership_changes: bool,
}

impl<'a> Draft<'a> {
    pub fn new(spec: &'a ClusterSpec, observed: &'a Observed, now: Timestamp) -> Self {
        Self {
            spec,
            observed,
            now,
            actions: BTreeSet::new(),
            waits: BTreeSet::new(),
            because: BTreeMap::new(),
            look_at: None,
            taken: BTreeSet::new(),
            surge: 0,
            membership_changes: false,
        }
    }

    // === what is to be done ===

    /// Starts an action now, unless it failed lately and is left alone for a while. Its failure is told in any case, so that a message does not come
    /// and go with each try.
    pub fn start(&mut self, action: Action) {
        let Some(failure) = self.observed.failures.get(&action.key()) else {
            self.actions.insert(action);
            return;
        };
        let reason = if matches!(action, Action::Evict { .. }) { Reason::EvictionBlocked } else { Reason::ActionFailing };
        self.waits.insert(Wait {
            machine: action.machine().cloned(),
            reason,
            what: format!("the next try to {action} ({} failed)", failure.attempts),
            since: failure.since,
            last_error: Some(failure.error.clone()),
            next_try: Some(failure.next_try),
        });
        if failure.next_try <= self.now {
            self.actions.insert(action);
        } else {
            self.look_at(failure.next_try);
        }
    }

    /// Starts an action and says why it was chosen.
    pub fn decide(&mut self, action: Action, because: impl Into<String>) {
        self.because.insert(action.key(), because.into());
        self.start(action);
    }

    /// Notes a wait of the cluster itself.
    pub fn wait(&mut self, reason: Reason, what: impl Into<String>, since: Timestamp) {
        self.waits.insert(Wait { machine: None, reason, what: what.into(), since, last_error: None, next_try: None });
    }

    /// Notes a wait on a machine.
    pub fn wait_on(&mut self, machine: &MachineName, reason: Reason, what: impl Into<String>, since: Timestamp) {
        self.waits.insert(Wait { machine: Some(machine.clone()), reason, what: what.into(), since, last_error: None, next_try: None });
    }

    /// Notes a wait on a machine with the last thing heard of it.
    pub fn wait_after(&mut self, machine: &MachineName, reason: Reason, what: impl Into<String>, since: Timestamp, error: &str) {
        let last_error = Some(error.to_owned()).filter(|e| !e.is_empty());
        self.waits.insert(Wait { machine: Some(machine.clone()), reason, what: what.into(), since, last_error, next_try: None });
    }

    /// Looks again at this time at the latest.
    pub fn look_at(&mut self, at: Timestamp) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }

    /// The value, or a wait that says why it is not known.
    fn see<T>(&mut self, part: &'static str, fact: &'a Fact<T>) -> Option<&'a T> {
        match fact {
            Fact::Known(value) => Some(value),
            Fact::Unknown { why, since } => {
                self.waits.insert(Wait {
                    machine: None,
                    reason: Reason::CannotObserve,
                    what: format!("{part} to be seen again"),
                    since: *since,
                    last_error: Some(why.clone()),
                    next_try: None,
                });
                None
            }
        }
    }

    /// The cloud's inventory, or a wait.
    pub fn cloud(&mut self) -> Option<&'a CloudFacts> {
        self.see("the cloud's inventory", &self.observed.cloud)
    }

    /// The Machine records, or a wait.
    pub fn machines(&mut self) -> Option<&'a [MachineRecord]> {
        self.see("the Machine objects", &self.observed.machines).map(Vec::as_slice)
    }

    /// The Secrets, or a wait.
    pub fn secrets(&mut self) -> Option<&'a SecretFacts> {
        self.see("the cluster's Secrets", &self.observed.secrets)
    }

    /// etcd's members, or a wait.
    pub fn etcd(&mut self) -> Option<&'a EtcdFacts> {
        self.see("etcd's members", &self.observed.etcd)
    }

    /// The NodePool records, or a wait.
    pub fn pools(&mut self) -> Option<&'a [crate::PoolRecord]> {
        self.see("the NodePool objects", &self.observed.pools).map(Vec::as_slice)
    }

    /// The Nodes, or a wait. Before etcd ever had a quorum there are none that could matter: nobody was given a kubeconfig.
    pub fn nodes(&mut self) -> Option<&'a [NodeFacts]> {
        if !self.observed.cluster.bootstrapped {
            return Some(&[]);
        }
        match &self.observed.nodes {
            Fact::Known(nodes) => Some(nodes),
            Fact::Unknown { why, since } => {
                self.waits.insert(Wait {
                    machine: None,
                    reason: Reason::WaitingForApi,
                    what: "the cluster's API to answer".into(),
                    since: *since,
                    last_error: Some(why.clone()),
                    next_try: None,
                });
                None
            }
        }
    }

    // === what is, without a wait where it is unknown ===

    /// The Machine records, if known.
    pub fn records(&self) -> &'a [MachineRecord] {
        self.observed.machines.known().map_or(&[], Vec::as_slice)
    }

    /// A machine's instance, if the inventory is known and has it.
    pub fn instance(&self, machine: &MachineRecord) -> Option<&'a InstanceFacts> {
        self.observed.cloud.known().and_then(|cloud| cloud.instance(machine))
    }

    /// What is heard from a machine's agent now.
    pub fn heard(&self, machine: &MachineName) -> Option<&'a AgentState> {
        self.observed.agents.get(machine).and_then(AgentFacts::heard)
    }

    /// A machine's Node, if Nodes are known and it is there.
    pub fn node(&self, machine: &MachineName) -> Option<&'a NodeFacts> {
        self.observed.nodes.known().and_then(|nodes| nodes.iter().find(|n| n.machine.as_ref() == Some(machine)))
    }

    /// Whether a recorded machine's instance is certainly gone.
    pub fn is_gone(&self, machine: &MachineRecord) -> bool {
        machine.instance.is_some()
            && self.observed.cloud.known().is_some_and(|cloud| cloud.instance(machine).is_none_or(|i| i.state == InstanceState::Deleting))
    }

    /// Control-plane machines that are not being taken away.
    pub fn control_planes(&self) -> impl Iterator<Item = &'a MachineRecord> + use<'a> {
        self.records().iter().filter(|m| m.is_control_plane() && m.deleting.is_none())
    }

    /// Control-plane machines that are being taken away.
    pub fn leaving_control_planes(&self) -> impl Iterator<Item = &'a MachineRecord> + use<'a> {
        self.records().iter().filter(|m| m.is_control_plane() && m.deleting.is_some())
    }

    /// Workers that are not being taken away.
    pub fn workers(&self) -> impl Iterator<Item = &'a MachineRecord> + use<'a> {
        self.records().iter().filter(|m| !m.is_control_plane() && m.deleting.is_none())
    }

    /// Takes a machine away (its finalizer keeps the record until it is gone).
    pub fn take_away(&mut self, machine: &MachineRecord, why: Removal) {
        self.taken.insert(machine.name.clone());
        self.start(Action::DeleteMachine { machine: machine.name.clone(), uid: machine.uid.clone(), why });
    }

    /// The same, and says why.
    pub fn take_away_because(&mut self, machine: &MachineRecord, why: Removal, because: impl Into<String>) {
        self.taken.insert(machine.name.clone());
        self.decide(Action::DeleteMachine { machine: machine.name.clone(), uid: machine.uid.clone(), why }, because);
    }

    /// Whether this very plan takes it away: then nothing else is begun on it.
    pub fn is_taken(&self, machine: &MachineName) -> bool {
        self.taken.contains(machine)
    }

    /// What this plan starts so far.
    pub fn planned(&self) -> impl Iterator<Item = &Action> {
        self.actions.iter()
    }

    /// The actions, and when time alone may bring others.
    pub fn into_outlook(self) -> (Vec<Action>, Option<Duration>) {
        let pause = self.look_at.map(|at| Duration::try_from(at.duration_since(self.now)).unwrap_or_default());
        (self.actions.into_iter().collect(), pause)
    }

    /// The plan.
    pub fn finish(mut self) -> Plan {
        if self.waits.iter().any(|w| matches!(w.reason, Reason::CannotObserve)) {
            self.look_at(self.now.checked_add(LOOK_AGAIN).unwrap_or(self.now));
        }
        let conditions = conditions::conditions(&self, &self.actions, &self.waits);
        let requeue = self.look_at.map(|at| Duration::try_from(at.duration_since(self.now)).unwrap_or_default());
        let decisions = self.because.into_iter().filter(|(key, _)| self.actions.iter().any(|a| a.key() == *key));
        let decisions = decisions.map(|(action, because)| Decision { action, because }).collect();
        Plan { actions: self.actions.into_iter().collect(), conditions, waits: self.waits.into_iter().collect(), decisions, requeue }
    }
}
