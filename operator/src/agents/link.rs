//! The connection tasks.

use super::dial::{Agent, Agents};
use crate::bell::Bell;
use crate::clock;
use futures::StreamExt;
use jiff::Timestamp;
use slipway_agent_api::{AgentError, OperatorIdentity, v1};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between tries at a machine that boots: it is seen the moment it listens.
const RETRY: Duration = Duration::from_millis(100);
/// Between tries at one that has been silent for half a minute.
const RETRY_SILENT: Duration = Duration::from_secs(1);
/// Between looks at one that answers and is not claimed yet: it may reboot.
const GREETED: Duration = Duration::from_secs(5);
/// When the pace changes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a machine's agent is, and how to talk to it.
#[derive(Clone)]
pub struct Peer {
    /// The agent's address.
    pub address: SocketAddr,
    /// The operator's certificates, once the agent is claimed.
    pub identity: Option<Arc<OperatorIdentity>>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.identity, &other.identity) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same && self.address == other.address
    }
}

/// An agent's last word.
#[derive(Debug, Clone, PartialEq)]
pub enum Hearing {
    /// Not reached.
    Silent {
        /// Since when.
        since: Timestamp,
        /// The last error.
        why: String,
        /// What it said before.
        last: Option<Box<v1::MachineState>>,
    },
    /// An unclaimed agent answers.
    Greeted {
        /// Since when.
        since: Timestamp,
    },
    /// A claimed agent speaks.
    Speaking {
        /// Its whole state.
        state: Box<v1::MachineState>,
        /// When it last said something.
        as_of: Timestamp,
    },
}

struct Shared {
    hearing: Mutex<Hearing>,
    connection: Mutex<Option<Arc<dyn Agent>>>,
    bell: Arc<Bell>,
}

struct Link {
    peer: Peer,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One cluster's links, by the machine's UID. Dropping it ends them all.
#[derive(Default)]
pub struct AgentPool {
    links: BTreeMap<String, Link>,
}

impl AgentPool {
    /// Holds exactly these links: opens new ones, closes those that are not wanted any more, opens anew those whose peer is another.
    pub fn hold(&mut self, wanted: BTreeMap<String, Peer>, agents: &Arc<dyn Agents>, bell: &Arc<Bell>) {
        self.links.retain(|uid, link| {
            // A task that ended without being told to has panicked: it is begun anew.
            wanted.get(uid).is_some_and(|peer| *peer == link.peer) && !link.task.is_finished()
        });
        for (uid, peer) in wanted {
            self.links.entry(uid.clone()).or_insert_with(|| Link::open(uid, peer, agents.clone(), bell.clone()));
        }
    }

    /// Every agent's last word, by the machine's UID.
    #[must_use]
    pub fn hearings(&self) -> BTreeMap<String, Hearing> {
        self.links.iter().map(|(uid, link)| (uid.clone(), lock(&link.shared.hearing).clone())).collect()
    }

    /// The open connections to claimed agents.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<String, Arc<dyn Agent>> {
        self.links.iter().filter_map(|(uid, link)| Some((uid.clone(), lock(&link.shared.connection).clone()?))).collect()
    }
}

