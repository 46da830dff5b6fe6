//! When each machine reached each stage: as a table and as a picture. Pure.

use crate::view::{ClusterView, MachineView};
use jiff::Timestamp;
use std::fmt::Write;

/// Milliseconds since the cluster was made.
fn offset(origin: Timestamp, at: Timestamp) -> i64 {
    at.as_millisecond().saturating_sub(origin.as_millisecond())
}

/// The moment that everything is counted from.
pub fn origin(cluster: &ClusterView) -> Option<Timestamp> {
    let stages = cluster.machines().flat_map(|m| m.stages.iter().map(|s| s.at));
    cluster.created.into_iter().chain(stages).min()
}

/// A machine and its stages in the order in which they were reached.
fn ordered(machine: &MachineView) -> Vec<(&str, Timestamp)> {
    let mut stages: Vec<(&str, Timestamp)> = machine.stages.iter().map(|s| (s.name.as_str(), s.at)).collect();
    stages.sort_by_key(|(_, at)| *at);
    stages
}

/// All stages in the order of their earliest appearance, so that a table reads downwards in time.
fn stages<'a>(machines: &[&'a MachineView]) -> Vec<&'a str> {
    let mut stages: Vec<(&str, Timestamp)> = Vec::new();
    for (name, at) in machines.iter().flat_map(|m| ordered(m)) {
        match stages.iter_mut().find(|(known, _)| *known == name) {
            Some((_, first)) => *first = (*first).min(at),
            None => stages.push((name, at)),
        }
    }
    stages.sort_by_key(|(_, at)| *at);
    stages.into_iter().map(|(name, _)| name).collect()
}

/// `12.345` as `12.3`.
fn tenths(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{}", ms.abs() / 1000, ms.abs() % 1000 / 100)
}

/// Rows of a table: stage, then one column per machine with seconds since the cluster was made.
pub fn table(cluster: &ClusterView) -> String {
    let Some(origin) = origin(cluster) else { return "no machine has reached any stage yet\n".to_owned() };
    let machines: Vec<&MachineView> = cluster.machines().collect();
    let stages = stages(&machines);
    let mut out = String::new();
    let first = stages.iter().map(|n| n.len()).max().unwrap_or(0).max("seconds".len());
    let _ = write!(out, "{:<first$}", "seconds");
    for machine in &machines {
        let _ = write!(out, "  {:>8}", machine.name);
    }
    out.push('\n');
    for stage in &stages {
        let _ = write!(out, "{stage:<first$}");
        for machine in &machines {
            let width = machine.name.len().max(8);
            let cell = machine.stages.iter().find(|s| s.name == *stage).map(|s| tenths(offset(origin, s.at))).unwrap_or_default();
            let _ = write!(out, "  {cell:>width$}");
        }
        while out.ends_with(' ') {
            out.pop();
        }
        out.push('\n');
    }
    out
}

const WIDTH: i64 = 820;
/// Of one letter of a label, which a renderer may draw a little narrower.
const LETTER: i64 = 7;
const ROW: i64 = 34;
/// One per stage, neighbours told apart by lightness too, for people who see few colours. The text on each is the second.
const COLOURS: [(&str, &str); 12] = [
    ("#d5dde5", "#000000"),
    ("#9db4c8", "#000000"),
    ("#5f87a8", "#ffffff"),
    ("#2f5d83", "#ffffff"),
    ("#ead9b0", "#000000"),
    ("#c2a15a", "#000000"),
    ("#9a7428", "#ffffff"),
    ("#6b4e14", "#ffffff"),
    ("#c9e2cf", "#000000"),
    ("#7fae8a", "#000000"),
    ("#3f7d50", "#ffffff"),
    ("#1d5230", "#ffffff"),
];

/// Height of a line of the legend.
const LINE: i64 = 20;

