//! A writer that waits for nobody: every 100 ms it sends a write, on a connection of its own, with a second's patience and no retry, however many
//! others are under way.
//!
//! The prober beside it has one write under way at a time. Where that one is never answered, the prober's gap is its own patience, whatever the
//! cluster takes from others meanwhile (coordinated omission). Here the others follow, so that the time between two acknowledgements is the cluster's.

use super::{COLLECTION, PATIENCE, PERIOD, make, object};
use crate::api::{Api, Failure};
use crate::until;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Not the prober's: the two have nothing to wait for in each other.
const NAME: &str = "slipway-probe-open-loop";

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    /// It never left, or the answer was no.
    Failed(String),
    /// It was sent and nothing came back in time.
    Unanswered(String),
}

/// A write that was sent, and what became of it when, once that is known.
#[derive(Debug, Clone)]
struct Sent {
    at: Instant,
    end: Option<(Instant, Outcome)>,
}

/// How a cluster took writes that did not wait for each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Taken {
    /// Writes that ended.
    pub writes: usize,
    /// Those that got no answer.
    pub unanswered: usize,
    /// Those that were not sent, or got another answer than wanted.
    pub failed: usize,
    /// Longest time between two acknowledgements, in seconds.
    pub longest_gap: f64,
}

/// The writer at work. It ends when dropped.
pub struct OpenLoop {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Sent>>>,
    clock: Option<JoinHandle<()>>,
    epoch: (Instant, SystemTime),
}

impl OpenLoop {
    /// Makes the ConfigMap and begins.
    pub fn start(api: &Api) -> Result<Self> {
        make(api, NAME)?;
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let clock = {
            let (api, stop, log) = (api.clone(), stop.clone(), log.clone());
            std::thread::spawn(move || tick(&api, &stop, &log))
        };
        Ok(Self { stop, log, clock: Some(clock), epoch: (Instant::now(), SystemTime::now()) })
    }

    /// How writes were taken from `since` on, once all that were sent up to now have ended.
    pub fn report(&self, since: Instant) -> Result<Taken> {
        let now = Instant::now();
        until("every write of the open loop has ended", PATIENCE * 5, || {
            let under_way = self.sent().iter().filter(|w| w.at <= now && w.end.is_none()).count();
            if under_way == 0 { Ok(()) } else { Err(format!("{under_way} are under way")) }
        })?;
        Ok(taken(&self.sent(), since))
    }

    /// Ends, and writes the log as JSON lines.
    pub fn finish(mut self, log: &Path) -> Result<()> {
        self.halt();
        let mut file = std::io::BufWriter::new(std::fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?);
        for write in self.sent() {
            let at = self.epoch.1 + write.at.saturating_duration_since(self.epoch.0);
            let at = at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
            let took = write.end.as_ref().map(|(end, _)| end.duration_since(write.at).as_secs_f64());
            let failure = write.end.and_then(|(_, outcome)| match outcome {
                Outcome::Acknowledged => None,
                Outcome::Failed(why) => Some(why),
                Outcome::Unanswered(why) => Some(format!("not answered: {why}")),
            });
            let line: Value = json!({"at": at, "took": took, "failure": failure});
            writeln!(file, "{line}")?;
        }
        Ok(file.flush()?)
    }

