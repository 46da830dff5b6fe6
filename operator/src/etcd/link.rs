//! The task that keeps one cluster's picture of etcd, and the door through which effects ask afresh.
//!
//! While something goes on with the control plane the members are asked every second, otherwise three times a minute: three statuses and one read, over
//! connections that stay open. What an agent says about its etcd is a reason to ask at once.

use super::survey::{self, Reports, Since};
use super::{CLIENT_PORT, Etcd, EtcdError, EtcdIdentity};
use crate::agents::Agent;
use crate::bell::Bell;
use crate::clock;
use futures::future::join_all;
use slipway_model::MachineName;
use slipway_plan::{EtcdFacts, Fact, MemberId};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How often members are asked while something goes on.
const BUSY: Duration = Duration::from_secs(1);
/// How often they are asked otherwise.
const SETTLED: Duration = Duration::from_secs(20);
/// How long opening the way to one member may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How closely it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Something goes on with the control plane.
    Busy,
    /// Nothing does.
    Settled,
}

/// A machine of the control plane.
#[derive(Clone)]
pub struct MemberHost {
    /// Its address.
    pub address: Ipv4Addr,
    /// The connection to its agent, where that answers. Where it does not, another machine's agent leads there.
    pub agent: Option<Arc<dyn Agent>>,
}

/// What is asked, and how.
struct Wanted {
    hosts: BTreeMap<MachineName, MemberHost>,
    identity: EtcdIdentity,
    pace: Pace,
    /// What agents say about their etcd: another word is a reason to ask.
    words: String,
}

/// Connections to members, and what is remembered of them.
#[derive(Default)]
struct Open {
    members: BTreeMap<MachineName, Arc<dyn Etcd>>,
    since: Since,
    /// Which other agent leads to a machine whose own is silent: another one each time.
    turn: usize,
}

struct Shared {
    wanted: Mutex<Wanted>,
    open: tokio::sync::Mutex<Open>,
    picture: Mutex<Fact<EtcdFacts>>,
    poke: Notify,
    bell: Arc<Bell>,
}

/// A link. Dropping it closes every connection.
pub struct EtcdLink {
    door: EtcdDoor,
    task: JoinHandle<()>,
}

impl Drop for EtcdLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// For effects: outlives the link by as long as an effect runs.
#[derive(Clone)]
pub struct EtcdDoor(Arc<Shared>);

/// What was seen just now, and who can be told to change it.
pub struct Look {
    /// The membership, no older than the call.
    pub facts: EtcdFacts,
    members: BTreeMap<MemberId, Arc<dyn Etcd>>,
}

impl Look {
    /// A member, if it answered.
    pub fn member(&self, id: MemberId) -> Option<&Arc<dyn Etcd>> {
        self.members.get(&id)
    }

