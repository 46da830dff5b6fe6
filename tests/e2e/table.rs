//! The quick half of the fault table: `cargo xtask faults --quick`.

use slipway_tests::trials::faults;

#[test]
fn the_quick_half_of_the_fault_table_is_kept() {
    let logs = std::env::temp_dir().join(format!("slipway-faults-{}", std::process::id()));
    std::fs::create_dir_all(&logs).unwrap();
    println!("      logs: {}", logs.display());
    let rows = faults::run(&[], true, &logs).unwrap_or_else(|error| panic!("{error:#}"));
    // Seconds are measured by `cargo xtask faults`; how long something takes on a machine that has other things to do says little.
    let broken: Vec<_> = rows.iter().filter(|row| !row.wrong.is_empty() || row.healed.is_none()).collect();
    assert!(broken.is_empty(), "not kept: {broken:#?}");
    assert!(rows.len() >= 8, "only {} faults were tried", rows.len());
    std::fs::remove_dir_all(&logs).unwrap();
}
