//! An etcd in memory that takes and refuses what the real one does: membership with learners, quorum, and a member's first start against its
//! `--initial-cluster` (etcd 3.6: `server/etcdserver/server.go`, `api/membership/cluster.go`).

use async_trait::async_trait;
use slipway_model::MachineName;
use slipway_operator::etcd::{Etcd, EtcdError, Listed, Report};
use slipway_plan::MemberId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// etcd's HealthInterval: for so long members must have been connected before they count for a change of the membership.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

struct Member {
    id: MemberId,
    /// Empty before its first start.
    name: String,
    peer_url: String,
    learner: bool,
    started: Instant,
}

#[derive(Default)]
struct World {
    members: Vec<Member>,
    leader: Option<MemberId>,
    term: u64,
    ids: u64,
    /// Machines whose etcd was started with `--initial-cluster-state=new`, and waits for the others of its list.
    founding: BTreeSet<String>,
    /// Machines whose etcd does not run.
    down: BTreeSet<String>,
    /// Leaders that went without handing over.
    elections: usize,
    calls: BTreeMap<&'static str, usize>,
    lose: usize,
}

/// The etcd of one cluster. Clones share it.
#[derive(Clone, Default)]
pub struct ValidatingEtcd(Arc<Mutex<World>>);

fn flag<'a>(plan: &'a str, flag: &str) -> Option<&'a str> {
    let rest = &plan[plan.find(flag)? + flag.len()..];
    rest.split(|c: char| c == '"' || c == '\\' || c.is_whitespace()).next()
}

impl World {
    fn answers(&self, member: &Member) -> bool {
        !member.name.is_empty() && !self.down.contains(&member.name)
    }

    /// It has answered for so long that etcd counts on it.
    fn steady(&self, member: &Member) -> bool {
        self.answers(member) && member.started.elapsed() >= HEALTH_INTERVAL
    }

    fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| !m.learner)
    }

    fn has_quorum(&self) -> bool {
        let voters = self.voters().count();
        voters > 0 && self.voters().filter(|m| self.answers(m)).count() > voters / 2
    }

    /// Whoever leads has to answer: the lowest id is elected.
    fn elect(&mut self) {
        let still = self.members.iter().any(|m| Some(m.id) == self.leader && !m.learner && self.answers(m));
        if !self.has_quorum() {
            self.leader = None;
        } else if !still {
            self.elections += usize::from(self.leader.is_some());
            self.term += 1;
            self.leader = self.voters().filter(|m| self.answers(m)).map(|m| m.id).min();
        }
    }

    fn add(&mut self, name: &str, peer_url: &str, learner: bool) -> MemberId {
        self.ids += 1;
        let id = MemberId(0x1000 + self.ids);
        self.members.push(Member { id, name: name.into(), peer_url: peer_url.into(), learner, started: Instant::now() });
        id
    }
}

impl ValidatingEtcd {
    /// A machine's etcd is started as its configuration says. Gives why it ends at once, if it does.
    pub fn start(&self, machine: &str, plan: &str) -> Result<(), String> {
        let mut world = self.0.lock().unwrap();
        let list = flag(plan, "--initial-cluster=").ok_or("no --initial-cluster")?;
        let initial: BTreeMap<&str, &str> = list.split(',').filter_map(|m| m.split_once('=')).collect();
        let own = *initial.get(machine).ok_or(format!("couldn't find local name {machine:?} in the initial cluster configuration"))?;
        if world.members.iter().any(|m| m.name == machine) {
            // It has its data: the flags are not even looked at.
            world.down.remove(machine);
            world.elect();
            return Ok(());
        }
        if flag(plan, "--initial-cluster-state=") == Some("new") {
            if !world.members.is_empty() {
                return Err("member has already been bootstrapped".into());
            }
            world.founding.insert(machine.to_owned());
            if initial.keys().all(|name| world.founding.contains(*name)) {
                for (name, url) in &initial {
                    world.add(name, url, false);
                }
                world.elect();
            }
            return Ok(());
        }
        if initial.len() != world.members.len() {
            return Err(format!("member count is unequal: {list} and {} members", world.members.len()));
        }
        if let Some(other) = world.members.iter().find(|m| !initial.values().any(|url| *url == m.peer_url)) {
            return Err(format!("unmatched member while checking PeerURLs: {}", other.peer_url));
        }
        let member = world.members.iter_mut().find(|m| m.peer_url == own).unwrap();
        member.name = machine.to_owned();
        member.started = Instant::now();
        world.down.remove(machine);
        world.elect();
        Ok(())
    }

