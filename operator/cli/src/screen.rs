//! What is seen while something is going on: on a terminal a region that is drawn anew, elsewhere a line for each change. Always standard error:
//! results go to standard output.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The screen.
pub struct Screen {
    bar: Option<ProgressBar>,
    started: Instant,
    last: Mutex<BTreeMap<String, String>>,
}

impl Screen {
    /// Standard error, if anybody looks at it there.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            // A template that cannot be parsed would leave indicatif's own, which shows the message as well.
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, started: Instant::now(), last: Mutex::default() }
    }

    /// Since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        let line = format!("{:>6.1} s  {line}", self.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// The region, on a terminal.
    pub fn show(&self, lines: &[String]) {
        if let Some(bar) = &self.bar {
            bar.set_message(lines.join("\n"));
            bar.tick();
        }
    }

    /// What `topic` is at: replaces the region on a terminal, is a line of its own elsewhere if it is news.
    pub fn at(&self, topic: &str, what: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.insert(topic.to_owned(), what.to_owned()).as_deref() == Some(what) {
            return;
        }
        match &self.bar {
            Some(_) => self.show(&last.iter().map(|(t, w)| format!("{:>8}  {t}: {w}", "")).collect::<Vec<_>>()),
            None => eprintln!("{:>6.1} s  {topic}: {what}", self.elapsed().as_secs_f64()),
        }
    }

    /// `topic` is done with: out of the region, and a line that stays.
    pub fn done(&self, topic: &str, line: &str) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
        self.note(&format!("{topic}: {line}"));
    }

    /// Whether lines of changes are wanted instead of a region.
    pub fn is_log(&self) -> bool {
        self.bar.is_none()
    }

    /// Takes the region away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl slipway_artifacts::Progress for Screen {
    fn step(&self, artifact: &str, what: &str) {
        self.at(artifact, what);
    }

    fn done(&self, artifact: &str, how: &str, took: Duration) {
        // What was there all along is no news.
        if how == "in the store" {
            self.last.lock().unwrap_or_else(PoisonError::into_inner).remove(artifact);
        } else {
            Self::done(self, artifact, &format!("{how} ({:.1} s)", took.as_secs_f64()));
        }
    }
}
