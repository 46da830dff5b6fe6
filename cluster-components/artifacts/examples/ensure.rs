//! Fills the default store with a Kubernetes version: `cargo run -p slipway-artifacts --example ensure -- v1.36.4`.
//! With `--modules`, whatever official releases there are, it is built; with `--full`, every file is read and hashed.

use std::process::ExitCode;
use std::time::Instant;

use slipway_artifacts::{EnsureOptions, SourceChoice, Stderr, Store, catalogue, ensure};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let version = arguments.iter().find(|argument| !argument.starts_with("--"));
    let options = EnsureOptions {
        source: if has("--modules") { SourceChoice::GoModules } else { SourceChoice::Auto },
        full: has("--full"),
        ..EnsureOptions::default()
    };
    let started = Instant::now();
    let version = version.map_or(catalogue::DEFAULT_KUBERNETES, String::as_str);
    let result = Store::open_default().map_err(Into::into).and_then(|store| ensure(&store, version, &options, &Stderr));
    match result {
        Ok(artifacts) => {
            for artifact in &artifacts {
                println!("{:>9} KiB  {}  {}", artifact.size >> 10, artifact.name, artifact.path.display());
            }
            eprintln!("{} artifacts in {:.1} s", artifacts.len(), started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