    /// A machine's etcd ends, or runs again with the data it had.
    pub fn power(&self, machine: &str, runs: bool) {
        let mut world = self.0.lock().unwrap();
        if runs {
            world.down.remove(machine)
        } else {
            world.down.insert(machine.to_owned())
        };
        world.elect();
    }

    pub fn is_member(&self, machine: &str) -> bool {
        self.0.lock().unwrap().members.iter().any(|m| m.name == machine)
    }

    /// Whether a machine's etcd serves.
    pub fn serves(&self, machine: &str) -> bool {
        let world = self.0.lock().unwrap();
        world.has_quorum() && world.members.iter().any(|m| m.name == machine && world.answers(m))
    }

    pub fn has_quorum(&self) -> bool {
        self.0.lock().unwrap().has_quorum()
    }

    /// Names of the members that vote.
    pub fn voters(&self) -> Vec<String> {
        let mut names: Vec<String> = self.0.lock().unwrap().voters().map(|m| m.name.clone()).collect();
        names.sort();
        names
    }

    pub fn leader(&self) -> Option<String> {
        let world = self.0.lock().unwrap();
        world.members.iter().find(|m| Some(m.id) == world.leader).map(|m| m.name.clone())
    }

    pub fn elections(&self) -> usize {
        self.0.lock().unwrap().elections
    }

    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.0.lock().unwrap().calls.clone()
    }

    /// Carry out this many of the next changes and answer none of them.
    pub fn lose_answers(&self, n: usize) {
        self.0.lock().unwrap().lose = n;
    }

    /// The way to a machine's member.
    pub fn door(&self, machine: &MachineName) -> Result<Arc<dyn Etcd>, EtcdError> {
        let door = Door { machine: machine.clone(), etcd: self.clone() };
        let world = self.0.lock().unwrap();
        match world.members.iter().any(|m| m.name == machine.as_str() && world.answers(m)) {
            true => Ok(Arc::new(door)),
            false => Err(door.silent("connection refused")),
        }
    }
}

struct Door {
    machine: MachineName,
    etcd: ValidatingEtcd,
}

impl Door {
    fn silent(&self, why: &str) -> EtcdError {
        EtcdError::Silent { machine: self.machine.clone(), why: why.into() }
    }

    fn refused(&self, why: &str) -> EtcdError {
        EtcdError::Refused { machine: self.machine.clone(), why: format!("etcdserver: {why}") }
    }

    fn ask<T>(&self, act: impl FnOnce(&mut World, MemberId) -> Result<T, EtcdError>) -> Result<T, EtcdError> {
        let mut world = self.etcd.0.lock().unwrap();
        let own = world.members.iter().find(|m| m.name == self.machine.as_str() && world.answers(m)).map(|m| m.id);
        act(&mut world, own.ok_or_else(|| self.silent("connection reset"))?)
    }

    /// A change goes through the log: it needs a quorum, and its answer may be lost.
    fn change<T>(&self, call: &'static str, act: impl FnOnce(&mut World, MemberId) -> Result<T, EtcdError>) -> Result<T, EtcdError> {
        self.ask(|world, own| {
            *world.calls.entry(call).or_default() += 1;
            if !world.has_quorum() {
                return Err(self.silent("etcdserver: request timed out"));
            }
            let done = act(world, own)?;
            world.elect();
            if world.lose > 0 {
                world.lose -= 1;
                return Err(self.silent("the answer was lost"));
            }
            Ok(done)
        })
    }
}

