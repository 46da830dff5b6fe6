//! The gate: what a load balancer is told when it asks whether to send requests here. A health check learns of a dead etcd when requests fail
//! already, and of a restart when connections break; the agent knows of both before.
//!
//! ```text
//!              the agent is about to restart a unit; a unit stops
//!         ┌────────────────────────────────────────────────────────► aside: "drain", what is here may end ──┐
//!   open: "up ready"                                                                                         ├─► open, once all work again
//!         └────────────────────────────────────────────────────────► down: "down", connections are cut ─────┘
//!              a unit dies
//! ```
//! It begins open: whether the machine is well is the health check's business, and an agent that starts anew must not take a machine that works
//! off its load balancer. A load balancer that cannot ask goes by its health checks alone.

use crate::accepted::Plan;
use crate::board::Board;
use crate::http::{Asker, Target, Trust};
use slipway_agent_api::v1::{MachineState, UnitStatus};
use slipway_model::{MachinePlan, ProbeKind};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// Who has not asked for so long is not waited for.
const ASKS_WITHIN: Duration = Duration::from_millis(500);
/// Requests that were sent before the load balancer knew get so long to end.
const IN_FLIGHT: Duration = Duration::from_millis(300);
/// An API server's word about its etcd may be half a second old (`--etcd-readycheck-timeout`): an answer this long after the disturbance is about now.
const FRESH: Duration = Duration::from_millis(750);
const EACH: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_secs(1);

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Aside,
    Down,
}

impl Standing {
    /// As HAProxy reads it (its manual, "agent-check"): `drain` keeps what is there and gets nothing new, `down` cuts.
    fn word(self) -> &'static [u8] {
        match self {
            Self::Open => b"up ready\n",
            Self::Aside => b"drain\n",
            Self::Down => b"down\n",
        }
    }
}

#[derive(Debug)]
struct State {
    standing: Standing,
    /// Restarts that the agent has begun and not ended.
    leaving: u32,
    /// When it was last disturbed.
    disturbed: Instant,
    /// Answers given since it is not open any more.
    told: u32,
    /// Units that the agent restarts: that they end is no death.
    expected: BTreeSet<String>,
}

/// The gate of this machine.
pub struct Gate {
    board: Arc<Board>,
    state: Mutex<State>,
    changed: Notify,
    told: Notify,
}

/// While this lives, the load balancer sends nothing here; afterwards, once all work again, it does.
pub struct Aside(Arc<Gate>);

impl Drop for Aside {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.leaving = state.leaving.saturating_sub(1);
            state.disturbed = Instant::now();
        });
    }
}

impl Gate {
    /// Open.
    #[must_use]
    pub fn open(board: &Arc<Board>) -> Arc<Self> {
        let state = State { standing: Standing::Open, leaving: 0, disturbed: Instant::now(), told: 0, expected: BTreeSet::new() };
        Arc::new(Self { board: board.clone(), state: Mutex::new(state), changed: Notify::new(), told: Notify::new() })
    }

