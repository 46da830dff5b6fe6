//! The zone brake: when most machines of a zone are dead at once, the fault is more likely the zone's than theirs, and nothing of it is replaced.
//!
//! Counted are machines whose instance the cloud still lists, because only there it says where they stand.

use crate::dead::is_dead;
use crate::draft::Draft;
use crate::{MachineRecord, Reason};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Zones by name: how many machines stand there, and how many of them are dead.
pub(crate) struct Zones<'a>(BTreeMap<&'a str, (usize, usize)>);

impl<'a> Zones<'a> {
    /// Of all machines that are not being taken away.
    pub fn of(draft: &Draft<'a>) -> Self {
        let mut zones: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for machine in draft.records().iter().filter(|m| m.deleting.is_none()) {
            let Some(zone) = zone(draft, machine) else { continue };
            let (all, dead) = zones.entry(zone).or_default();
            *all += 1;
            *dead += usize::from(is_dead(draft, machine));
        }
        Self(zones)
    }

    /// Whether a dead machine has to wait because its zone is lost; says so.
    pub fn hold(&self, draft: &mut Draft<'_>, machine: &MachineRecord, since: Timestamp) -> bool {
        let Some(zone) = zone(draft, machine) else { return false };
        let Some((all, dead)) = self.0.get(zone).filter(|(all, dead)| *dead >= 2 && dead * 2 > *all) else { return false };
        let what = format!("zone {zone} to be back: {dead} of its {all} machines are dead at once");
        draft.wait_on(&machine.name, Reason::ZoneLost, what, since);
        true
    }
}

fn zone<'a>(draft: &Draft<'a>, machine: &MachineRecord) -> Option<&'a str> {
    draft.instance(machine).and_then(|i| i.zone.as_deref())
}