impl Link {
    fn open(uid: String, peer: Peer, agents: Arc<dyn Agents>, bell: Arc<Bell>) -> Self {
        let silent = Hearing::Silent { since: clock::now(), why: "not dialled yet".to_owned(), last: None };
        let shared = Arc::new(Shared { hearing: Mutex::new(silent), connection: Mutex::default(), bell });
        let task = match peer.identity.clone() {
            Some(identity) => tokio::spawn(listen(uid, peer.address, identity, agents, shared.clone())),
            None => tokio::spawn(greet(uid, peer.address, agents, shared.clone())),
        };
        Self { peer, shared, task }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pace(begin: Instant) -> Duration {
    if begin.elapsed() > PATIENCE { RETRY_SILENT } else { RETRY }
}

/// Dials until an unclaimed agent answers, and goes on looking: it may reboot before it is claimed.
async fn greet(uid: String, address: SocketAddr, agents: Arc<dyn Agents>, shared: Arc<Shared>) {
    let begin = Instant::now();
    loop {
        let error = match agents.greet(address).await {
            // A burnt token: an earlier claim came so far that only our record of it is missing. Claiming again finds that out, over mTLS.
            Ok(info) if info.machine_uid == uid => None,
            Err(AgentError::AlreadyClaimed { .. }) => None,
            Ok(info) => {
                let why = format!("it is the agent of machine {}, and {uid} is meant", info.machine_uid);
                Some(AgentError::WrongIdentity { peer: address.to_string(), why })
            }
            Err(error) => Some(error),
        };
        match error {
            None => {
                shared.greeted();
                tokio::time::sleep(GREETED).await;
            }
            Some(error) => {
                shared.silent(&error);
                tokio::time::sleep(pace(begin)).await;
            }
        }
    }
}

/// Holds a Watch stream open.
async fn listen(uid: String, address: SocketAddr, identity: Arc<OperatorIdentity>, agents: Arc<dyn Agents>, shared: Arc<Shared>) {
    let mut quiet_since = Instant::now();
    loop {
        let error = match follow(&uid, address, &identity, &agents, &shared, &mut quiet_since).await {
            Ok(()) => AgentError::Unreachable { peer: address.to_string(), why: "the stream ended".to_owned() },
            Err(error) => error,
        };
        *lock(&shared.connection) = None;
        shared.silent(&error);
        tokio::time::sleep(pace(quiet_since)).await;
    }
}

async fn follow(
    uid: &str,
    address: SocketAddr,
    identity: &OperatorIdentity,
    agents: &Arc<dyn Agents>,
    shared: &Shared,
    quiet_since: &mut Instant,
) -> Result<(), AgentError> {
    let agent = agents.connect(address, uid, identity).await?;
    let mut states = agent.watch().await?;
    *lock(&shared.connection) = Some(agent);
    while let Some(state) = states.next().await {
        *quiet_since = Instant::now();
        shared.spoke(state?);
    }
    Ok(())
}

impl Shared {
    fn silent(&self, error: &AgentError) {
        let mut hearing = lock(&self.hearing);
        let (since, last, news) = match &*hearing {
            Hearing::Silent { since, last, .. } => (*since, last.clone(), false),
            Hearing::Greeted { .. } => (clock::now(), None, true),
            Hearing::Speaking { state, .. } => (clock::now(), Some(state.clone()), true),
        };
        *hearing = Hearing::Silent { since, why: error.to_string(), last };
        drop(hearing);
        if news {
            self.bell.fact();
        }
    }

    fn greeted(&self) {
        let mut hearing = lock(&self.hearing);
        if !matches!(*hearing, Hearing::Greeted { .. }) {
            *hearing = Hearing::Greeted { since: clock::now() };
            drop(hearing);
            self.bell.fact();
        }
    }

    fn spoke(&self, state: v1::MachineState) {
        let mut hearing = lock(&self.hearing);
        let before = match &*hearing {
            Hearing::Speaking { state, .. } => Some((facts_of(state), words_of(state))),
            Hearing::Silent { .. } | Hearing::Greeted { .. } => None,
        };
        let (facts, words) = (facts_of(&state), words_of(&state));
        *hearing = Hearing::Speaking { state: Box::new(state), as_of: clock::now() };
        drop(hearing);
        match before {
            Some((known, _)) if known != facts => self.bell.fact(),
            None => self.bell.fact(),
            Some((_, known)) if known != words => self.bell.word(),
            // A disk's free bytes, a sign of life: of a settled cluster nobody has to look because of it.
            Some(_) => {}
        }
    }
}

/// A state without what changes no plan.
fn facts_of(state: &v1::MachineState) -> v1::MachineState {
    let mut facts = words_of(state);
    facts.applying.clear();
    for probe in &mut facts.probes {
        probe.message.clear();
    }
    facts
}

/// A state as far as a report tells it.
fn words_of(state: &v1::MachineState) -> v1::MachineState {
    let mut words = state.clone();
    (words.disk_free_bytes, words.disk_total_bytes, words.epoch) = (0, 0, 0);
    for probe in &mut words.probes {
        probe.since_ms = 0;
    }
    for unit in &mut words.units {
        // `auto-restart` is told by the number of restarts.
        unit.sub_state.clear();
        unit.since_ms = 0;
    }
    words
}