    /// A poisoned lock is one whose holder panicked between two assignments: the state is as good as before.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.state());
        self.changed.notify_one();
        done
    }

    /// Before a unit that was started once is restarted: nothing new comes once this returns, and what was under way has had its time. `None`: the
    /// unit is none of the gate's, or does not run.
    pub async fn step_aside(self: &Arc<Self>, plan: &MachinePlan, unit: &str) -> Option<Aside> {
        let gate = plan.gate.as_ref().filter(|gate| gate.units.iter().any(|name| name == unit))?;
        // An agent that has just started does not know its units for a moment.
        let mut states = self.board.subscribe();
        let known = states.wait_for(|state| state.units.iter().any(|status| status.name == unit));
        drop(timeout(ASKS_WITHIN, known).await.ok()?.ok()?);
        self.board.unit(unit).filter(|status| status.active_state == "active")?;
        let told = self.change(|state| {
            state.leaving += 1;
            state.expected.insert(unit.to_owned());
            if state.standing == Standing::Open {
                (state.standing, state.told) = (Standing::Aside, 0);
            }
            state.told
        });
        // From here on dropped whatever happens, a pass that is cut short included.
        let aside = Aside(self.clone());
        let heard = async {
            while self.state().told == told {
                self.told.notified().await;
            }
        };
        match timeout(ASKS_WITHIN, heard).await {
            Ok(()) => sleep(IN_FLIGHT).await,
            Err(_) => tracing::info!(unit, port = gate.port, "no load balancer asks: restarted without its knowing"),
        }
        Some(aside)
    }

    /// Answers on the port of whatever plan is current, watches its units, and opens again.
    pub async fn run(self: Arc<Self>, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
        loop {
            let plan = plans.borrow_and_update().clone();
            let work = async {
                match plan.as_ref().and_then(|plan| Some((plan, plan.plan.gate.as_ref()?))) {
                    Some((plan, gate)) => {
                        let units: BTreeSet<&str> = gate.units.iter().map(String::as_str).collect();
                        tokio::join!(self.answer(gate.port), self.watch(&units), self.reopen(&plan.plan, &units));
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = plans.changed() => if changed.is_err() { return },
                () = work => {}
            }
        }
    }

    async fn answer(&self, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => self.answer_on(&listener).await,
                Err(e) => tracing::warn!(%address, %e, "the gate cannot be asked; trying again"),
            }
            sleep(WITHIN).await;
        }
    }

    async fn answer_on(&self, listener: &TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let standing = self.state().standing;
            // Nine bytes go into any socket's buffer at once; whoever does not take them is not waited for.
            let sent = timeout(EACH, async { stream.write_all(standing.word()).await.is_ok() && stream.shutdown().await.is_ok() }).await;
            if standing != Standing::Open && sent == Ok(true) {
                self.state().told += 1;
                self.told.notify_waiters();
            }
        }
    }

    /// Notices units that end. Only those that were up: a machine that starts is the health check's business. One that died may run again before
    /// anybody looks: then systemd has counted it.
    async fn watch(&self, units: &BTreeSet<&str>) {
        let mut states = self.board.subscribe();
        // With how often systemd had started them again.
        let mut up: BTreeMap<String, u32> = BTreeMap::new();
        loop {
            for unit in states.borrow_and_update().units.iter().filter(|unit| units.contains(unit.name.as_str())) {
                let is_up = unit.active_state == "active";
                let before = if is_up { up.insert(unit.name.clone(), unit.restarts) } else { up.remove(&unit.name) };
                match before {
                    Some(restarts) if unit.restarts > restarts => self.ended(unit, true),
                    Some(_) if !is_up => self.ended(unit, has_died(unit)),
                    Some(_) | None => {}
                }
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    fn ended(&self, unit: &UnitStatus, died: bool) {
        self.change(|state| {
            state.disturbed = Instant::now();
            match state.standing {
                Standing::Aside if state.expected.remove(&unit.name) => return,
                Standing::Open if !died => state.standing = Standing::Aside,
                Standing::Open | Standing::Aside if died => state.standing = Standing::Down,
                Standing::Open | Standing::Aside | Standing::Down => return,
            }
            state.told = 0;
            tracing::info!(unit = unit.name, state = unit.sub_state, standing = ?state.standing, "the load balancer is told to send nothing here");
        });
    }

    /// Opens once every unit works, by an answer that is about now.
    async fn reopen(&self, plan: &MachinePlan, units: &BTreeSet<&str>) {
        let Ok(trust) = Trust::anybody() else { return tracing::error!("no gate: TLS cannot be set up") };
        let urls = plan.probes.iter().filter(|probe| units.contains(probe.unit.as_str())).filter_map(|probe| match &probe.kind {
            ProbeKind::Http { url } => Target::parse(url).ok().map(|target| Asker::new(target, trust.clone())),
            ProbeKind::Socket { .. } | ProbeKind::Active => None,
        });
        let mut askers: Vec<Asker> = urls.collect();
        loop {
            let since = {
                let state = self.state();
                (state.standing != Standing::Open && state.leaving == 0).then_some(state.disturbed)
            };
            let Some(disturbed) = since else {
                self.changed.notified().await;
                continue;
            };
            if disturbed.elapsed() >= FRESH && self.all_run(units) && all_answer(&mut askers).await {
                self.change(|state| {
                    if state.leaving == 0 && state.disturbed == disturbed {
                        state.standing = Standing::Open;
                        state.expected.clear();
                        tracing::info!("the load balancer is told to send requests here again");
                    }
                });
                continue;
            }
            // Between two looks at what starts.
            sleep(EACH).await;
        }
    }

    fn all_run(&self, units: &BTreeSet<&str>) -> bool {
        let state = self.board.subscribe();
        let state: &MachineState = &state.borrow();
        units.iter().all(|name| state.units.iter().any(|unit| unit.name == **name && unit.active_state == "active"))
    }
}

/// As far as its state tells.
fn has_died(unit: &UnitStatus) -> bool {
    matches!(unit.sub_state.as_str(), "auto-restart" | "auto-restart-queued" | "failed" | "dead")
}

async fn all_answer(askers: &mut [Asker]) -> bool {
    for asker in askers {
        if asker.healthy(WITHIN).await.is_err() {
            return false;
        }
        asker.rest();
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_model::Gate as Plans;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    fn unit(active: &str, sub: &str) -> UnitStatus {
        UnitStatus { name: "etcd.service".into(), active_state: active.into(), sub_state: sub.into(), ..UnitStatus::default() }
    }

    async fn asked(port: u16) -> String {
        loop {
            if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                let mut word = String::new();
                stream.read_to_string(&mut word).await.unwrap();
                return word.trim().to_owned();
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn asked_until(port: u16, word: &str) {
        timeout(Duration::from_secs(5), async { while asked(port).await != word {} }).await.unwrap();
    }

    struct Held {
        board: Arc<Board>,
        gate: Arc<Gate>,
        plan: MachinePlan,
        port: u16,
        _plans: watch::Sender<Option<Arc<Plan>>>,
    }

    async fn held() -> Held {
        let board = Arc::new(Board::new(MachineState::default()));
        board.units(vec![unit("active", "running")]);
        let gate = Gate::open(&board);
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
        let plan = MachinePlan { gate: Some(Plans { port, units: vec!["etcd.service".into()] }), ..MachinePlan::default() };
        let plans = watch::Sender::new(Some(Arc::new(Plan { digest: plan.digest().0, plan: plan.clone() })));
        tokio::spawn(gate.clone().run(plans.subscribe()));
        assert_eq!(asked(port).await, "up ready");
        Held { board, gate, plan, port, _plans: plans }
    }

    #[tokio::test]
    async fn a_restart_is_told_before_it_begins_and_its_end_once_all_is_well() {
        let held = held().await;
        let balancer = tokio::spawn(async move { asked_until(held.port, "drain").await });
        let aside = held.gate.step_aside(&held.plan, "etcd.service").await;
        assert!(aside.is_some() && balancer.is_finished(), "the load balancer had heard of it");
        held.board.units(vec![unit("deactivating", "stop-sigterm")]);
        held.board.units(vec![unit("inactive", "dead")]);
        drop(aside);
        sleep(FRESH).await;
        assert_eq!(asked(held.port).await, "drain", "it does not run again");
        held.board.units(vec![unit("active", "running")]);
        asked_until(held.port, "up ready").await;
    }

    #[tokio::test]
    async fn a_death_is_told_and_a_stop_is_none() {
        let held = held().await;
        held.board.units(vec![unit("activating", "auto-restart")]);
        asked_until(held.port, "down").await;
        held.board.units(vec![unit("active", "running")]);
        asked_until(held.port, "up ready").await;
        held.board.units(vec![unit("deactivating", "stop-sigterm")]);
        asked_until(held.port, "drain").await;
    }

    #[tokio::test]
    async fn a_death_that_is_over_before_anybody_looks_is_told() {
        let held = held().await;
        held.board.units(vec![UnitStatus { restarts: 1, ..unit("active", "running") }]);
        asked_until(held.port, "down").await;
        asked_until(held.port, "up ready").await;
        // A restart that was asked for begins the count anew.
        held.board.units(vec![unit("active", "running")]);
        sleep(EACH).await;
        assert_eq!(asked(held.port).await, "up ready");
    }

    #[tokio::test]
    async fn others_units_and_a_missing_load_balancer_hold_up_nothing() {
        let held = held().await;
        assert!(held.gate.step_aside(&held.plan, "kubelet.service").await.is_none());
        let start = Instant::now();
        assert!(held.gate.step_aside(&held.plan, "etcd.service").await.is_some());
        assert!(start.elapsed() < ASKS_WITHIN + Duration::from_millis(300));
        asked_until(held.port, "up ready").await;
    }
}
