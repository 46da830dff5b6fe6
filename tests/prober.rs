//! A client that counts: reads and writes one ConfigMap ten times a second through the load balancer, with a fresh connection each time, no retries and
//! a second's patience. One read and one write are under way at a time: what it sees of a request that is never answered is its own patience.

pub mod open_loop;

use crate::api::{Api, Failure};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

const PERIOD: Duration = Duration::from_millis(100);
/// How long a request may take.
pub const PATIENCE: Duration = Duration::from_secs(1);
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const NAME: &str = "slipway-probe";

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GET.
    Read,
    /// PUT.
    Write,
}

/// One probe.
#[derive(Debug, Clone)]
struct Probe {
    kind: Kind,
    began: Instant,
    ended: Instant,
    failure: Option<String>,
}

/// What a client saw of one kind of request.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Seen {
    /// Requests.
    pub probes: usize,
    /// Those that failed.
    pub failed: usize,
    /// Longest time between two successes, in seconds.
    pub longest_gap: f64,
}

/// What a client saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Report {
    /// Of reads.
    pub read: Seen,
    /// Of writes.
    pub write: Seen,
}

impl Report {
    /// Failed requests of both kinds.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.read.failed + self.write.failed
    }

    /// The longer of the two gaps, in seconds.
    #[must_use]
    pub fn longest_gap(&self) -> f64 {
        self.read.longest_gap.max(self.write.longest_gap)
    }
}

/// A prober at work. It ends when dropped.
pub struct Prober {
    stop: Arc<AtomicBool>,
    probes: Arc<Mutex<Vec<Probe>>>,
    threads: Vec<JoinHandle<()>>,
    epoch: (Instant, SystemTime),
}

impl Prober {
    /// Makes the ConfigMap and begins.
    pub fn start(api: &Api) -> Result<Self> {
        Self::with_patience(api, PATIENCE)
    }

    /// The same with another patience than a second.
    pub fn with_patience(api: &Api, patience: Duration) -> Result<Self> {
        make(api, NAME)?;
        let (stop, probes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let spawn = |kind: Kind| {
            let (api, stop, probes) = (api.clone(), stop.clone(), probes.clone());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count += 1;
                    let body = object(NAME, count);
                    let began = Instant::now();
                    let failure = match kind {
                        Kind::Read => once(&api, "GET", None, patience),
                        Kind::Write => once(&api, "PUT", Some(&body), patience),
                    };
                    let ended = Instant::now();
                    if let Ok(mut probes) = probes.lock() {
                        probes.push(Probe { kind, began, ended, failure });
                    }
                    std::thread::sleep(PERIOD.saturating_sub(ended.duration_since(began)));
                }
            })
        };
        let threads = vec![spawn(Kind::Read), spawn(Kind::Write)];
        Ok(Self { stop, probes, threads, epoch: (Instant::now(), SystemTime::now()) })
    }

    /// What was seen from `since` on; a gap counts when it ended after that.
    #[must_use]
    pub fn report(&self, since: Instant) -> Report {
        let probes = self.probes.lock().map(|p| p.clone()).unwrap_or_default();
        Report { read: seen(&probes, Kind::Read, since), write: seen(&probes, Kind::Write, since) }
    }

    /// For how long nothing has failed.
    #[must_use]
    pub fn calm(&self) -> Duration {
        let probes = self.probes.lock().map(|p| p.clone()).unwrap_or_default();
        let last = probes.iter().rev().find(|p| p.failure.is_some()).map_or(self.epoch.0, |p| p.ended);
        // Two threads stand behind it: where they have stopped asking, nothing is calm.
        let asked = probes.iter().next_back().map_or(last, |p| p.ended);
        asked.saturating_duration_since(last)
    }

    /// Whether a read and a write have ended that began after `since`; the text says what is missing. Until then one that began earlier may still be
    /// waiting, and a report would not know of it.
    pub fn asked_since(&self, since: Instant) -> Result<(), String> {
        let probes = self.probes.lock().map(|p| p.clone()).unwrap_or_default();
        let asked = |kind: Kind| probes.iter().rev().any(|p| p.kind == kind && p.began >= since);
        [Kind::Read, Kind::Write].into_iter().find(|kind| !asked(*kind)).map_or(Ok(()), |kind| Err(format!("no {kind:?} has ended")))
    }

    /// Failures since then, for people.
    #[must_use]
    pub fn failures(&self, since: Instant) -> Vec<String> {
        let probes = self.probes.lock().map(|p| p.clone()).unwrap_or_default();
        let late = probes.iter().filter(|p| p.ended >= since);
        late.filter_map(|p| {
            Some(format!("{:?} after {:.2} s: {}", p.kind, p.ended.duration_since(since).as_secs_f64(), p.failure.as_ref()?))
        })
        .collect()
    }

    /// Ends, writes the log as JSON lines where one is wanted, and reports from the beginning.
    pub fn finish(mut self, log: Option<&Path>) -> Result<Report> {
        self.halt();
        if let Some(log) = log {
            self.write(log)?;
        }
        Ok(self.report(self.epoch.0))
    }

    fn write(&self, log: &Path) -> Result<()> {
        let probes = self.probes.lock().map(|p| p.clone()).unwrap_or_default();
        let mut file = std::io::BufWriter::new(std::fs::File::create(log)?);
        for probe in &probes {
            let at = self.epoch.1 + probe.began.saturating_duration_since(self.epoch.0);
            let at = at.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64();
            let took = probe.ended.duration_since(probe.began).as_secs_f64();
            let line: Value = json!({"at": at, "kind": probe.kind, "took": took, "failure": probe.failure});
            writeln!(file, "{line}")?;
        }
        Ok(file.flush()?)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A probe does not panic; and if it did, its missing probes show.
            let _ = thread.join();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.halt();
    }
}

