//! Watches the units of the accepted plan: woken by systemd's signals, it asks for what the operator sees and puts it on the board.

use crate::board::Board;
use crate::systemd::{Systemd, SystemdError, UnitRow, object_path};
use slipway_agent_api::v1::UnitStatus;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Signals come in flurries: one start is half a dozen.
const SETTLE: Duration = Duration::from_millis(15);
/// Should a signal ever be lost.
const SAFETY_NET: Duration = Duration::from_secs(30);

/// Keeps the board's units true. `names`: the units of the accepted plan. `down`: rung when one ends.
pub async fn observe(systemd: Systemd, board: Arc<Board>, mut names: watch::Receiver<Vec<String>>, down: Arc<Notify>) {
    loop {
        let wanted = names.borrow_and_update().clone();
        let paths: HashSet<String> = wanted.iter().map(|name| object_path(name)).collect();
        let mut dirty = None;
        loop {
            // A list that is out of date must not replace what the apply loop has just put up.
            match refresh(&systemd, &board, &wanted, dirty.as_ref(), || !names.has_changed().unwrap_or(true)).await {
                Ok(true) => down.notify_one(),
                Ok(false) => {}
                // Without the bus the last known states stay up; the link says why it is gone, and everything counts as changed when it is back.
                Err(e) => tracing::debug!(%e, "units not refreshed"),
            }
            tokio::select! {
                changed = names.changed() => {
                    if changed.is_err() { return; }
                    break;
                }
                next = ours(&systemd, &paths) => dirty = next,
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Waits until one of `paths` changes. None: any may have.
async fn ours(systemd: &Systemd, paths: &HashSet<String>) -> Option<HashSet<String>> {
    let wait = async {
        loop {
            match systemd.changed().await {
                Some(changed) if changed.is_disjoint(paths) => {}
                changed => return changed,
            }
        }
    };
    timeout(SAFETY_NET, wait).await.unwrap_or_default()
}

/// Asks for the units, in detail for those that changed, and puts them up if they are still `current`. Whether one went down meanwhile.
pub async fn refresh(
    systemd: &Systemd,
    board: &Board,
    names: &[String],
    dirty: Option<&HashSet<String>>,
    current: impl Fn() -> bool,
) -> Result<bool, SystemdError> {
    let _turn = board.asking.lock().await;
    let rows = if names.is_empty() { Vec::new() } else { systemd.list(&names.iter().map(String::as_str).collect::<Vec<_>>()).await? };
    let mut units = Vec::with_capacity(rows.len());
    let mut down = false;
    for row in rows {
        let before = board.unit(&row.name).unwrap_or_default();
        let fresh = dirty.is_some_and(|dirty| !dirty.contains(&row.path))
            && (before.active_state.as_str(), before.sub_state.as_str()) == (row.active.as_str(), row.sub.as_str());
        let now = if fresh { before.clone() } else { detail(systemd, &row).await? };
        down |= is_down(&now) && !is_down(&before) && board.was_started(&now.name);
        units.push(now);
    }
    if current() {
        board.units(units);
    }
    Ok(down)
}

async fn detail(systemd: &Systemd, row: &UnitRow) -> Result<UnitStatus, SystemdError> {
    let kind = row.name.rsplit_once('.').and_then(|(_, kind)| {
        Some(match kind {
            "service" => "Service",
            "socket" => "Socket",
            "timer" => "Timer",
            "mount" => "Mount",
            "path" => "Path",
            _ => return None,
        })
    });
    let mut unit =
        UnitStatus { name: row.name.clone(), active_state: row.active.clone(), sub_state: row.sub.clone(), ..UnitStatus::default() };
    if row.load == "not-found" {
        return Ok(unit);
    }
    let micros: u64 = systemd.property(&row.path, None, "StateChangeTimestamp").await?;
    unit.since_ms = i64::try_from(micros / 1000).unwrap_or(i64::MAX);
    if let Some(kind) = kind {
        unit.result = systemd.property(&row.path, Some(kind), "Result").await?;
    }
    if kind == Some("Service") {
        unit.restarts = systemd.property(&row.path, kind, "NRestarts").await?;
    }
    Ok(unit)
}

/// Whether it has ended and nothing brings it back: systemd does not, or has given up.
fn is_down(unit: &UnitStatus) -> bool {
    matches!(unit.active_state.as_str(), "inactive" | "failed")
}