/// What the pieces are, for those too narrow for a word: stage, place in its line, line. As many lines as the picture's width asks for.
fn legend<'a>(stages: &[&'a str], length: impl Fn(&str) -> i64) -> Vec<(&'a str, i64, i64)> {
    let (mut at, mut line) = (0, 0);
    let mut placed = Vec::new();
    for stage in stages {
        let width = 24 + length(stage);
        if at > 0 && at + width > WIDTH {
            (at, line) = (0, line + 1);
        }
        placed.push((*stage, at, line));
        at += width;
    }
    placed
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An SVG picture: one bar per machine, cut at each stage; a bar's piece ends where its stage was reached.
pub fn svg(cluster: &ClusterView) -> String {
    let machines: Vec<&MachineView> = cluster.machines().collect();
    let origin = origin(cluster).unwrap_or(Timestamp::UNIX_EPOCH);
    let end = machines.iter().flat_map(|m| m.stages.iter().map(|s| offset(origin, s.at))).max().unwrap_or(0).max(1000);
    let rows = i64::try_from(machines.len()).unwrap_or(0);
    let stages = stages(&machines);
    let colour = |stage: &str| {
        let index = stages.iter().position(|s| *s == stage).unwrap_or(0);
        COLOURS.get(index % COLOURS.len()).copied().unwrap_or(("#2f5d83", "#ffffff"))
    };
    let length = |text: &str| LETTER * i64::try_from(text.chars().count()).unwrap_or(0);
    // Room for the longest name.
    let left = machines.iter().map(|m| length(&m.name)).max().unwrap_or(0).max(100) + 20;
    let legend = legend(&stages, length);
    let below = legend.last().map_or(0, |(_, _, line)| line + 1);
    let (height, full) = (50 + rows * ROW + 34 + below * LINE + 6, left + WIDTH + 40);
    let x = |ms: i64| left + ms.clamp(0, end) * WIDTH / end;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {full} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{full}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\">{}, {}: seconds since the Cluster was made</text>\n",
        escaped(&cluster.name),
        escaped(&cluster.version)
    );
    let step = [500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000].into_iter().find(|s| end / s <= 12).unwrap_or(600_000);
    for tick in (0..=end / step).map(|i| i * step) {
        let at = x(tick);
        let bottom = 50 + rows * ROW;
        let _ = writeln!(
            out,
            "<path d=\"M{at} 44V{bottom}\" stroke=\"#dddddd\"/><text x=\"{at}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>",
            bottom + 16,
            tenths(tick)
        );
    }
    for (row, machine) in machines.iter().enumerate() {
        let y = 50 + i64::try_from(row).unwrap_or(0) * ROW;
        let _ = writeln!(out, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", left - 8, y + 17, escaped(&machine.name));
        let mut from = 0;
        for (stage, at) in ordered(machine) {
            let to = offset(origin, at);
            let (begin, width) = (x(from), (x(to) - x(from)).max(1));
            let (colour, ink) = colour(stage);
            let name = escaped(stage);
            let _ = write!(
                out,
                "<g><title>{name}: {} s</title><rect x=\"{begin}\" y=\"{y}\" width=\"{width}\" height=\"24\" fill=\"{colour}\"/>",
                tenths(to)
            );
            if width > length(stage) + 6 {
                let _ = write!(out, "<text x=\"{}\" y=\"{}\" fill=\"{ink}\" font-size=\"11\">{name}</text>", begin + 4, y + 16);
            }
            out.push_str("</g>\n");
            from = to;
        }
    }
    for (stage, at, line) in legend {
        let (colour, _) = colour(stage);
        let (x, y) = (left + at, 50 + rows * ROW + 34 + line * LINE);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\" font-size=\"11\">{}</text>",
            x + 14,
            y + 9,
            escaped(stage)
        );
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::view::tests::example;

    #[test]
    fn the_table_reads_downwards_in_time() {
        insta::assert_snapshot!(table(&example()));
    }

    #[test]
    fn the_picture_has_a_bar_per_stage() {
        let picture = svg(&example());
        assert_eq!(picture.matches("<title>").count(), 6);
        assert!(picture.contains(">demo-workers-0<") && picture.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_legend_stays_within_the_picture_and_no_two_of_it_overlap() {
        let stages =
            ["recorded", "created", "running", "answering", "claimed", "configuring", "configured", "etcd", "apiserver", "registered"];
        let length = |text: &str| 10 * i64::try_from(text.len()).unwrap();
        let placed = legend(&stages, length);
        assert!(placed.iter().all(|(stage, at, _)| at + 14 + length(stage) <= WIDTH), "{placed:?}");
        for pair in placed.windows(2) {
            let [(stage, at, line), (_, next, next_line)] = pair else { panic!("windows of two") };
            assert!(next_line > line || *next > at + 14 + length(stage), "{placed:?}");
        }
        assert!(placed.last().unwrap().2 > 0, "so many do not stand in one line");
    }

    #[test]
    fn nothing_reached_is_said() {
        let mut empty = example();
        empty.pools.clear();
        empty.created = None;
        assert_eq!(table(&empty), "no machine has reached any stage yet\n");
        assert!(svg(&empty).contains("</svg>"));
    }
}
