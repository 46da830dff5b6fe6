//! What the operator sees: the latest state of the machine. Several write their part of it, each Watch reads the whole. A reader that is slow
//! misses what lies between, never the latest.

use slipway_agent_api::v1::{MachineState, ProbeStatus, UnitStatus};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// The board.
pub struct Board {
    state: watch::Sender<MachineState>,
    /// What units were started with: told by the apply loop, while the rest of a unit is told by systemd, in any order.
    prints: Mutex<BTreeMap<String, String>>,
    /// Held while units are asked for and put up: an older answer must not come after a newer one.
    pub asking: tokio::sync::Mutex<()>,
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

impl Board {
    /// A board whose unchanging parts are filled in.
    #[must_use]
    pub fn new(state: MachineState) -> Self {
        Self { state: watch::Sender::new(state), prints: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    /// Reads, now and later.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<MachineState> {
        self.state.subscribe()
    }

    /// Changes it; readers wake only when something did change.
    pub fn update(&self, change: impl FnOnce(&mut MachineState)) {
        self.state.send_if_modified(|state| {
            let before = state.clone();
            change(state);
            *state != before
        });
    }

    /// A unit as it was last seen.
    #[must_use]
    pub fn unit(&self, name: &str) -> Option<UnitStatus> {
        self.state.borrow().units.iter().find(|unit| unit.name == name).cloned()
    }

    /// Puts up the units as systemd shows them.
    pub fn units(&self, mut units: Vec<UnitStatus>) {
        let prints = self.prints.lock().map(|prints| prints.clone()).unwrap_or_default();
        for unit in &mut units {
            unit.fingerprint = prints.get(&unit.name).cloned().unwrap_or_default();
        }
        self.update(|state| state.units = units);
    }

    /// Puts up what a unit was started with.
    pub fn started(&self, name: &str, print: &str) {
        if let Ok(mut prints) = self.prints.lock() {
            prints.insert(name.to_owned(), print.to_owned());
        }
        self.update(|state| {
            if let Some(unit) = state.units.iter_mut().find(|unit| unit.name == name) {
                print.clone_into(&mut unit.fingerprint);
            }
        });
    }

    /// Whether a unit was started by the plan.
    #[must_use]
    pub fn was_started(&self, name: &str) -> bool {
        self.prints.lock().is_ok_and(|prints| prints.contains_key(name))
    }

    /// Whether nothing stands in the way, as far as the last pass knows.
    #[must_use]
    pub fn is_untroubled(&self) -> bool {
        self.state.borrow().trouble.is_empty()
    }

    /// Puts up a probe's answer; its `since_ms` is when `healthy` last changed.
    pub fn probe(&self, answer: ProbeStatus) {
        self.update(|state| match state.probes.iter_mut().find(|probe| probe.name == answer.name) {
            Some(probe) => {
                let since_ms = if probe.healthy == answer.healthy { probe.since_ms } else { answer.since_ms };
                *probe = ProbeStatus { since_ms, ..answer };
            }
            None => state.probes.push(answer),
        });
    }

    /// Puts up what stands in the way: by subject, with the time since when.
    pub fn trouble(&self, troubles: &Troubles) {
        self.update(|state| {
            state.trouble = troubles.words();
            state.trouble_since_ms = troubles.since_ms();
        });
    }
}

/// What stands in the way of the accepted plan, by subject: the time stays that of the first failure while it lasts.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<String, (i64, String)>);

impl Troubles {
    /// Replaces all by what stands in the way now.
    pub fn replace(&mut self, now: BTreeMap<String, String>) {
        let old = std::mem::take(&mut self.0);
        let since = |subject: &String| old.get(subject).map_or_else(now_ms, |(since, _)| *since);
        self.0 = now.into_iter().map(|(subject, words)| (subject.clone(), (since(&subject), words))).collect();
    }

    /// Nothing stands in the way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn words(&self) -> String {
        const SHOWN: usize = 5;
        let mut words: Vec<String> = self.0.iter().take(SHOWN).map(|(subject, (_, words))| format!("{subject}: {words}")).collect();
        if self.0.len() > SHOWN {
            words.push(format!("and {} more", self.0.len() - SHOWN));
        }
        words.join("; ")
    }

    fn since_ms(&self) -> i64 {
        self.0.values().map(|(since, _)| *since).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wake_only_for_changes() {
        let board = Board::new(MachineState::default());
        let reader = board.subscribe();
        board.update(|state| state.trouble.clear());
        assert!(!reader.has_changed().unwrap_or(true));
        board.update(|state| state.epoch = 1);
        assert!(reader.has_changed().unwrap_or(false));
    }

    #[test]
    fn a_probe_keeps_the_time_of_its_last_turn() {
        let board = Board::new(MachineState::default());
        let answer = |healthy, since_ms| ProbeStatus { name: "x".into(), healthy, since_ms, ..ProbeStatus::default() };
        for (healthy, since) in [(false, 1), (false, 2), (true, 3), (true, 4)] {
            board.probe(answer(healthy, since));
        }
        assert_eq!(board.subscribe().borrow().probes, vec![answer(true, 3)]);
    }

    #[test]
    fn trouble_keeps_the_time_of_its_first_failure() {
        let mut troubles = Troubles::default();
        troubles.0.insert("a".into(), (7, "old".into()));
        troubles.replace([("a".to_owned(), "new".to_owned())].into());
        assert_eq!((troubles.since_ms(), troubles.words().as_str()), (7, "a: new"));
        troubles.replace(BTreeMap::new());
        assert!(troubles.is_empty());
    }
}
