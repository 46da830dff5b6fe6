//! The reference of the command line, as Markdown, from the same definitions that parse it.

use crate::args::Cli;
use crate::outcome::Outcome;
use clap::{Arg, Command, CommandFactory};
use std::fmt::Write;

/// docs/reference/cli.md.
pub fn markdown() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = String::from("# `slipway`\n\n<!-- Made by `cargo xtask gen`. Do not edit. -->\n\n");
    let _ = writeln!(out, "{}\n", text(root.get_about()));
    out.push_str("Also works as `kubectl slipway`, when the program or a link to it is on the PATH as `kubectl-slipway`.\n\n## Exit codes\n\n| code | meaning |\n|---|---|\n");
    for (outcome, meaning) in Outcome::all() {
        let _ = writeln!(out, "| {} | {meaning} |", outcome.code());
    }
    out.push_str("\n## Options of every command\n\n");
    for arg in root.get_arguments().filter(|a| a.is_global_set()) {
        option(&mut out, arg);
    }
    for command in root.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        section(&mut out, command, "slipway", 2);
    }
    out
}

fn section(out: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(out, "\n{} `{name}`\n\n{}\n", "#".repeat(level), text(command.get_about()));
    let mut usage = command.clone();
    let line = usage.render_usage().to_string();
    let _ = writeln!(out, "```\n{}\n```\n", line.trim_start_matches("Usage: ").trim());
    for arg in command.get_arguments().filter(|a| !a.is_global_set() && !a.is_hide_set() && a.get_id() != "help" && a.get_id() != "version")
    {
        option(out, arg);
    }
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        section(out, sub, &name, level + 1);
    }
}

fn option(out: &mut String, arg: &Arg) {
    let mut head = Vec::new();
    if let Some(short) = arg.get_short() {
        head.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        head.push(format!("--{long}"));
    }
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let mut title = if head.is_empty() { value.clone().unwrap_or_else(|| arg.get_id().to_string()) } else { head.join(", ") };
    if !head.is_empty() && arg.get_action().takes_values() {
        let _ = write!(title, " {}", value.unwrap_or_default());
    }
    let mut notes = Vec::new();
    let values: Vec<String> = arg.get_possible_values().iter().filter(|v| !v.is_hide_set()).map(|v| v.get_name().to_owned()).collect();
    if !values.is_empty() && arg.get_action().takes_values() {
        notes.push(format!("one of {}", values.join(", ")));
    }
    let defaults: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() && arg.get_action().takes_values() {
        notes.push(format!("default: {}", defaults.join(", ")));
    }
    if let Some(env) = arg.get_env() {
        notes.push(format!("environment: {}", env.to_string_lossy()));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    let _ = writeln!(out, "- `{}`: {}{notes}", title.trim(), text(arg.get_help()));
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    styled.map(|s| s.to_string().trim_end_matches('.').to_owned() + ".").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_the_reference_and_hidden_ones_are_not() {
        let text = markdown();
        for command in
            ["up", "down", "doctor", "get", "describe", "kubeconfig", "wait", "logs", "plan", "events", "artifacts fetch", "completion"]
        {
            assert!(text.contains(&format!("`slipway {command}`")), "{command}");
        }
        assert!(!text.contains("cli-docs"));
        assert!(text.contains("| 6 |") && text.contains("SLIPWAY_STATE"));
    }
}
