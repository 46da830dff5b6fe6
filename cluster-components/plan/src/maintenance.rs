//! When machines may be disturbed: pause and weekly windows (UTC).
//!
//! What was begun is finished in any case, and dead machines are replaced unless `healing: InWindows` says otherwise: only those ask here who are
//! about to begin something that disturbs.

use crate::draft::Draft;
use crate::outcome::seconds;
use crate::{MachineRecord, Reason};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use slipway_model::{Healing, Maintenance, Weekday, Window};

/// Why machines may not be disturbed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// By hand, until by hand.
    Paused,
    /// Outside of every window, until then. `None`: no window ever opens, which validation refuses.
    Until(Option<Timestamp>),
}

/// Whether machines may be disturbed at this time.
pub fn maintenance_open(maintenance: &Maintenance, now: Timestamp) -> Result<(), Closed> {
    if maintenance.paused {
        return Err(Closed::Paused);
    }
    if maintenance.windows.is_empty() || maintenance.windows.iter().any(|w| is_open(w, now)) {
        return Ok(());
    }
    Err(Closed::Until(maintenance.windows.iter().filter_map(|w| opens_after(w, now)).min()))
}

/// Whether something that disturbs may begin now; notes what waits for which window otherwise.
pub(crate) fn may_disturb(draft: &mut Draft<'_>, what: &str) -> bool {
    let since = draft.observed.cluster.created;
    closed(draft, what).map(|(reason, wait)| draft.wait(reason, wait, since)).is_none()
}

/// The same of something that disturbs this machine alone.
pub(crate) fn may_change(draft: &mut Draft<'_>, machine: &MachineRecord, what: &str) -> bool {
    closed(draft, what).map(|(reason, wait)| draft.wait_on(&machine.name, reason, wait, machine.created)).is_none()
}

/// What has to be waited for, if machines may not be disturbed now. Asks for another look when only time is missing.
fn closed(draft: &mut Draft<'_>, what: &str) -> Option<(Reason, String)> {
    match maintenance_open(&draft.spec.maintenance, draft.now).err()? {
        Closed::Paused => Some((Reason::Paused, format!("spec.maintenance.paused to be taken back: {what}"))),
        Closed::Until(None) => Some((Reason::OutsideMaintenanceWindow, format!("a maintenance window that opens: {what}"))),
        Closed::Until(Some(at)) => {
            draft.look_at(at);
            Some((Reason::OutsideMaintenanceWindow, format!("the maintenance window that begins {}: {what}", seconds(at))))
        }
    }
}

/// Whether machines that are lost may be replaced now; notes what waits otherwise.
pub(crate) fn may_heal(draft: &mut Draft<'_>, what: &str) -> bool {
    match draft.spec.maintenance.healing {
        Healing::Always => true,
        Healing::InWindows => may_disturb(draft, what),
    }
}

/// A window that began today or, as it may last into the next day, yesterday.
fn is_open(window: &Window, now: Timestamp) -> bool {
    let today = now.to_zoned(TimeZone::UTC).date();
    let began = [today.yesterday().ok(), Some(today)].into_iter().flatten().filter_map(|day| beginning(window, day));
    let length = SignedDuration::from_mins(i64::from(window.minutes));
    began.into_iter().any(|start| start <= now && now < start.saturating_add(length).unwrap_or(start))
}

/// Its first beginning after now.
fn opens_after(window: &Window, now: Timestamp) -> Option<Timestamp> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let mut day = Some(today);
    // Every window begins at least once a week; today's may be over.
    (0..=7).find_map(|_| {
        let this = day?;
        day = this.tomorrow().ok();
        beginning(window, this).filter(|start| *start > now)
    })
}

/// When it begins on a day, if it does.
fn beginning(window: &Window, day: Date) -> Option<Timestamp> {
    let weekday = match day.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    };
    if !window.days.is_empty() && !window.days.contains(&weekday) {
        return None;
    }
    let midnight = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    midnight.saturating_add(SignedDuration::from_mins(i64::from(window.start))).ok()
}
