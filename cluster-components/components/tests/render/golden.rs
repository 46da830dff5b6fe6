//! Everything that is rendered, readable, one directory per minor. After a change: `INSTA_UPDATE=always cargo test -p slipway-components`, and read the diff.

use crate::fixtures;
use base64::{Engine, engine::general_purpose::STANDARD};
use slipway_components::{addons, machine};
use slipway_model::{File, MachinePlan, ProbeKind};
use std::fmt::Write;

#[test]
fn machines_and_addons_look_as_they_were_reviewed() {
    for version in fixtures::VERSIONS {
        let minor = version.trim_start_matches('v').rsplit_once('.').unwrap().0;
        let settings = addons::AddonSettings { network: fixtures::network(), coredns: fixtures::coredns() };
        let objects: Vec<_> = addons::render(&settings).objects.iter().map(|o| serde_json::to_string_pretty(o).unwrap()).collect();
        let rendered = [
            ("control-plane-of-3", show(&machine::control_plane(&fixtures::control_plane(version, 3)).unwrap())),
            ("control-plane-of-1", show(&machine::control_plane(&fixtures::control_plane(version, 1)).unwrap())),
            ("control-plane-that-joins", show(&machine::control_plane(&fixtures::joiner(version)).unwrap())),
            ("control-plane-that-retires", show(&machine::control_plane(&fixtures::retiring(version)).unwrap())),
            ("worker", show(&machine::worker(&fixtures::worker(version)).unwrap())),
            ("management", show(&machine::management(&fixtures::management(version)).unwrap())),
            ("addons", objects.join("\n")),
        ];
        let mut insta = insta::Settings::clone_current();
        insta.set_snapshot_path(format!("golden/{minor}"));
        insta.set_prepend_module_to_snapshot(false);
        insta.set_omit_expression(true);
        insta.bind(|| rendered.iter().for_each(|(name, text)| insta::assert_snapshot!(*name, text)));
    }
}

/// A plan for people.
fn show(plan: &MachinePlan) -> String {
    let mut text = String::new();
    plan.users.iter().for_each(|user| writeln!(text, "user {} {}", user.name, user.id).unwrap());
    plan.directories.iter().for_each(|d| writeln!(text, "directory {:04o} {} {}", d.mode, d.owner, d.path).unwrap());
    let artifacts: Vec<_> = plan.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    writeln!(text, "artifacts {}", artifacts.join(" ")).unwrap();
    for probe in &plan.probes {
        let how = match &probe.kind {
            ProbeKind::Http { url } => format!("GET {url}"),
            ProbeKind::Socket { path } => format!("connect to {path}"),
            ProbeKind::Active => "is active".to_owned(),
        };
        writeln!(text, "probe {} of {}: {how}", probe.name, probe.unit).unwrap();
    }
    if let Some(gate) = &plan.gate {
        writeln!(text, "gate on port {} of {}", gate.port, gate.units.join(" ")).unwrap();
    }
    for unit in &plan.units {
        writeln!(text, "\n=== unit {} {:?}\nrestarted by files {}", unit.name, unit.state, unit.files.join(" ")).unwrap();
        writeln!(text, "restarted by artifacts {}\n{}", unit.artifacts.join(" "), unit.content).unwrap();
    }
    for file in &plan.files {
        writeln!(text, "\n=== file {:04o} {} {}\n{}", file.mode, file.owner, file.path, content(file)).unwrap();
    }
    text
}

/// A kubeconfig's certificates and keys are base64: shown as what they are.
fn content(file: &File) -> String {
    let text = String::from_utf8(file.content.0.clone()).unwrap();
    let line = |line: &str| match line.split_once("-data: ") {
        Some((key, data)) => format!("{key}-data: {}", String::from_utf8(STANDARD.decode(data).unwrap()).unwrap().trim_end()),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
