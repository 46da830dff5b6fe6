//! When a machine's certificates are renewed, as annotations of its Secret say it.
//!
//! ```text
//! issued ──────────── two thirds ─────► due: renewed in a maintenance window ─── nine tenths ─► overdue: renewed at once ───► ended
//! ```
//! Other certificates are another configuration, which a machine is given when it may be disturbed. It may have those before them until then: so a Secret
//! says of these, too, when they are about to end.

use jiff::Timestamp;
use slipway_model::PlanDigest;
use slipway_plan::Certificates;
use std::collections::BTreeMap;

/// Annotation: when its certificates should be made anew.
pub const RENEW_AT: &str = "slipway.dev/renew-at";
/// Annotation: the last tenth of its certificates' life.
pub const LAST_TENTH: &str = "slipway.dev/last-tenth";
/// Annotation: the same of the certificates that these took the place of, which the machine may still have.
pub const REPLACED_LAST_TENTH: &str = "slipway.dev/replaced-last-tenth";

/// Annotation: the digest of the configuration that the machine had when its certificates were replaced. What it is given after that has the new ones.
pub const REPLACED_IN: &str = "slipway.dev/replaced-in";

/// Whether a Secret's certificates should be made anew.
#[must_use]
pub fn is_due(annotations: &BTreeMap<String, String>, now: Timestamp) -> bool {
    annotations.get(RENEW_AT).and_then(|at| at.parse::<Timestamp>().ok()).is_some_and(|at| at <= now)
}

/// How a machine's certificates are, where they are for what it is. Those whose end no annotation tells are waited for by nobody.
#[must_use]
pub fn state_of(annotations: &BTreeMap<String, String>, now: Timestamp) -> Certificates {
    let begun = || tenth(annotations, LAST_TENTH).is_none_or(|(begins, _)| begins <= now);
    match is_due(annotations, now) {
        false => Certificates::Good,
        true if begun() => Certificates::Overdue,
        true => Certificates::Due,
    }
}

/// Whether the certificates before these are about to end, and the machine has them still. `has`: the configuration that it has, where that is known.
#[must_use]
pub fn is_pressing(annotations: &BTreeMap<String, String>, has: Option<&PlanDigest>, now: Timestamp) -> bool {
    !has_newer(annotations, has) && tenth(annotations, REPLACED_LAST_TENTH).is_some_and(|(begins, ends)| begins <= now && now < ends)
}

/// Whether a machine is known to have a Secret's certificates, and not those before them.
fn has_newer(annotations: &BTreeMap<String, String>, has: Option<&PlanDigest>) -> bool {
    annotations.get(REPLACED_IN).zip(has).is_some_and(|(before, has)| *before != has.0)
}

/// The last tenth of certificates' life, of which a third is left when they are to be renewed.
#[must_use]
pub fn last_tenth(renew_at: Timestamp, ends: Timestamp) -> String {
    let tenth = ends.duration_since(renew_at) / 10 * 3;
    format!("{} {ends}", ends.saturating_sub(tenth).unwrap_or(renew_at))
}

fn tenth(annotations: &BTreeMap<String, String>, key: &str) -> Option<(Timestamp, Timestamp)> {
    let (begins, ends) = annotations.get(key)?.split_once(' ')?;
    Some((begins.parse().ok()?, ends.parse().ok()?))
}

