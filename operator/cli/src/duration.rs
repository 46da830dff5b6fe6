//! Durations as people type them.

use std::time::Duration;

/// `90s`, `10m`, `1h30m`, or a number of seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let bad = || format!("{text:?} is no duration: write for instance 90s, 10m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad())?;
        let (unit, after) = if let Some(after) = tail.strip_prefix("ms") {
            (Duration::from_millis(number), after)
        } else if let Some(after) = tail.strip_prefix('s') {
            (Duration::from_secs(number), after)
        } else if let Some(after) = tail.strip_prefix('m') {
            (Duration::from_secs(number.saturating_mul(60)), after)
        } else if let Some(after) = tail.strip_prefix('h') {
            (Duration::from_secs(number.saturating_mul(3600)), after)
        } else {
            return Err(bad());
        };
        total = total.saturating_add(unit);
        rest = after;
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for bad in ["", "m", "10x", "1h-3m", "s10"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
