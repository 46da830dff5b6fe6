//! The programs themselves know every flag that is rendered for them.

use crate::fixtures;
use slipway_components::machine;
use std::collections::BTreeSet;
use std::process::Command;

/// Takes seconds and needs the binaries, so it is asked for: `SLIPWAY_TEST_BIN=v1.36.4=DIR,v1.37.2=DIR cargo test -p slipway-components -- --ignored`.
#[test]
#[ignore = "needs Kubernetes' binaries: SLIPWAY_TEST_BIN=v1.36.4=DIR[,…]"]
fn no_flag_is_unknown_to_its_program() {
    let directories = std::env::var("SLIPWAY_TEST_BIN").unwrap();
    for (version, directory) in directories.split(',').map(|entry| entry.split_once('=').unwrap()) {
        let plan = machine::control_plane(&fixtures::control_plane(version, 3)).unwrap();
        for unit in &plan.units {
            let text = unit.content.replace(" \\\n  ", " ");
            let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/opt/slipway/bin/")).unwrap_or_default();
            let mut words = command.split(' ');
            let program = format!("{directory}/{}", words.next().unwrap());
            // ctr puts its flags behind subcommands, and Slipway's own programs are tested where they are.
            if ["ctr", "slipway-ccm-local", ""].iter().any(|name| program.ends_with(&format!("/{name}"))) {
                continue;
            }
            let output = Command::new(&program).arg("--help").output().unwrap_or_else(|error| panic!("{program}: {error}"));
            let help = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            let known: BTreeSet<_> = help.split([' ', '\n', '=', ',']).filter(|word| word.starts_with("--")).collect();
            let flags: Vec<_> = words.map(|word| word.split('=').next().unwrap()).filter(|word| word.starts_with("--")).collect();
            assert!(!flags.is_empty());
            flags.iter().for_each(|flag| assert!(known.contains(flag), "{version}: {program} knows no {flag}"));
        }
    }
}