    /// A voter that answers, the leader before all others, and never this one.
    pub fn voter_besides(&self, id: Option<MemberId>) -> Option<&Arc<dyn Etcd>> {
        let mut able: Vec<_> =
            self.facts.voters().filter(|m| Some(m.id) != id).filter_map(|m| Some((m.status.known()?.leader, m.id))).collect();
        able.sort_by_key(|(leader, id)| (!leader, *id));
        able.into_iter().find_map(|(_, id)| self.members.get(&id))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl EtcdLink ===

impl EtcdLink {
    /// Begins to look. `bell` rings when the picture changes.
    #[must_use]
    pub fn open(identity: EtcdIdentity, bell: Arc<Bell>) -> Self {
        let shared = Arc::new(Shared {
            wanted: Mutex::new(Wanted { hosts: BTreeMap::new(), identity, pace: Pace::Busy, words: String::new() }),
            open: tokio::sync::Mutex::default(),
            picture: Mutex::new(Fact::unknown("its members were not asked yet", clock::now())),
            poke: Notify::new(),
            bell,
        });
        let task = tokio::spawn(follow(shared.clone()));
        Self { door: EtcdDoor(shared), task }
    }

    /// For effects.
    #[must_use]
    pub fn door(&self) -> EtcdDoor {
        self.door.clone()
    }

    /// The picture, as it is now.
    #[must_use]
    pub fn picture(&self) -> Fact<EtcdFacts> {
        lock(&self.door.0.picture).clone()
    }

    /// Whom to ask from now on, and how often. `words`: what agents say about their etcd.
    pub fn attend(&self, hosts: BTreeMap<MachineName, MemberHost>, pace: Pace, words: String) {
        let mut wanted = lock(&self.door.0.wanted);
        let news = wanted.words != words || (wanted.pace, pace) == (Pace::Settled, Pace::Busy) || !wanted.hosts.keys().eq(hosts.keys());
        (wanted.hosts, wanted.pace, wanted.words) = (hosts, pace, words);
        drop(wanted);
        if news {
            self.door.0.poke.notify_one();
        }
    }
}

async fn follow(shared: Arc<Shared>) {
    loop {
        // Its failure is in the picture.
        let _ = look(&shared).await;
        let pause = match lock(&shared.wanted).pace {
            Pace::Busy => BUSY,
            Pace::Settled => SETTLED,
        };
        let _ = tokio::time::timeout(pause, shared.poke.notified()).await;
    }
}

// === impl EtcdDoor ===

impl EtcdDoor {
    /// Asks all members now. Passes see the same from then on.
    pub async fn look(&self) -> Result<Look, EtcdError> {
        look(&self.0).await
    }
}

/// One look. They come one after the other, so that an older one never takes a newer one's place.
async fn look(shared: &Shared) -> Result<Look, EtcdError> {
    let mut open = shared.open.lock().await;
    let (hosts, identity) = {
        let wanted = lock(&shared.wanted);
        (wanted.hosts.clone(), wanted.identity.clone())
    };
    let seen = see(&mut open, &hosts, &identity).await;
    shared.note(seen.as_ref().map(|look| look.facts.clone()).map_err(ToString::to_string));
    seen
}

async fn see(open: &mut Open, hosts: &BTreeMap<MachineName, MemberHost>, identity: &EtcdIdentity) -> Result<Look, EtcdError> {
    open.members.retain(|machine, _| hosts.contains_key(machine));
    open.turn = open.turn.wrapping_add(1);
    let (known, turn) = (open.members.clone(), open.turn);
    let asked =
        join_all(hosts.keys().map(async |machine| (machine.clone(), ask(machine, known.get(machine), hosts, identity, turn).await))).await;
    let mut reports = Reports::new();
    open.members.clear();
    for (machine, answer) in asked {
        let report = answer.map(|(member, report)| {
            open.members.insert(machine.clone(), member);
            report
        });
        reports.insert(machine, report);
    }
    let mut why = "its agents cannot be reached".to_owned();
    for error in reports.values().filter_map(|r| r.as_ref().err()) {
        why = error.to_string();
    }
    for machine in survey::to_be_asked(&reports) {
        let Some(member) = open.members.get(&machine) else { continue };
        match member.members().await {
            Ok(list) => {
                let facts = survey::facts(&list, &reports, &mut open.since, clock::now()).map_err(EtcdError::NoQuorum)?;
                let by_id =
                    |(machine, member): (&MachineName, &Arc<dyn Etcd>)| Some((reports.get(machine)?.as_ref().ok()?.id, member.clone()));
                return Ok(Look { facts, members: open.members.iter().filter_map(by_id).collect() });
            }
            Err(error) => why = error.to_string(),
        }
    }
    Err(EtcdError::NoQuorum(why))
}

/// A member's report, over the connection that is open or, where that is broken, over a new one.
async fn ask(
    machine: &MachineName,
    known: Option<&Arc<dyn Etcd>>,
    hosts: &BTreeMap<MachineName, MemberHost>,
    identity: &EtcdIdentity,
    turn: usize,
) -> Result<(Arc<dyn Etcd>, super::Report), EtcdError> {
    if let Some(member) = known
        && let Ok(report) = member.report().await
    {
        return Ok((member.clone(), report));
    }
    let member = reach(machine, hosts, identity, turn).await?;
    let report = member.report().await?;
    Ok((member, report))
}

/// Through the machine's own agent; where that is silent or leads nowhere, through another one's.
async fn reach(
    machine: &MachineName,
    hosts: &BTreeMap<MachineName, MemberHost>,
    identity: &EtcdIdentity,
    turn: usize,
) -> Result<Arc<dyn Etcd>, EtcdError> {
    let silent = |why: String| EtcdError::Silent { machine: machine.clone(), why };
    let Some(host) = hosts.get(machine) else { return Err(silent("it has no machine".to_owned())) };
    let through =
        async |agent: &Arc<dyn Agent>, target: String| match tokio::time::timeout(PATIENCE, agent.etcd(&target, machine, identity)).await {
            Ok(member) => member,
            Err(_) => Err(silent(format!("no way to {target} within {PATIENCE:?}"))),
        };
    if let Some(agent) = &host.agent {
        return through(agent, format!("127.0.0.1:{CLIENT_PORT}")).await;
    }
    let others: Vec<_> = hosts.iter().filter(|(other, _)| *other != machine).filter_map(|(_, h)| h.agent.as_ref()).collect();
    match others.get(turn.checked_rem(others.len()).unwrap_or(0)) {
        Some(agent) => through(agent, format!("{}:{CLIENT_PORT}", host.address)).await,
        None => Err(silent("neither its own agent nor another one leads to it".to_owned())),
    }
}

// === impl Shared ===

impl Shared {
    fn note(&self, seen: Result<EtcdFacts, String>) {
        let mut picture = lock(&self.picture);
        let new = match (&*picture, seen) {
            (_, Ok(facts)) => Fact::Known(facts),
            (Fact::Unknown { since, .. }, Err(why)) => Fact::unknown(why, *since),
            (Fact::Known(_), Err(why)) => Fact::unknown(why, clock::now()),
        };
        let news = facts_of(&new) != facts_of(&picture);
        *picture = new;
        drop(picture);
        if news {
            self.bell.fact();
        }
    }
}

/// A picture without what changes no plan: sizes, and what is only for people to read.
fn facts_of(picture: &Fact<EtcdFacts>) -> Option<EtcdFacts> {
    let mut facts = picture.known().cloned()?;
    for member in &mut facts.members {
        match &mut member.status {
            Fact::Known(status) => status.db_bytes = 0,
            Fact::Unknown { why, .. } => why.clear(),
        }
    }
    Some(facts)
}
