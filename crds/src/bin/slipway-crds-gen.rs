//! Writes what is generated from the types below a directory, the repository's root: `slipway-crds-gen DIR [--check]`. With `--check` it only compares
//! and fails where something differs.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            eprintln!("not as the types say: {}; run `cargo xtask gen`", stale.join(", "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Files that differ and were not to be written.
fn run() -> Result<Vec<String>, Box<dyn Error>> {
    let (flags, dirs): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let ([dir], [] | ["--check"]) = (dirs.as_slice(), flags.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) else {
        return Err("usage: slipway-crds-gen DIR [--check]".into());
    };
    let check = !flags.is_empty();
    let definitions = slipway_crds::yaml()?.into_iter().map(|(name, text)| (format!("crds/yaml/{name}"), text));
    let pages = slipway_crds::reference::pages().into_iter().map(|(name, text)| (format!("docs/reference/{name}"), text));
    let mut stale = Vec::new();
    for (name, wanted) in definitions.chain(pages) {
        let path = Path::new(dir).join(&name);
        if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            continue;
        }
        if check {
            stale.push(name);
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        }
        std::fs::write(&path, wanted).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(stale)
}
