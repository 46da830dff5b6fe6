//! How many machines of a pool may stop working now.
//!
//! A machine that is ill, or whose agent is silent, may run its pods all the same: as long as its Node is Ready, taking it costs what it does. Found by
//! exploration: a worker whose agent was silent for a moment was taken beside the one that was being replaced.

use super::well::{ill, is_settled};
use crate::draft::Draft;
use crate::{MachineRecord, reconfigure};

/// What a machine does for its pool. Those that do least go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// No pods can come to it, or it is being changed.
    None,
    /// Its Node is Ready, but not everything of it is well.
    Ill,
    /// It does its work.
    Well,
}

impl Work {
    pub fn of(draft: &Draft<'_>, machine: &MachineRecord) -> Self {
        let serves = draft.node(&machine.name).is_some_and(|n| n.ready && !n.unschedulable);
        // One that waits for its turn to be told something else does its work meanwhile.
        let changing = draft.heard(&machine.name).is_some() && !is_settled(draft, machine) && !reconfigure::awaits(draft, machine);
        match (serves && !changing, ill(draft, machine).is_none() || reconfigure::works(draft, machine)) {
            (false, _) => Self::None,
            (true, false) => Self::Ill,
            (true, true) => Self::Well,
        }
    }
}

/// What is left of a pool beyond what it has to keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    /// Machines that do all their work.
    pub well: u32,
    /// Machines that do some.
    pub serving: u32,
    /// How many have to be left.
    pub floor: u32,
}

impl Spare {
    pub fn of(draft: &Draft<'_>, members: &[&MachineRecord], floor: u32) -> Self {
        let count = |least: Work| u32::try_from(members.iter().filter(|m| Work::of(draft, m) >= least).count()).unwrap_or(u32::MAX);
        Self { well: count(Work::Well), serving: count(Work::Ill), floor }
    }

    /// Takes a machine that does this, if that leaves enough.
    pub fn take(&mut self, work: Work) -> bool {
        let (well, serving) = (u32::from(work == Work::Well), u32::from(work >= Work::Ill));
        let left = |there: u32, gone: u32| gone == 0 || there > self.floor;
        if !left(self.well, well) || !left(self.serving, serving) {
            return false;
        }
        (self.well, self.serving) = (self.well.saturating_sub(well), self.serving.saturating_sub(serving));
        true
    }
}
