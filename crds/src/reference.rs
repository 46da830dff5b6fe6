//! Pages of `docs/reference/`: every field of a kind with its type, default and allowed values, read from the schema that the API server gets.

use crate::render::all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;
use std::fmt::Write;

/// File names below `docs/reference/` and their contents.
#[must_use]
pub fn pages() -> Vec<(String, String)> {
    all().iter().map(|crd| (format!("{}.md", crd.spec.names.kind.to_lowercase()), page(crd))).collect()
}

fn page(crd: &CustomResourceDefinition) -> String {
    let names = &crd.spec.names;
    let mut out = format!("<!-- Generated from crds/src by `cargo xtask gen`: change it there. -->\n# {}\n\n", names.kind);
    let Some(version) = crd.spec.versions.first() else { return out };
    let schema =
        version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()).and_then(|s| serde_json::to_value(s).ok()).unwrap_or_default();
    let _ = writeln!(out, "{}\n", text(&schema, "description"));
    let short = names.short_names.iter().flatten().cloned().collect::<Vec<_>>().join("`, `");
    let _ = writeln!(
        out,
        "`apiVersion: {}/{}`, `kind: {}`, namespaced. `kubectl get {}` or `{short}`.\n",
        crd.spec.group, version.name, names.kind, names.plural
    );
    // A column of a word's own name or age explains itself.
    let columns: Vec<&str> = version.additional_printer_columns.iter().flatten().map(|c| c.name.as_str()).collect();
    let _ = writeln!(out, "Columns: Name, {}.\n", columns.join(", "));
    if let Some(scale) = version.subresources.as_ref().and_then(|s| s.scale.as_ref()) {
        let _ = writeln!(out, "`kubectl scale` and autoscalers set `{}`.\n", scale.spec_replicas_path.trim_start_matches('.'));
    }
    for message in messages(&schema) {
        let _ = writeln!(out, "Refused: {message}.\n");
    }
    for part in ["spec", "status"] {
        if let Some(schema) = schema.pointer(&format!("/properties/{part}")) {
            section(&mut out, part, schema);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// A heading, a table, and a section for every object below.
fn section(out: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|p| !p.is_empty()) else { return };
    let _ = writeln!(out, "## {path}\n");
    if !text(schema, "description").is_empty() {
        let _ = writeln!(out, "{}\n", text(schema, "description"));
    }
    for message in messages(schema) {
        let _ = writeln!(out, "Refused: {message}.\n");
    }
    let _ = writeln!(out, "| Field | Type | Default | Allowed | |\n|---|---|---|---|---|");
    let required: Vec<&str> = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in properties {
        let default = match field.get("default") {
            Some(value) => format!("`{value}`"),
            None if required.contains(&name.as_str()) => "required".to_owned(),
            None => String::new(),
        };
        let path = format!("{path}.{name}");
        let row = [format!("`{name}`"), kind(&path, field), default, allowed(field), text(field, "description").to_owned()];
        let _ = writeln!(out, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    out.push('\n');
    for (name, field) in properties {
        let (path, field) = innermost(&format!("{path}.{name}"), field);
        section(out, &path, field);
    }
}

/// What a list or map holds, with the path to it.
fn innermost<'a>(path: &str, field: &'a Value) -> (String, &'a Value) {
    match (field.get("items"), field.get("additionalProperties")) {
        (Some(items), _) => innermost(&format!("{path}[]"), items),
        (None, Some(values)) if values.is_object() => innermost(&format!("{path}.<key>"), values),
        _ => (path.to_owned(), field),
    }
}

fn kind(path: &str, field: &Value) -> String {
    let (inner_path, inner) = innermost(path, field);
    let word = match text(inner, "type") {
        "object" if inner.get("properties").is_some() => {
            let anchor: String = inner_path.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
            format!("[object](#{anchor})")
        }
        "string" if text(inner, "format") == "date-time" => "time".to_owned(),
        other => other.to_owned(),
    };
    match (field.get("items"), field.get("additionalProperties")) {
        (Some(_), _) => format!("list of {word}"),
        (None, Some(_)) => format!("map to {word}"),
        (None, None) => word,
    }
}

/// Bounds and rules in words. Texts' mere lengths are left out: the rules say what is really allowed.
fn allowed(field: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(words) = field.get("enum").and_then(Value::as_array) {
        parts.push(words.iter().filter_map(Value::as_str).map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "));
    }
    let number = |key| field.get(key).and_then(Value::as_f64).map(|n| n.to_string());
    match (number("minimum"), number("maximum")) {
        (Some(low), Some(high)) => parts.push(format!("{low} to {high}")),
        (Some(low), None) => parts.push(format!("at least {low}")),
        (None, Some(high)) => parts.push(format!("at most {high}")),
        (None, None) => {}
    }
    for (key, what) in [("maxItems", "items"), ("maxProperties", "entries")] {
        parts.extend(number(key).map(|n| format!("at most {n} {what}")));
    }
    // An object's rules stand above its own table.
    if field.get("properties").is_none() {
        // "field is value: what is allowed"
        parts.extend(messages(field).map(|m| m.split_once(": ").map_or(m.as_str(), |(_, demand)| demand).to_owned()));
    }
    parts.join("; ")
}

/// What is said when a rule is broken, with … for what is computed.
fn messages(schema: &Value) -> impl Iterator<Item = String> {
    let rules = schema.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    rules.map(|rule| match rule.get("messageExpression").and_then(Value::as_str) {
        Some(expression) => template(expression),
        None => text(rule, "message").to_owned(),
    })
}

/// The template of a message, with … for what is filled in: see [`crate::rules`].
fn template(expression: &str) -> String {
    let template = expression.split_once("'.format(").map_or(expression, |(template, _)| template);
    template.trim_start_matches('\'').replace("%s", "…")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_computed_message_reads_as_a_sentence() {
        assert_eq!(template("'a is %s (%s): must be b'.format([self['x'], string(f(self))])"), "a is … (…): must be b");
        assert_eq!(template("'a is %s: must be %s'.format([self.a, f(self) ? 'b' : 'c %s'.format([d])])"), "a is …: must be …");
    }

    #[test]
    fn no_page_shows_an_expression() {
        for (name, page) in pages() {
            for line in page.lines().filter(|l| l.starts_with("Refused: ")) {
                assert!(!line.contains("self.") && !line.contains("has("), "{name}: {line}");
            }
        }
    }

    #[test]
    fn every_field_that_people_write_says_what_it_is() {
        for (name, page) in pages() {
            let rows = page.lines().filter(|l| l.starts_with("| `"));
            for row in rows {
                assert!(!row.ends_with("|  |"), "{name}: {row}");
            }
        }
    }
}
