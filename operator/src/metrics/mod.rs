//! What the operator counts, as Prometheus text. docs/metrics.md lists it all.

mod clusters;

use crate::looks::Looks;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters and gauges. One per process.
#[derive(Debug, Default)]
pub struct Metrics {
    passes: AtomicU64,
    pass_microseconds: AtomicU64,
    pass_failures: AtomicU64,
    panics: AtomicU64,
    effects: AtomicU64,
    effect_failures: AtomicU64,
    status_writes: AtomicU64,
    clusters: AtomicU64,
    leading: AtomicBool,
    epoch: AtomicU64,
}

impl Metrics {
    /// A pass over a cluster ended.
    pub fn pass(&self, took: Duration, ok: bool) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.pass_microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if !ok {
            self.pass_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A pass panicked, and was caught.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// An effect ended.
    pub fn effect(&self, ok: bool) {
        self.effects.fetch_add(1, Ordering::Relaxed);
        if !ok {
            self.effect_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A status was written.
    pub fn status_written(&self) {
        self.status_writes.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clusters have a loop.
    pub fn clusters(&self, n: usize) {
        self.clusters.store(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Leadership began.
    pub fn leads(&self, epoch: u64) {
        self.leading.store(true, Ordering::Relaxed);
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Whether this operator leads.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }

    /// The Prometheus text: the operator's own numbers, and those of the clusters that it looks after.
    #[must_use]
    pub fn text(&self, looks: &Looks) -> String {
        let mut text = Text::default();
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
        let seconds = get(&self.pass_microseconds) as f64 / 1e6;
        let mut line = |name: &str, kind: &str, help: &str, value: String| text.family(name, kind, help, [(String::new(), value)]);
        line("reconcile_passes_total", "counter", "Passes over a cluster.", get(&self.passes).to_string());
        line("reconcile_seconds_total", "counter", "Time spent in passes.", seconds.to_string());
        line("reconcile_failures_total", "counter", "Passes that could not see what they needed.", get(&self.pass_failures).to_string());
        line("reconcile_panics_total", "counter", "Passes that panicked.", get(&self.panics).to_string());
        line("effects_total", "counter", "Effects on the outside world.", get(&self.effects).to_string());
        line("effect_failures_total", "counter", "Effects that failed.", get(&self.effect_failures).to_string());
        line("status_writes_total", "counter", "Status writes to the management API.", get(&self.status_writes).to_string());
        line("clusters", "gauge", "Clusters being kept.", get(&self.clusters).to_string());
        line("leader", "gauge", "1 while this operator leads.", u8::from(self.is_leading()).to_string());
        line("leader_epoch", "gauge", "Number of this operator's term.", get(&self.epoch).to_string());
        clusters::tell(&mut text, &looks.each());
        text.0
    }
}

/// Families of metrics, one after the other.
#[derive(Default)]
struct Text(String);

impl Text {
    /// A family with its series: labels in braces, or nothing, and value.
    fn family(&mut self, name: &str, kind: &str, help: &str, series: impl IntoIterator<Item = (String, String)>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP slipway_{name} {help}\n# TYPE slipway_{name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(self.0, "slipway_{name}{labels} {value}");
        }
    }
}

#[cfg(test)]
mod tests;
