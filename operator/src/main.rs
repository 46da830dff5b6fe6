//! The operator's program.

use clap::Parser;
use slipway_operator::run::{LogFormat, Settings, run};
use tracing_subscriber::EnvFilter;

/// Keeps Kubernetes clusters as their Cluster objects say.
#[derive(Parser)]
#[command(name = "slipway-operator", version)]
enum Arguments {
    /// Lead, or stand by, until told to end.
    Run(Box<Settings>),
    /// Print the objects that the operator needs in the management cluster: namespace and access.
    Manifests,
}

fn main() -> anyhow::Result<()> {
    // One provider for all of TLS, before anything uses it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Arguments::parse() {
        Arguments::Manifests => {
            print!("{}", slipway_operator::manifests_yaml()?);
            Ok(())
        }
        Arguments::Run(settings) => {
            log(settings.log_format);
            // Two threads: passes are short, and each further one costs memory.
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let result = runtime.block_on(run(*settings));
            // What still runs was abandoned on purpose.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            result
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,tower=warn,hyper=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
