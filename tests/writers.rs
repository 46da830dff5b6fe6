//! Clients that read and swap the values of a few ConfigMaps all the time, and remember what they asked and what they were told.

use crate::api::{Api, Failure};
use crate::history::{Call, Operation, Return, Value, check};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REGISTERS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(40);
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// Clients at work. They end when dropped.
pub struct Writers {
    stop: Arc<AtomicBool>,
    history: Arc<Mutex<Vec<Operation>>>,
    threads: Vec<JoinHandle<()>>,
    first: Api,
    label: String,
}

/// What the clients saw, after it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Operations in all.
    pub operations: usize,
    /// Swaps that were acknowledged: none of them is lost.
    pub acknowledged: usize,
    /// Operations whose answer never came.
    pub unknown: usize,
}

impl Writers {
    /// One client for each way into the API: through the load balancer, or at one server. No two checks in one cluster have the same label.
    pub fn start(label: &str, apis: &[Api]) -> Result<Self> {
        let first = apis.first().context("no way into the API")?.clone();
        for register in 0..REGISTERS {
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name(label, register)}, "data": {"value": "0"}});
            match first.request("POST", COLLECTION, Some(&object), Duration::from_secs(10)) {
                Ok(answer) if answer.status == 201 => {}
                other => bail!("register {register} of {label} cannot be made: {other:?}"),
            }
        }
        let (stop, history) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let (numbers, clock) = (Arc::new(AtomicU64::new(1)), Instant::now());
        let spawn = |(client, api): (usize, &Api)| {
            let (api, stop, history, numbers) = (api.clone(), stop.clone(), history.clone(), numbers.clone());
            let label = label.to_owned();
            std::thread::spawn(move || {
                let mut register = client;
                while !stop.load(Ordering::Relaxed) {
                    register = (register + 1) % REGISTERS;
                    let done = turn(&api, client, (&label, register), &numbers, clock);
                    if let Ok(mut history) = history.lock() {
                        history.extend(done);
                    }
                    std::thread::sleep(PAUSE);
                }
            })
        };
        let threads = apis.iter().enumerate().map(spawn).collect();
        Ok(Self { stop, history, threads, first, label: label.to_owned() })
    }

    /// Ends, reads every register once more, keeps the history as JSON lines, and checks it.
    pub fn finish(mut self, log: &Path) -> Result<Checked> {
        self.halt();
        let mut history = self.history.lock().map(|h| h.clone()).unwrap_or_default();
        let end = history.iter().map(|o| o.returned).max().unwrap_or_default();
        for register in 0..REGISTERS {
            let (value, _) = read(&self.first, (&self.label, register), Duration::from_secs(10))
                .with_context(|| format!("register {register} cannot be read at the end"))?;
            history.push(Operation {
                client: 0,
                register,
                called: end + 1,
                returned: end + 2,
                call: Call::Read,
                result: Return::Value(value),
            });
        }
        let mut file = std::io::BufWriter::new(std::fs::File::create(log)?);
        for operation in &history {
            writeln!(file, "{}", serde_json::to_string(operation)?)?;
        }
        file.flush()?;
        if let Err(violation) = check(&history) {
            bail!("not linearizable: {violation} (history in {})", log.display());
        }
        let count = |result: Return| history.iter().filter(|o| o.result == result).count();
        Ok(Checked { operations: history.len(), acknowledged: count(Return::Swapped), unknown: count(Return::Unknown) })
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A client does not panic; and if it did, its history ends there and is still checked.
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.halt();
    }
}

fn name(label: &str, register: usize) -> String {
    format!("slipway-register-{label}-{register}")
}

/// A read, and a swap over what was read. A read that failed tells nothing and is left out.
fn turn(api: &Api, client: usize, (label, register): (&str, usize), numbers: &AtomicU64, clock: Instant) -> Vec<Operation> {
    let now = || u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let called = now();
    let Some((seen, version)) = read(api, (label, register), PATIENCE) else { return vec![] };
    let mut done = vec![Operation { client, register, called, returned: now(), call: Call::Read, result: Return::Value(seen) }];
    let value = numbers.fetch_add(1, Ordering::Relaxed);
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name(label, register), "resourceVersion": version}, "data": {"value": value.to_string()},
    });
    let called = now();
    let result = match api.request("PUT", &format!("{COLLECTION}/{}", name(label, register)), Some(&object), PATIENCE) {
        Ok(answer) if answer.status == 200 => Return::Swapped,
        Ok(answer) if answer.status == 409 => Return::Refused,
        // Any other answer, and none: etcd may have written before the server failed.
        Ok(_) | Err(Failure::Unanswered(_)) => Return::Unknown,
        Err(Failure::NotSent(_)) => return done,
    };
    done.push(Operation { client, register, called, returned: now(), call: Call::Swap { over: seen, value }, result });
    done
}

fn read(api: &Api, (label, register): (&str, usize), patience: Duration) -> Option<(Value, String)> {
    let answer = api.request("GET", &format!("{COLLECTION}/{}", name(label, register)), None, patience).ok().filter(|a| a.status == 200)?;
    let value = answer.body["data"]["value"].as_str()?.parse().ok()?;
    Some((value, answer.body["metadata"]["resourceVersion"].as_str()?.to_owned()))
}
