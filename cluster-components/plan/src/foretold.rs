//! A forecast in words: what is printed, served and compared.

use crate::forecast::PASSES;
use crate::{End, Forecast, Quorum};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A cluster's forecast in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foretold {
    /// Its name.
    pub cluster: String,
    /// Whether anything would be done. A forecast that only waits changes nothing, but is not done either.
    pub changes: bool,
    /// In order.
    pub steps: Vec<ToldStep>,
    /// How it ends.
    pub end: ToldEnd,
    /// What is waited for in the end; empty unless it ends so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<String>,
}

/// What starts together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToldStep {
    /// Independent of each other.
    pub actions: Vec<String>,
    /// What is waited for meanwhile.
    pub waits: Vec<String>,
    /// etcd before the step, once it has members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<Quorum>,
}

/// How a forecast ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToldEnd {
    /// Everything is as the spec says.
    Done,
    /// It goes no further until what it waits for is there.
    Waits,
    /// No end in sight.
    Unbounded,
}

impl Foretold {
    /// A forecast of a cluster in words.
    #[must_use]
    pub fn new(cluster: impl Into<String>, forecast: &Forecast) -> Self {
        let step = |step: &crate::Step| ToldStep {
            actions: step.actions.iter().map(ToString::to_string).collect(),
            waits: step.waits.iter().map(ToString::to_string).collect(),
            etcd: step.etcd,
        };
        let (end, waits) = match &forecast.end {
            End::Done => (ToldEnd::Done, vec![]),
            End::Waits(waits) => (ToldEnd::Waits, waits.iter().map(ToString::to_string).collect()),
            End::Unbounded => (ToldEnd::Unbounded, vec![]),
        };
        Self { cluster: cluster.into(), changes: !forecast.steps.is_empty(), steps: forecast.steps.iter().map(step).collect(), end, waits }
    }
}

/// For people: one line per action, numbered by pass.
impl fmt::Display for Foretold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut known = None;
        for (number, step) in self.steps.iter().enumerate() {
            // Told where it changes: what a step leaves behind stands before the next one.
            if let Some(quorum) = step.etcd.filter(|_| step.etcd != known) {
                writeln!(f, "     ({quorum})")?;
                known = step.etcd;
            }
            for (line, action) in step.actions.iter().enumerate() {
                match line {
                    0 => writeln!(f, "{:>3}. {action}", number + 1)?,
                    _ => writeln!(f, "     {action}")?,
                }
            }
        }
        match self.end {
            ToldEnd::Done if self.steps.is_empty() => writeln!(f, "nothing to do"),
            ToldEnd::Done => writeln!(f, "then everything is as the spec says"),
            ToldEnd::Waits => {
                writeln!(f, "then:")?;
                self.waits.iter().try_for_each(|w| writeln!(f, "     {w}"))
            }
            ToldEnd::Unbounded => writeln!(f, "and so on: no end was found within {PASSES} passes"),
        }
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Foretold::new("", self).fmt(f)
    }
}
