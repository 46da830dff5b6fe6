//! `slipway-operator run`: settings in, clients made, leadership awaited, clusters kept until SIGTERM or until another one leads.

use crate::agents::GrpcAgents;
use crate::artifacts::ArtifactIndex;
use crate::clients::NetworkWorkloads;
use crate::context::{Context, LocalIdentities};
use crate::effects::Effects;
use crate::forecast::Desk;
use crate::looks::Looks;
use crate::metrics::Metrics;
use crate::snapshots::SnapshotStore;
use crate::{clients, controller, http_server};
use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use slipway_components::Profile;
use slipway_local::LocalClient;
use slipway_local::leader::{Candidate, Ended, Term, Timing};
use slipway_pki::AGENT_LIFE;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "slipway-operator";

/// Settings of one operator process: flags, each also an environment variable.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Kubeconfig of the management API. Default: KUBECONFIG, or the pod's service account.
    #[arg(long, env = "SLIPWAY_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// The local cloud's API as this operator reaches it: https://IP:PORT.
    #[arg(long, env = "SLIPWAY_CLOUD_LOCAL_ADDRESS")]
    pub cloud_local_address: String,
    /// The same as cluster machines reach it, where that differs.
    #[arg(long, env = "SLIPWAY_CLOUD_LOCAL_MACHINE_ADDRESS")]
    pub cloud_local_machine_address: Option<String>,
    /// File with the certificate of the local cloud's authority (PEM).
    #[arg(long, env = "SLIPWAY_CLOUD_LOCAL_CA")]
    pub cloud_local_ca: PathBuf,
    /// File with this operator's certificate towards the local cloud (PEM).
    #[arg(long, env = "SLIPWAY_CLOUD_LOCAL_CERT")]
    pub cloud_local_cert: PathBuf,
    /// File with its key (PEM).
    #[arg(long, env = "SLIPWAY_CLOUD_LOCAL_KEY")]
    pub cloud_local_key: PathBuf,
    /// The artifact index: which file each component's version is (JSON, written by `slipway up`).
    #[arg(long, env = "SLIPWAY_ARTIFACTS")]
    pub artifacts: PathBuf,
    /// Where machines find `<sha256>/<name>` of an artifact.
    #[arg(long, env = "SLIPWAY_ARTIFACT_SOURCE", default_value = "file:///opt/slipway/store/sha256")]
    pub artifact_source: String,
    /// How long the certificates of agents live, e.g. `8760h`, which is the most. They are renewed when a third of that is left.
    #[arg(long, env = "SLIPWAY_AGENT_CERTIFICATE_LIFE", default_value = "8760h", value_parser = life)]
    pub agent_certificate_life: SignedDuration,
    /// Where snapshots of etcd are kept: file:///DIRECTORY. Without, none are taken, and no upgrade of a control plane begins.
    #[arg(long, env = "SLIPWAY_SNAPSHOTS")]
    pub snapshots: Option<String>,
    /// Where /metrics, /healthz, /readyz and forecasts (/plan) are served, in plain HTTP to everybody who reaches it.
    #[arg(long, env = "SLIPWAY_METRICS", default_value = "127.0.0.1:8080")]
    pub metrics: SocketAddr,
    /// How many passes may run at once. Every cluster has its own loop in any case.
    #[arg(long, env = "SLIPWAY_WORKERS", default_value_t = 16)]
    pub workers: usize,
    /// Namespace of the leader's Lease.
    #[arg(long, env = "SLIPWAY_NAMESPACE", default_value = "slipway-system")]
    pub namespace: String,
    /// Who this is in the Lease. Give it only where a supervisor runs one process of that name at a time: it then takes its own former Lease over at once.
    #[arg(long, env = "SLIPWAY_IDENTITY")]
    pub identity: Option<String>,
    /// This operator's address as machines see it. For information: machines never dial it.
    #[arg(long, env = "SLIPWAY_OWN_ADDRESS")]
    pub own_address: Option<String>,
    /// `text` or `json`.
    #[arg(long, env = "SLIPWAY_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// For tests only: end the process right after the N-th effect on the outside world. See `effects`.
    #[arg(long, env = "SLIPWAY_DIE_AFTER_EFFECTS", hide_short_help = true)]
    pub die_after_effects: Option<u64>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs until SIGTERM or SIGINT (Ok) or until leadership is lost (an error: the supervisor starts it anew as a follower).
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    on_signal(stop.clone())?;
    let metrics = Arc::new(Metrics::default());
    let looks = Arc::new(Looks::default());
    let client = clients::management(settings.kubeconfig.as_deref()).await?;
    let artifacts = ArtifactIndex::read(&settings.artifacts, &settings.artifact_source)?;
    let desk = Arc::new(Desk::new(looks.clone(), metrics.clone(), client.clone(), artifacts));
    let server = tokio::spawn(http_server::serve(settings.metrics, metrics.clone(), looks.clone(), desk, stop.clone()));
    let context = |epoch| context(&settings, client.clone(), metrics.clone(), looks.clone(), epoch);
    // Wrong settings are told before leadership is asked for.
    drop(context(0)?);

    let candidate = candidate(&settings, client.clone());
    let term = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        term = lead(&candidate, client.clone(), &settings.namespace) => term,
    };
    tracing::info!(epoch = term.epoch, identity = candidate.identity, "leading");
    metrics.leads(term.epoch);
    let context = Arc::new(context(term.epoch)?);
    let step_down = context.step_down.clone();
    // The Lease is held until the last loop has ended: nobody else starts while this one still acts.
    let over = CancellationToken::new();
    let holding = tokio::spawn(term.hold(over.clone().cancelled_owned()));
    let keeping = tokio::spawn(controller::run(context, stop.clone()));
    tokio::pin!(holding);
    let ended = tokio::select! {
        ended = &mut holding => Some(ended.unwrap_or_else(|e| Ended::Lost(e.to_string()))),
        () = step_down.cancelled() => Some(Ended::Lost("an agent has heard a later leader".to_owned())),
        () = stop.cancelled() => None,
    };
    if let Some(Ended::Lost(why)) = ended {
        // Not a moment longer: whatever is under way is abandoned, as in a crash.
        bail!("another operator leads, or may ({why}): this one ends");
    }
    keeping.await.context("the controller ended unexpectedly")?;
    over.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(3), holding).await;
    drop(server);
    Ok(())
}

