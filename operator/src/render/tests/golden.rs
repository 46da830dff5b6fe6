//! Revision hashes: the plan digest of every machine of every example, with what each of its units is started with. A new release of Slipway restarts
//! on running clusters exactly the units whose line changes here, so a change of this file is a decision: see docs/concepts.md, "A new release".
//! After one: `INSTA_UPDATE=always cargo test -p slipway-operator render`, and read the diff.

use super::clusters::{Cluster, Machine, fingerprints, spec};
use slipway_artifacts::catalogue;
use slipway_plan::{JoinRecord, MemberId};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const HA: &str = include_str!("../../../../examples/local-ha.yaml");

fn show(text: &mut String, title: &str, cluster: &Cluster, machines: &[Machine]) {
    for machine in machines {
        let plan = cluster.plan(machine).unwrap();
        writeln!(text, "{title}: {} {}", machine.name, plan.digest()).unwrap();
        fingerprints(&plan).iter().for_each(|(unit, print)| writeln!(text, "    {print}  {unit}").unwrap());
    }
}

fn insta() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn a_new_release_changes_no_machine_of_any_example() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files: BTreeMap<_, _> = std::fs::read_dir(examples).unwrap().map(|f| f.unwrap()).map(|f| (f.file_name(), f.path())).collect();
    let mut text = String::new();
    for (name, path) in files {
        let yaml = std::fs::read_to_string(path).unwrap();
        let object: slipway_crds::Cluster = serde_saphyr::from_str(&yaml).unwrap();
        let cluster = Cluster::new(spec(&yaml, &object.spec.kubernetes_version));
        show(&mut text, name.to_str().unwrap(), &cluster, &cluster.machines);
    }
    insta().bind(|| insta::assert_snapshot!("examples", text));
}

#[test]
fn a_new_release_changes_no_machine_of_any_version() {
    let mut text = String::new();
    for set in catalogue::supported() {
        let cluster = Cluster::new(spec(HA, set.kubernetes));
        show(&mut text, set.kubernetes, &cluster, &[cluster.machines[0].clone(), cluster.machines[3].clone()]);
    }
    insta().bind(|| insta::assert_snapshot!("versions", text));
}

#[test]
fn a_new_release_changes_no_machine_that_joined_or_retires() {
    let cluster = Cluster::new(spec(HA, "v1.36.4"));
    let joined = joined(&cluster);
    let retiring = Machine { retiring: true, ..cluster.machines[0].clone() };
    let mut text = String::new();
    show(&mut text, "joined", &cluster, std::slice::from_ref(&joined));
    show(&mut text, "retiring founder", &cluster, &[retiring]);
    show(&mut text, "retiring later on", &cluster, &[Machine { retiring: true, ..joined }]);
    insta().bind(|| insta::assert_snapshot!("membership", text));
}

/// The machine that took the second one's place.
pub fn joined(cluster: &Cluster) -> Machine {
    let address = "198.18.1.40".parse().unwrap();
    let mut members = cluster.founders.clone();
    members.remove(&"demo-cp-1".parse().unwrap());
    members.insert("demo-cp-3".parse().unwrap(), address);
    let join = JoinRecord { member: MemberId(7), members };
    Machine { name: "demo-cp-3".parse().unwrap(), address, join: Some(join), ..cluster.machines[0].clone() }
}
