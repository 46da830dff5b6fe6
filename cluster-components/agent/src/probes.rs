//! Asks whether units do their work. Eager while one does not yet, so that a start is seen at once, and for as long as others wait for it to stay so; lazy
//! when all is well, so that an idle machine stays idle. A unit that changes is asked at once.

use crate::board::{Board, now_ms};
use crate::http::{Asker, HttpError, Target, Trust};
use slipway_agent_api::v1::{MachineState, ProbeStatus};
use slipway_model::{Pace, Probe, ProbeKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const WITHIN: Duration = Duration::from_secs(1);
/// While unhealthy, for the first minute of it, and while it has only just become healthy.
const EAGER: Duration = Pace::PROBED_EVERY;
const EAGER_FOR: Duration = Duration::from_secs(60);
const PATIENT: Duration = Duration::from_secs(1);
/// While healthy.
const LAZY: Duration = Duration::from_secs(5);
/// So many good answers in a row are health that lasts: more than anybody waits for.
const LASTING: u32 = 5;

/// Runs the probes of whatever list is current, one task each.
pub async fn run(board: Arc<Board>, mut lists: watch::Receiver<Arc<Vec<Probe>>>) {
    let trust = match Trust::anybody() {
        Ok(trust) => trust,
        Err(e) => return tracing::error!(%e, "no probes: TLS cannot be set up"),
    };
    loop {
        let probes = lists.borrow_and_update().clone();
        board.update(|state| state.probes.retain(|status| probes.iter().any(|p| p.name == status.name && p.unit == status.unit)));
        // Dropping the set ends its tasks.
        let mut tasks = JoinSet::new();
        for probe in probes.iter().cloned() {
            tasks.spawn(ask_on(board.clone(), trust.clone(), probe));
        }
        if lists.changed().await.is_err() {
            return;
        }
    }
}

async fn ask_on(board: Arc<Board>, trust: Trust, probe: Probe) {
    let mut asker = match &probe.kind {
        ProbeKind::Http { url } => Target::parse(url).ok().map(|target| Asker::new(target, trust)),
        ProbeKind::Socket { .. } | ProbeKind::Active => None,
    };
    let mut states = board.subscribe();
    let mut unhealthy_since = Some(Instant::now());
    let mut good_in_a_row: u32 = 0;
    loop {
        let before = unit_state(&states.borrow_and_update(), &probe.unit);
        let answer = ask(&before, &probe, asker.as_mut()).await;
        let healthy = answer.is_ok();
        unhealthy_since = if healthy { None } else { unhealthy_since.or_else(|| Some(Instant::now())) };
        good_in_a_row = if healthy { good_in_a_row.saturating_add(1) } else { 0 };
        let lasting = good_in_a_row >= LASTING;
        if let Some(asker) = asker.as_mut().filter(|_| lasting) {
            asker.rest();
        }
        let (name, unit) = (probe.name.clone(), probe.unit.clone());
        board.probe(ProbeStatus { name, unit, healthy, message: answer.err().unwrap_or_default(), since_ms: now_ms() });
        let pause = match unhealthy_since {
            None if lasting => LAZY,
            None => EAGER,
            Some(since) if since.elapsed() < EAGER_FOR => EAGER,
            Some(_) => PATIENT,
        };
        let changed = states.wait_for(|state| unit_state(state, &probe.unit) != before);
        if let Ok(Err(_)) = timeout(pause, changed).await.map(|state| state.map(|_| ())) {
            return;
        }
    }
}

/// What a unit is doing, as far as a probe cares: active state, sub state, restarts.
fn unit_state(state: &MachineState, unit: &str) -> (String, u32) {
    let found = state.units.iter().find(|status| status.name == unit);
    found.map_or_else(|| ("unknown".to_owned(), 0), |status| (status.active_state.clone(), status.restarts))
}

async fn ask((active, _): &(String, u32), probe: &Probe, asker: Option<&mut Asker>) -> Result<(), String> {
    // A unit may do its work before systemd calls it active, but something else on its port must not pass for it.
    if !matches!(active.as_str(), "active" | "activating" | "reloading") {
        return Err(format!("{} is {active}", probe.unit));
    }
    match (&probe.kind, asker) {
        (ProbeKind::Active, _) if active == "active" => Ok(()),
        (ProbeKind::Active, _) => Err(format!("{} is {active}", probe.unit)),
        (ProbeKind::Socket { path }, _) => match timeout(WITHIN, UnixStream::connect(path)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(format!("{path}: {e}")),
            Err(_) => Err(format!("{path}: no connection within 1 s")),
        },
        (ProbeKind::Http { url }, Some(asker)) => asker.healthy(WITHIN).await.map_err(|e| format!("{url}: {}", brief(&e))),
        (ProbeKind::Http { url }, None) => Err(format!("{url} is no URL")),
    }
}

fn brief(error: &HttpError) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        words = inner.to_string();
        source = inner.source();
    }
    words
}