fn on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
        stop.cancel();
    });
    Ok(())
}

fn context(settings: &Settings, client: Client, metrics: Arc<Metrics>, looks: Arc<Looks>, epoch: u64) -> anyhow::Result<Context> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let (ca, certificate, key) = (read(&settings.cloud_local_ca)?, read(&settings.cloud_local_cert)?, read(&settings.cloud_local_key)?);
    let cloud = LocalClient::connect(&settings.cloud_local_address, &ca, &certificate, &key)?;
    let seen_by_machines = settings.cloud_local_machine_address.as_ref().unwrap_or(&settings.cloud_local_address);
    let reporter = Reporter { controller: "slipway-operator".to_owned(), instance: settings.identity.clone() };
    Ok(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        identities: Arc::new(LocalIdentities { client: cloud.clone(), endpoint: url(seen_by_machines) }),
        cloud: Arc::new(cloud),
        agents: Arc::new(GrpcAgents),
        workloads: Arc::new(NetworkWorkloads),
        artifacts: ArtifactIndex::read(&settings.artifacts, &settings.artifact_source)?,
        agent_certificate_life: settings.agent_certificate_life,
        snapshots: SnapshotStore::open(settings.snapshots.as_deref())?,
        profile: Profile::local(may_lower_oom_score()),
        epoch,
        effects: Effects::new(settings.die_after_effects),
        metrics,
        looks,
        step_down: CancellationToken::new(),
        workers: Semaphore::new(settings.workers.max(1)),
    })
}

/// What is left of a certificate when it is renewed has to outlast a moment in which the operator is away.
fn life(text: &str) -> Result<SignedDuration, String> {
    let life: SignedDuration = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let (least, most) = (SignedDuration::from_mins(1), AGENT_LIFE);
    if (least..=most).contains(&life) { Ok(life) } else { Err(format!("between {least:#} and {most:#}, please")) }
}

fn url(address: &str) -> String {
    if address.starts_with("https://") { address.to_owned() } else { format!("https://{address}") }
}

/// Whether machines of the local cloud have CAP_SYS_RESOURCE (bit 24): they get what their host has, and so does this one's first process.
fn may_lower_oom_score() -> bool {
    let status = std::fs::read_to_string("/proc/1/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bounding.is_some_and(|set| set & (1 << 24) != 0)
}

fn candidate(settings: &Settings, client: Client) -> Candidate {
    let api: Api<Lease> = Api::namespaced(client, &settings.namespace);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = || format!("{}_{}_{}", host.trim(), std::process::id(), crate::clock::now().as_nanosecond());
    Candidate {
        api,
        name: LEASE.to_owned(),
        timing: if settings.identity.is_some() { Timing::SINGLE } else { Timing::REPLICATED },
        identity: settings.identity.clone().unwrap_or_else(own),
    }
}

/// Leadership; the Lease's namespace is made where it is missing and may be made.
async fn lead(candidate: &Candidate, client: Client, namespace: &str) -> Term {
    let namespaces: Api<Namespace> = Api::all(client);
    let wanted = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let apply = async {
        let there = crate::api::call(namespaces.get_metadata_opt(namespace)).await;
        if matches!(there, Ok(None)) {
            let made = crate::api::call(namespaces.patch(namespace, &PatchParams::apply("slipway-operator"), &Patch::Apply(&wanted))).await;
            if let Err(error) = made {
                tracing::warn!(%error, "namespace {namespace} is missing and cannot be made: apply the operator's manifests");
            }
        }
    };
    apply.await;
    candidate.acquire().await
}
