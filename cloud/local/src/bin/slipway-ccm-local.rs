//! `slipway-ccm-local`: cloud-controller-manager of a cluster whose machines are of the local cloud.

use anyhow::{Context, Result};
use clap::Parser;
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use slipway_cloud_api::ClusterKey;
use slipway_local::LocalClient;
use slipway_local::ccm::Controller;
use slipway_local::leader::{Candidate, Ended, Timing};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Node, pod-range and route controller for the local cloud.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Kubeconfig of the cluster.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// UID of the Cluster object that the machines belong to.
    #[arg(long)]
    cluster_uid: String,
    /// `https://IP:PORT` of slipway-local.
    #[arg(long)]
    daemon: String,
    /// PEM of the daemon's CA.
    #[arg(long)]
    ca: PathBuf,
    /// PEM of the client certificate with the role `ccm:<cluster uid>`.
    #[arg(long)]
    cert: PathBuf,
    /// PEM of its key.
    #[arg(long)]
    key: PathBuf,
    /// Pod range of the cluster.
    #[arg(long)]
    cluster_cidr: ipnet::Ipv4Net,
    /// Prefix length of each Node's share of it.
    #[arg(long, default_value_t = 24)]
    node_cidr_mask_size: u8,
    /// Where `/healthz` answers.
    #[arg(long, default_value = "127.0.0.1:10258")]
    health_address: SocketAddr,
    /// Whether to wait for the lease `kube-system/slipway-ccm-local`.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
}

fn main() -> Result<()> {
    // A level is enough, and a filter by target would cost a megabyte of regular expressions.
    let level = std::env::var("SLIPWAY_LOG").ok().and_then(|l| l.parse().ok()).unwrap_or(tracing::Level::INFO);
    // An API server that is down is told by whoever asks it; kube's client would tell it once more for each try.
    let targets = Targets::new().with_default(level).with_target("kube_client", LevelFilter::OFF);
    // The journal has its own clock, and colours are for people.
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(targets).init();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Cli::parse()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

async fn run(cli: Cli) -> Result<()> {
    let listener =
        tokio::net::TcpListener::bind(cli.health_address).await.with_context(|| format!("listening on {}", cli.health_address))?;
    tokio::spawn(health(listener));
    let kubeconfig = Kubeconfig::read_from(&cli.kubeconfig).with_context(|| format!("reading {}", cli.kubeconfig.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(std::time::Duration::from_secs(2));
    let client = kube::Client::try_from(config)?;
    let cloud = LocalClient::connect(&cli.daemon, &read(&cli.ca)?, &read(&cli.cert)?, &read(&cli.key)?)?;
    // The name is for messages only; the UID is what counts.
    let cluster = ClusterKey { uid: cli.cluster_uid, name: "cluster".parse()? };
    let controller =
        Controller { client: client.clone(), cloud, cluster, cluster_cidr: cli.cluster_cidr, node_mask: cli.node_cidr_mask_size };
    let stop = async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        term.recv().await;
        anyhow::Ok(())
    };
    let work = async {
        if !cli.leader_elect {
            controller.run().await;
            return anyhow::Ok(());
        }
        let host = read(Path::new("/proc/sys/kernel/hostname"))?;
        // One per machine, since systemd runs one: a restarted one leads again at once.
        let candidate = Candidate {
            api: kube::Api::namespaced(client, "kube-system"),
            name: "slipway-ccm-local".to_owned(),
            identity: host.trim().to_owned(),
            timing: Timing::SINGLE,
        };
        let term = candidate.acquire().await;
        tracing::info!("leading");
        tokio::select! {
            () = controller.run() => Ok(()),
            // Never released: the controller acts until the process ends, and the next one of this machine is its successor at once.
            ended = term.hold(std::future::pending()) => match ended {
                Ended::Lost(why) => anyhow::bail!("no longer leading: {why}"),
                Ended::Stopped => Ok(()),
            },
        }
    };
    tokio::select! { done = work => done, done = stop => done }
}

/// Answers 200 to everything: that it answers is the news.
async fn health(listener: tokio::net::TcpListener) {
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let ok = |_: hyper::Request<Incoming>| async {
                Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(Bytes::from("ok"))))
            };
            let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), hyper::service::service_fn(ok));
            let _ = tokio::time::timeout(std::time::Duration::from_secs(30), served).await;
        });
    }
}