    fn sent(&self) -> Vec<Sent> {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(clock) = self.clock.take() {
            // It does not panic; and if it did, its missing writes show.
            let _ = clock.join();
        }
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Sends by the clock and by nothing else. What was late is made up for, or the pace would hang on answers after all.
fn tick(api: &Api, stop: &AtomicBool, log: &Arc<Mutex<Vec<Sent>>>) {
    let began = Instant::now();
    let mut under_way: Vec<JoinHandle<()>> = vec![];
    let mut count = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        under_way.retain(|write| !write.is_finished());
        let (api, log) = (api.clone(), log.clone());
        under_way.push(std::thread::spawn(move || send(&api, count, &log)));
        std::thread::sleep((began + PERIOD * count).saturating_duration_since(Instant::now()));
    }
    for write in under_way {
        let _ = write.join();
    }
}

fn send(api: &Api, count: u32, log: &Mutex<Vec<Sent>>) {
    let Ok(place) = log.lock().map(|mut log| {
        log.push(Sent { at: Instant::now(), end: None });
        log.len() - 1
    }) else {
        return;
    };
    // Without a resourceVersion: those that are under way together do not conflict.
    let answer = api.request("PUT", &format!("{COLLECTION}/{NAME}"), Some(&object(NAME, count.into())), PATIENCE);
    let ended = Instant::now();
    let outcome = match answer {
        Ok(answer) if answer.status == 200 => Outcome::Acknowledged,
        Ok(answer) => Outcome::Failed(format!("status {}: {}", answer.status, answer.body["message"].as_str().unwrap_or_default())),
        Err(Failure::NotSent(why)) => Outcome::Failed(format!("not sent: {why}")),
        Err(Failure::Unanswered(why)) => Outcome::Unanswered(why),
    };
    if let Ok(mut log) = log.lock()
        && let Some(write) = log.get_mut(place)
    {
        write.end = Some((ended, outcome));
    }
}

/// Counts what ended from `since` on. Answers overtake each other, so acknowledgements are put in order first; a gap counts when it ended after
/// `since`, or has not ended.
fn taken(log: &[Sent], since: Instant) -> Taken {
    let ended = || log.iter().filter_map(|w| w.end.as_ref());
    let mut acknowledged: Vec<Instant> = ended().filter(|(_, o)| *o == Outcome::Acknowledged).map(|(at, _)| *at).collect();
    acknowledged.sort_unstable();
    let pairs = acknowledged.iter().zip(acknowledged.iter().skip(1));
    let gaps = pairs.filter(|(_, after)| **after >= since).map(|(before, after)| after.duration_since(*before));
    let last = ended().map(|(at, _)| *at).max();
    let open = acknowledged.last().zip(last).map(|(acknowledged, last)| last.duration_since(*acknowledged));
    let longest: Duration = gaps.chain(open).max().unwrap_or_default();
    let late = || ended().filter(|(at, _)| *at >= since);
    Taken {
        writes: late().count(),
        unanswered: late().filter(|(_, o)| matches!(o, Outcome::Unanswered(_))).count(),
        failed: late().filter(|(_, o)| matches!(o, Outcome::Failed(_))).count(),
        longest_gap: longest.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes by when they were sent, when they ended and how, in milliseconds.
    fn log(start: Instant, writes: &[(u64, u64, Outcome)]) -> Vec<Sent> {
        let at = |ms: u64| start + Duration::from_millis(ms);
        writes.iter().map(|(sent, end, outcome)| Sent { at: at(*sent), end: Some((at(*end), outcome.clone())) }).collect()
    }

    fn lost() -> Outcome {
        Outcome::Unanswered("no answer within 1s".to_owned())
    }

    #[test]
    fn writes_that_get_no_answer_do_not_make_the_gap_longer() {
        let start = Instant::now();
        let yes = || Outcome::Acknowledged;
        // A leader dies at 150: two writes are lost, three wait for the next leader at 700, and those after it are taken at once.
        let mut writes = vec![(0, 10, yes()), (100, 110, yes()), (200, 1200, lost()), (300, 1300, lost())];
        writes.extend([(400, 702), (500, 700), (600, 701)].map(|(sent, end)| (sent, end, yes())));
        writes.extend((7..13).map(|n| (n * 100, n * 100 + 10, yes())));
        let seen = taken(&log(start, &writes), start + Duration::from_millis(150));
        assert_eq!((seen.writes, seen.unanswered, seen.failed), (11, 2, 0));
        assert!((seen.longest_gap - 0.59).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn an_answer_that_is_overtaken_makes_no_gap_of_its_own() {
        let start = Instant::now();
        let yes = || Outcome::Acknowledged;
        let seen = taken(&log(start, &[(0, 500, yes()), (100, 120, yes()), (200, 220, yes()), (300, 320, yes())]), start);
        assert!((seen.longest_gap - 0.18).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn a_gap_counts_when_it_ended_later_or_has_not_ended() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let no = || Outcome::Failed("status 503".to_owned());
        let mut log = log(start, &[(0, 10, Outcome::Acknowledged), (100, 810, Outcome::Acknowledged), (900, 910, Outcome::Acknowledged)]);
        assert!((taken(&log, at(800)).longest_gap - 0.8).abs() < 1e-9);
        assert!((taken(&log, at(820)).longest_gap - 0.1).abs() < 1e-9);
        log.extend([(1000, 1010), (1100, 1310)].map(|(sent, end)| Sent { at: at(sent), end: Some((at(end), no())) }));
        log.push(Sent { at: at(1200), end: None });
        let seen = taken(&log, at(950));
        assert_eq!((seen.writes, seen.unanswered, seen.failed), (2, 0, 2));
        assert!((seen.longest_gap - 0.4).abs() < 1e-9, "{seen:?}");
    }
}