fn object(name: &str, n: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": n.to_string()}})
}

fn make(api: &Api, name: &str) -> Result<()> {
    match api.request("POST", COLLECTION, Some(&object(name, 0)), Duration::from_secs(10)) {
        Ok(answer) if matches!(answer.status, 201 | 409) => Ok(()),
        other => bail!("the prober's ConfigMap {name} cannot be made: {other:?}"),
    }
}

fn once(api: &Api, method: &str, body: Option<&Value>, patience: Duration) -> Option<String> {
    match api.request(method, &format!("{COLLECTION}/{NAME}"), body, patience) {
        Ok(answer) if answer.status == 200 => None,
        Ok(answer) => Some(format!("status {}: {}", answer.status, answer.body["message"].as_str().unwrap_or_default())),
        Err(Failure::NotSent(why)) => Some(format!("not sent: {why}")),
        Err(Failure::Unanswered(why)) => Some(format!("not answered: {why}")),
    }
}

fn seen(probes: &[Probe], kind: Kind, since: Instant) -> Seen {
    let mine = || probes.iter().filter(|p| p.kind == kind);
    let good: Vec<Instant> = mine().filter(|p| p.failure.is_none()).map(|p| p.ended).collect();
    let ended =
        good.iter().zip(good.iter().skip(1)).filter(|(_, after)| **after >= since).map(|(before, after)| after.duration_since(*before));
    // One that has not ended yet is a gap as well.
    let open = good.last().zip(mine().next_back()).map(|(good, last)| last.ended.saturating_duration_since(*good));
    let late = || mine().filter(|p| p.ended >= since);
    Seen {
        probes: late().count(),
        failed: late().filter(|p| p.failure.is_some()).count(),
        longest_gap: ended.chain(open).max().unwrap_or_default().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_one_success_to_the_next() {
        let start = Instant::now();
        let probe = |at: u64, ok: bool| Probe {
            kind: Kind::Read,
            began: start + Duration::from_millis(at),
            ended: start + Duration::from_millis(at + 10),
            failure: (!ok).then(|| "refused".to_owned()),
        };
        let probes = [probe(0, true), probe(100, false), probe(200, false), probe(300, true), probe(400, true)];
        let all = seen(&probes, Kind::Read, start);
        assert_eq!((all.probes, all.failed), (5, 2));
        assert!((all.longest_gap - 0.3).abs() < 1e-9);
        let late = seen(&probes, Kind::Read, start + Duration::from_millis(350));
        assert_eq!((late.probes, late.failed), (1, 0));
        assert!((late.longest_gap - 0.1).abs() < 1e-9);
        let unended = [probe(0, true), probe(100, false), probe(900, false)];
        assert!((seen(&unended, Kind::Read, start).longest_gap - 0.9).abs() < 1e-9);
    }
}
