//! Conditions as the Kubernetes API wants them kept: the transition time moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    /// `Ready`, …
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// One word, never empty.
    pub reason: &'a str,
    /// For people.
    pub message: &'a str,
}

/// What to write in place of `before`: exactly the findings, sorted by type, each with the time at which its status last changed.
#[must_use]
pub fn set_conditions<'a>(
    before: &[Condition],
    findings: impl IntoIterator<Item = Finding<'a>>,
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let since = |f: &Finding<'_>| {
        let same = before.iter().find(|c| c.type_ == f.kind && c.status == f.status);
        same.map_or(Time(now), |c| c.last_transition_time.clone())
    };
    let mut after: Vec<Condition> = findings
        .into_iter()
        .map(|f| Condition {
            last_transition_time: since(&f),
            type_: f.kind.to_owned(),
            status: f.status.to_owned(),
            reason: f.reason.to_owned(),
            message: f.message.to_owned(),
            observed_generation,
        })
        .collect();
    after.sort_by(|a, b| a.type_.cmp(&b.type_));
    after
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let finding = |status, message| Finding { kind: "Ready", status, reason: "R", message };
        let first = set_conditions(&[], [finding("False", "a")], Some(1), at(10));
        let second = set_conditions(&first, [finding("False", "b")], Some(2), at(20));
        assert_eq!((second[0].last_transition_time.0, second[0].message.as_str(), second[0].observed_generation), (at(10), "b", Some(2)));
        let third = set_conditions(&second, [finding("True", "b"), Finding { kind: "A", ..finding("True", "") }], Some(2), at(30));
        assert_eq!(
            third.iter().map(|c| (c.type_.as_str(), c.last_transition_time.0)).collect::<Vec<_>>(),
            [("A", at(30)), ("Ready", at(30))]
        );
    }
}
