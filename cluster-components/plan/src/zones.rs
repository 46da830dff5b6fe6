//! The zone brake: when most machines of a zone are dead at once, the fault is more likely the zone's than theirs, and nothing of it is replaced. And
//! where it is not, only a part of a zone is replaced at once.
//!
//! Where a machine stands is recorded with its instance, because of one that is gone the inventory says nothing. Those that are being taken away because
//! they are dead count as dead: machines of a zone do not all die in the same second.

use crate::dead::is_dead;
use crate::draft::Draft;
use crate::{MachineRecord, Reason, departure};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// What is known of a zone.
#[derive(Debug, Clone, Copy, Default)]
struct Zone {
    /// Machines that stand there.
    all: usize,
    /// How many of them are dead.
    dead: usize,
    /// How many of the dead are being replaced.
    replacing: usize,
}

impl Zone {
    fn is_lost(&self) -> bool {
        self.dead >= 2 && self.dead * 2 > self.all
    }

    /// How many more may be replaced.
    fn spare(&self) -> usize {
        (1 + self.all / 5).saturating_sub(self.replacing)
    }
}

/// Zones by name.
pub(crate) struct Zones<'a>(BTreeMap<&'a str, Zone>);

impl<'a> Zones<'a> {
    /// Of all machines that stay, and of those that leave because they are dead.
    pub fn of(draft: &Draft<'a>) -> Self {
        let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
        for machine in draft.records().iter().filter(|m| !departure::is_set_aside(draft, m)) {
            let (dead, leaves) = (is_dead(draft, machine), machine.deleting.is_some());
            let Some(name) = zone(draft, machine).filter(|_| dead || !leaves) else { continue };
            let zone = zones.entry(name).or_default();
            zone.all += 1;
            zone.dead += usize::from(dead);
            zone.replacing += usize::from(dead && leaves);
        }
        Self(zones)
    }

    /// Whether a dead machine has to wait because its zone is lost; says so.
    pub fn hold(&self, draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) -> bool {
        let Some(name) = zone(draft, machine) else { return false };
        let Some(Zone { all, dead, .. }) = self.0.get(name).filter(|z| z.is_lost()) else { return false };
        let what = format!("zone {name} to be back: {dead} of its {all} machines are dead at once");
        draft.wait_on(&machine.name, Reason::ZoneLost, what, since);
        true
    }

    /// Takes note that a dead machine is replaced, if its zone bears one more at once.
    pub fn take(&mut self, draft: &Draft<'_>, machine: &MachineRecord) -> bool {
        let Some(zone) = zone(draft, machine).and_then(|name| self.0.get_mut(name)) else { return true };
        let may = zone.spare() > 0;
        zone.replacing += usize::from(may);
        may
    }
}

/// Where a machine stands: as its cloud says, or as it was recorded.
pub(crate) fn zone<'a>(draft: &Draft<'a>, machine: &MachineRecord) -> Option<&'a str> {
    let recorded = || {
        let record = draft.records().iter().find(|m| m.uid == machine.uid)?;
        record.instance.as_ref()?.zone.as_deref()
    };
    draft.instance(machine).and_then(|i| i.zone.as_deref()).or_else(recorded)
}
