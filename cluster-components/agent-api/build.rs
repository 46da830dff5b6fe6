//! Compiles the contract without a protoc on the machine.

use std::fmt::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/agent.proto");
    let files = protox::compile(["proto/agent.proto"], ["proto"])?;
    // Every method's URI path: the agent's authorisation must have a rule for each, and a test holds it to that.
    let mut methods = String::from("/// URI path of every method of the contract.\npub const METHODS: &[&str] = &[\n");
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                writeln!(methods, "    \"/{}.{}/{}\",", file.package(), service.name(), method.name())?;
            }
        }
    }
    methods.push_str("];\n");
    std::fs::write(std::path::Path::new(&std::env::var("OUT_DIR")?).join("methods.rs"), methods)?;
    tonic_prost_build::configure().build_transport(false).compile_fds(files)?;
    Ok(())
}
