//! Printing: tables as kubectl prints them, JSON and YAML for programs.

use crate::args::Format;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::Write;

/// Prints one document, or the text where text is asked for.
pub fn print<T: Serialize>(format: Format, value: &T, text: impl FnOnce() -> String) -> Result<()> {
    let out = match format {
        Format::Text => text(),
        Format::Json => serde_json::to_string_pretty(value).context("writing JSON")?,
        // Through JSON, so that both formats show the same document.
        Format::Yaml => serde_saphyr::to_string(&serde_json::to_value(value).context("writing YAML")?).context("writing YAML")?,
    };
    say(&out)
}

/// Writes to standard output with one line feed at the end. A reader that has gone away (`| head`) is no error.
pub fn say(text: &str) -> Result<()> {
    let text = text.trim_end_matches('\n');
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

/// A table without rules, columns three spaces apart, as kubectl's.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows).collect();
    let widths: Vec<usize> = (0..N).map(|i| lines.iter().filter_map(|l| l.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 3));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// `3d4h`, `5m10s`, `12s`: the two largest units, as kubectl shows ages.
pub fn age(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..120 => format!("{s}s"),
        120..600 if s % 60 != 0 => format!("{}m{}s", s / 60, s % 60),
        120..7200 => format!("{}m", s / 60),
        7200..28_800 if (s / 60) % 60 != 0 => format!("{}h{}m", s / 3600, (s / 60) % 60),
        7200..172_800 => format!("{}h", s / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

/// Seconds with one decimal: `4.2 s`.
pub fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(["NAME", "READY"], [["demo".to_owned(), "True".to_owned()], ["a-longer-name".to_owned(), String::new()]]);
        assert_eq!(text, "NAME            READY\ndemo            True\na-longer-name\n");
    }

    #[test]
    fn ages_read_as_kubectls() {
        let ages: Vec<String> = [0, 119, 125, 600, 7260, 90_000, 1_000_000].into_iter().map(age).collect();
        assert_eq!(ages, ["0s", "119s", "2m5s", "10m", "2h1m", "25h", "11d"]);
    }
}