/// The last tenth of what a machine may still have when certificates take the place of these: these, or those before them, which it may not have given up
/// yet. Of some that are about to end, or have ended, it lasts as long from now on: somebody has to take them away.
#[must_use]
pub fn replaced_last_tenth(replaced: &BTreeMap<String, String>, has: Option<&PlanDigest>, now: Timestamp) -> Option<String> {
    let before = tenth(replaced, REPLACED_LAST_TENTH).filter(|(_, ends)| now < *ends && !has_newer(replaced, has));
    let (begins, ends) = before.or_else(|| tenth(replaced, LAST_TENTH))?;
    let as_long = now.saturating_add(ends.duration_since(begins)).unwrap_or(ends);
    Some(format!("{begins} {}", ends.max(as_long)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Of certificates that live for ninety days.
    fn issued(on: &str) -> BTreeMap<String, String> {
        let days = |n: i64| at(on).saturating_add(jiff::SignedDuration::from_hours(24 * n)).unwrap();
        [(RENEW_AT, days(60).to_string()), (LAST_TENTH, last_tenth(days(60), days(90)))].map(|(k, v)| (k.to_owned(), v)).into()
    }

    #[test]
    fn certificates_are_due_when_a_third_of_their_life_is_left_and_overdue_when_it_is_a_tenth() {
        let annotations = issued("2026-01-01T00:00:00Z");
        for (now, expected) in [
            ("2026-03-01T23:59:59Z", Certificates::Good),
            ("2026-03-02T00:00:00Z", Certificates::Due),
            ("2026-03-22T23:59:59Z", Certificates::Due),
            ("2026-03-23T00:00:00Z", Certificates::Overdue),
            ("2027-01-01T00:00:00Z", Certificates::Overdue),
        ] {
            assert_eq!(state_of(&annotations, at(now)), expected, "{now}");
        }
    }

    #[test]
    fn certificates_whose_end_no_annotation_tells_are_renewed_at_once() {
        let mut annotations = issued("2026-01-01T00:00:00Z");
        annotations.remove(LAST_TENTH);
        assert_eq!(state_of(&annotations, at("2026-03-01T23:59:59Z")), Certificates::Good);
        assert_eq!(state_of(&annotations, at("2026-03-02T00:00:00Z")), Certificates::Overdue);
    }

    #[test]
    fn what_a_machine_may_still_have_presses_in_the_last_tenth_of_its_life_and_is_remembered_until_it_ends() {
        let mut second = issued("2026-03-05T00:00:00Z");
        let replaced = replaced_last_tenth(&issued("2026-01-01T00:00:00Z"), None, at("2026-03-05T00:00:00Z"));
        second.extend(replaced.map(|tenth| (REPLACED_LAST_TENTH.to_owned(), tenth)));
        for (now, expected) in [
            ("2026-03-22T23:59:59Z", false),
            ("2026-03-23T00:00:00Z", true),
            ("2026-03-31T23:59:59Z", true),
            ("2026-04-01T00:00:00Z", false),
        ] {
            assert_eq!(is_pressing(&second, None, at(now)), expected, "{now}");
        }
        assert_eq!(replaced_last_tenth(&second, None, at("2026-03-20T00:00:00Z")).as_ref(), second.get(REPLACED_LAST_TENTH));
        assert_eq!(replaced_last_tenth(&second, None, at("2026-04-01T00:00:00Z")).as_ref(), second.get(LAST_TENTH));
    }

    #[test]
    fn certificates_that_were_renewed_when_they_had_ended_press_as_long_as_a_tenth_of_their_life() {
        let now = at("2026-04-10T00:00:00Z");
        let replaced = replaced_last_tenth(&issued("2026-01-01T00:00:00Z"), None, now);
        let third: BTreeMap<_, _> = replaced.map(|tenth| (REPLACED_LAST_TENTH.to_owned(), tenth)).into_iter().collect();
        assert!(is_pressing(&third, None, now));
        assert!(is_pressing(&third, None, at("2026-04-18T23:59:59Z")) && !is_pressing(&third, None, at("2026-04-19T00:00:00Z")));
    }

    #[test]
    fn a_machine_that_was_given_anything_since_its_certificates_were_replaced_is_pressed_no_more() {
        let now = at("2026-03-25T00:00:00Z");
        let digest = |text: &str| PlanDigest(text.to_owned());
        let mut second = issued("2026-03-05T00:00:00Z");
        let replaced = replaced_last_tenth(&issued("2026-01-01T00:00:00Z"), None, at("2026-03-05T00:00:00Z"));
        second.extend(replaced.map(|tenth| (REPLACED_LAST_TENTH.to_owned(), tenth)));
        second.insert(REPLACED_IN.to_owned(), "before".to_owned());
        assert!(is_pressing(&second, Some(&digest("before")), now), "it has the old ones still");
        assert!(is_pressing(&second, None, now), "nobody knows what it has");
        assert!(!is_pressing(&second, Some(&digest("after")), now), "it has the new ones: what it is told now has nothing to do with them");
        // When these are replaced in their turn, it may have them and none before them.
        assert_eq!(replaced_last_tenth(&second, Some(&digest("after")), now).as_ref(), second.get(LAST_TENTH));
        let before = replaced_last_tenth(&second, Some(&digest("before")), now);
        assert!(before.unwrap().starts_with("2026-03-23T00:00:00Z "), "else it has those still");
    }
}