#[async_trait]
impl Etcd for Door {
    async fn report(&self) -> Result<Report, EtcdError> {
        self.ask(|world, own| {
            *world.calls.entry("report").or_default() += 1;
            let member = world.members.iter().find(|m| m.id == own).unwrap();
            Ok(Report {
                id: own,
                leader: world.leader,
                learner: member.learner,
                term: world.term,
                committed: 1000,
                applied: 1000,
                version: "3.6.14".into(),
                db_bytes: 4096,
                errors: vec![],
            })
        })
    }

    async fn members(&self) -> Result<Vec<Listed>, EtcdError> {
        self.ask(|world, own| {
            if !world.has_quorum() {
                return Err(self.silent("etcdserver: request timed out"));
            }
            if world.members.iter().any(|m| m.id == own && m.learner) {
                return Err(self.refused("rpc not supported for learner"));
            }
            let listed = |m: &Member| Listed { id: m.id, name: m.name.clone(), peer_urls: vec![m.peer_url.clone()], learner: m.learner };
            Ok(world.members.iter().map(listed).collect())
        })
    }

    async fn add_learner(&self, peer_url: &str) -> Result<MemberId, EtcdError> {
        self.change("add", |world, _| {
            if world.members.iter().any(|m| m.peer_url == peer_url) {
                return Err(self.refused("Peer URLs already exists"));
            }
            if world.members.iter().any(|m| m.learner) {
                return Err(self.refused("too many learner members in cluster"));
            }
            let voters = world.voters().count();
            if voters > 1 && world.voters().filter(|m| world.steady(m)).count() < voters.div_ceil(2) + 1 {
                return Err(self.silent("etcdserver: unhealthy cluster"));
            }
            Ok(world.add("", peer_url, true))
        })
    }

    async fn promote(&self, member: MemberId) -> Result<(), EtcdError> {
        self.change("promote", |world, _| {
            let not_found = EtcdError::NoSuchMember { machine: self.machine.clone(), why: "etcdserver: member not found".into() };
            let found = world.members.iter().position(|m| m.id == member).ok_or(not_found)?;
            if !world.members[found].learner {
                return Err(self.refused("can only promote a learner member"));
            }
            if !world.answers(&world.members[found]) {
                return Err(self.refused("can only promote a learner member which is in sync with leader"));
            }
            world.members[found].learner = false;
            Ok(())
        })
    }

    async fn remove(&self, member: MemberId) -> Result<(), EtcdError> {
        self.change("remove", |world, _| {
            let not_found = EtcdError::NoSuchMember { machine: self.machine.clone(), why: "etcdserver: member not found".into() };
            let found = world.members.iter().position(|m| m.id == member).ok_or(not_found)?;
            let left: Vec<&Member> = world.voters().filter(|m| m.id != member).collect();
            let answering = left.iter().filter(|m| world.answers(m)).count();
            let gone = &world.members[found];
            if !gone.learner && answering < left.len() / 2 + 1 {
                return Err(self.refused("re-configuration failed due to not enough started members"));
            }
            // Of those that vote now, one that does not answer may always go.
            let active = world.voters().filter(|m| world.steady(m)).count();
            if !gone.learner && world.answers(gone) && active.saturating_sub(1) < 1 + left.len() / 2 {
                return Err(self.silent("etcdserver: unhealthy cluster"));
            }
            world.members.remove(found);
            Ok(())
        })
    }

    async fn move_leader(&self, to: MemberId) -> Result<(), EtcdError> {
        self.change("move leader", |world, own| {
            if world.leader != Some(own) {
                return Err(self.refused("not leader"));
            }
            if !world.voters().any(|m| m.id == to && world.answers(m)) {
                return Err(self.refused("bad leader transferee"));
            }
            (world.leader, world.term) = (Some(to), world.term + 1);
            Ok(())
        })
    }
}
