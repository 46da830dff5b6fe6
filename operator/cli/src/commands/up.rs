//! `slipway up`: from nothing, or from wherever the last run ended, to a management plane and ready clusters.
//!
//! ```text
//! file ──► doctor ──► lock ──┬─ artifacts ─┬─► machine ──► agent ──► plan ──► API ──► CRDs ──► apply FILE ──► Ready ──► checks
//!                            └─ daemon ────┘
//! ```
//! Every step looks before it acts, so the second run changes nothing and says so.

use crate::args::{Global, Up};
use crate::commands::doctor;
use crate::connect::client_of;
use crate::file::{self, Object};
use crate::outcome::{Outcome, refused, timed_out};
use crate::output::{print, seconds, table};
use crate::place::{Place, write_private};
use crate::plane::agent::Exchange;
use crate::plane::identity::PlaneIdentity;
use crate::plane::{Settings, daemon, machine, objects, own};
use crate::screen::Screen;
use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::Client;
use serde::Serialize;
use slipway_artifacts::{Artifact, EnsureOptions, Store, catalogue};
use slipway_model::ArtifactRef;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is printed at the end.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether anything had to be done.
    pub changed: bool,
    /// What is not as asked for, though all works: for people.
    pub warnings: Vec<String>,
    /// Kubeconfig of the management plane.
    pub management_kubeconfig: PathBuf,
    /// The clusters of the file.
    pub clusters: Vec<ReadyCluster>,
    /// What took how long.
    pub timings: Vec<Timing>,
}

/// A cluster that is ready.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyCluster {
    /// Its name.
    pub name: String,
    /// Where to reach it.
    pub kubeconfig: PathBuf,
    /// What was tried in it.
    pub checks: Vec<crate::check::Checked>,
}

/// A step and its time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// What.
    pub step: String,
    /// How long.
    pub seconds: f64,
}

/// One run.
pub struct Run {
    /// Where things lie.
    pub place: Place,
    /// What the local cloud is.
    pub settings: Settings,
    /// What people see.
    pub screen: Arc<Screen>,
    /// What comes out.
    pub report: Report,
    /// Whether finished clusters are tried.
    pub check: bool,
    /// One more argument for the operator.
    operator: Option<String>,
    deadline: Instant,
    timeout: Duration,
}

impl Run {
    /// A step with its time in the report, and an end of the whole run's patience.
    pub async fn timed<T>(&mut self, step: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let left = self.deadline.saturating_duration_since(started);
        let result = tokio::time::timeout(left, work).await;
        self.time(step, started.elapsed());
        result.unwrap_or_else(|_| {
            let all = seconds(self.timeout);
            Err(timed_out(format!(
                "{step}: not done when the time was up ({all}); the same command again carries on, --timeout gives it more"
            )))
        })
    }

    fn time(&mut self, step: &str, took: Duration) {
        self.report.timings.push(Timing { step: step.to_owned(), seconds: took.as_secs_f64() });
    }
}

/// Runs the command.
pub async fn run(global: &Global, args: &Up) -> Result<Outcome> {
    let objects = match &args.file {
        Some(path) => file::read(path)?,
        None => Vec::new(),
    };
    let versions = versions(&objects)?;
    let bin = programs(args.bin.as_deref())?;
    own::present(&bin)?;
    let place = Place::new(global.state.as_deref())?;
    let settings = doctor::settings(&place, &args.cloud, &args.store)?;
    settings.agree(&place)?;
    let (deadline, timeout) = (Instant::now() + args.timeout, args.timeout);
    let (screen, report) = (Arc::new(Screen::new()), Report::default());
    let operator = args.agent_certificate_life.map(|life| format!("--agent-certificate-life={}s", life.as_secs()));
    let mut run = Run { place, settings, screen, report, check: !args.no_check, operator, deadline, timeout };
    let (place, settings) = (run.place.clone(), run.settings.clone());
    run.timed("doctor", doctor::insist(&place, &settings)).await?;
    place.create()?;
    let _lock = place.lock()?;
    settings.write(&place)?;
    let result = work(&mut run, global, &objects, versions, &bin).await;
    run.screen.clear();
    result?;
    let total = run.screen.elapsed();
    run.time("all", total);
    print(global.output, &run.report, || text(&run.report, &run.place))?;
    Ok(Outcome::Done)
}

async fn work(run: &mut Run, global: &Global, objects: &[Object], versions: Vec<&'static str>, bin: &Path) -> Result<()> {
    let (place, settings, screen) = (run.place.clone(), run.settings.clone(), run.screen.clone());
    // The daemon reads nothing of the store before the first machine is made: both at once.
    let (artifacts, (cloud, started)) = run
        .timed("artifacts and local cloud", async {
            let store = settings.store.clone();
            let artifacts = tokio::task::spawn_blocking({
                let (screen, place, bin) = (screen.clone(), place.clone(), bin.to_owned());
                move || artifacts(&store, &versions, &place, &bin, &screen)
            });
            let artifacts = async { artifacts.await.context("the artifacts")? };
            tokio::try_join!(artifacts, daemon::ensure(&place, &settings, bin))
        })
        .await?;
    if started {
        screen.note(&format!("local cloud: started in {}", settings.range));
    }
    let Standing { client, changed, warning } =
        run.timed("management plane", plane(&place, &screen, &cloud, &artifacts, run.operator.clone())).await?;
    run.report.changed = started || changed;
    run.report.warnings.extend(warning);
    run.report.management_kubeconfig = place.management_kubeconfig();
    link_kubectl(&place, &artifacts)?;
    crate::commands::bring_up::clusters(run, global, &client, objects).await
}

/// Kubernetes versions that must be in the store: the file's, and the default one, which the management plane runs.
fn versions(objects: &[Object]) -> Result<Vec<&'static str>> {
    let mut versions = vec![super::artifacts::known(catalogue::DEFAULT_KUBERNETES)?.kubernetes];
    for object in objects.iter() {
        if let Some(version) = object.kubernetes_version() {
            let set = super::artifacts::known(version).with_context(|| format!("Cluster {}", object.name()))?;
            versions.push(set.kubernetes);
        }
    }
    versions.sort_unstable();
    versions.dedup();
    Ok(versions)
}

/// Where Slipway's other programs are.
pub fn programs(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return std::path::absolute(dir).context("--bin");
    }
    // Links are followed: kubectl-slipway may be one.
    let own = std::env::current_exe().and_then(|p| p.canonicalize()).context("finding this program's own directory: say --bin DIR")?;
    own.parent().map(Path::to_owned).ok_or_else(|| refused("this program lies in no directory: say --bin DIR"))
}

fn artifacts(dir: &Path, versions: &[&str], place: &Place, bin: &Path, screen: &Screen) -> Result<Vec<Artifact>> {
    let store = Store::open(dir).context("the artifact store")?;
    for version in versions {
        slipway_artifacts::ensure(&store, version, &EnsureOptions::default(), screen)?;
    }
    // Versions that living clusters need and this file does not name stay known to the operator.
    own::with_stored(&store, place, bin)
}

/// The management plane, answering.
struct Standing {
    /// Of its API.
    client: Client,
    /// Whether anything had to be done.
    changed: bool,
    /// What is not as it should be, though it works.
    warning: Option<String>,
}

/// Makes what is missing of the management plane, and waits until it answers.
async fn plane(
    place: &Place,
    screen: &Arc<Screen>,
    cloud: &slipway_local::LocalClient,
    artifacts: &[Artifact],
    operator: Option<String>,
) -> Result<Standing> {
    let topic = "management plane";
    let say_screen = screen.clone();
    let say = move |what: &str| say_screen.at(topic, what);
    let now = Timestamp::now();
    let identity = PlaneIdentity::ensure(place, now)?;
    let build = own::reference(artifacts, own::AGENT)?;
    let (instance, made) = machine::ensure_instance(cloud, &identity, &build, &say).await?;
    let plan = objects::plan(&identity, cloud, &instance, artifacts, operator, now).await?;
    let agent = machine::ensure_claimed(&identity, instance.address, &say).await?;
    // Before its plan: a release's plan may say what only that release's agent can read.
    let Exchange { agent, tried, without } = machine::ensure_build(&identity, instance.address, agent, &build, &say).await?;
    let warning = without.map(|why| keeps_its_agent(&build, &why));
    match &warning {
        Some(warning) => screen.done(topic, &format!("warning: {warning}")),
        None if tried => screen.done(topic, &format!("its agent is build {:.12} now", build.sha256)),
        None => {}
    }
    let told = machine::ensure_plan(&agent, &plan).await?;
    let server = format!("https://{}:6443", instance.address);
    let kubeconfig = {
        use secrecy::ExposeSecret;
        identity.admin.super_kubeconfig("management", &server, &identity.pki).expose_secret().to_owned()
    };
    if std::fs::read_to_string(place.management_kubeconfig()).ok().as_deref() != Some(kubeconfig.as_str()) {
        write_private(&place.management_kubeconfig(), kubeconfig.as_bytes())?;
    }
    let client = client_of(&kubeconfig).await?;
    // The operator is not ready before its CRDs are there, so objects come first and the wait for all units last.
    objects::wait_api(&client, &say).await?;
    let applied = objects::apply(&client).await?;
    machine::wait_healthy(&agent, &plan, &say).await?;
    let changed = made || tried || told || applied;
    if changed {
        screen.done(topic, &format!("ready at {server}"));
    }
    Ok(Standing { client, changed, warning })
}

/// That the management machine's agent is not this release's, and what to do about it.
fn keeps_its_agent(build: &ArtifactRef, why: &str) -> String {
    format!(
        "the management machine's agent is not this release's (build {:.12}): {why}. The management plane works with the agent that runs; `slipway logs {} slipway-agent.service` says more",
        build.sha256,
        crate::plane::MACHINE
    )
}

/// `<state>/bin/kubectl` of the default version.
fn link_kubectl(place: &Place, artifacts: &[Artifact]) -> Result<()> {
    let wanted = artifacts.iter().find(|a| a.name == "kubectl" && a.version == catalogue::DEFAULT_KUBERNETES);
    let Some(kubectl) = wanted else { return Ok(()) };
    let link = place.kubectl();
    if std::fs::read_link(&link).ok().as_deref() == Some(kubectl.path.as_path()) {
        return Ok(());
    }
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(link.parent().unwrap_or(Path::new(".")))?;
        let fresh = link.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        std::os::unix::fs::symlink(&kubectl.path, &fresh)?;
        std::fs::rename(&fresh, &link)
    };
    make().with_context(|| format!("linking {}", link.display()))
}

fn text(report: &Report, place: &Place) -> String {
    let mut out = String::new();
    let kubectl = place.kubectl();
    if !report.changed {
        out.push_str(if report.warnings.is_empty() { "nothing to do: everything is as asked for\n\n" } else { "nothing was changed\n\n" });
    }
    report.warnings.iter().for_each(|warning| out.push_str(&format!("warning: {warning}\n\n")));
    for cluster in &report.clusters {
        out.push_str(&format!("Cluster {} is ready.\n", cluster.name));
        for c in &cluster.checks {
            out.push_str(&format!("  {}: {} ({:.1} s)\n", c.check, c.result, c.seconds));
        }
        out.push_str(&format!("  kubeconfig  {}\n", cluster.kubeconfig.display()));
        out.push_str(&format!("  try         {} --kubeconfig {} get nodes -o wide\n", kubectl.display(), cluster.kubeconfig.display()));
        out.push_str(&format!("              slipway describe {}\n", cluster.name));
        out.push_str(&format!("              slipway describe {} --timeline --svg {}.svg\n", cluster.name, cluster.name));
        out.push_str(&format!("              slipway kubeconfig {} --merge\n\n", cluster.name));
    }
    out.push_str(&format!("Management plane\n  kubeconfig  {}\n", report.management_kubeconfig.display()));
    out.push_str("  try         slipway get clusters -A\n              slipway down    removes all of it\n\n");
    out.push_str(&table(["STEP", "SECONDS"], report.timings.iter().map(|t| [t.step.clone(), format!("{:.1}", t.seconds)])));
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn everything_is_as_asked_for_only_without_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path())).unwrap();
        let mut report = Report::default();
        assert!(text(&report, &place).contains("nothing to do: everything is as asked for"));
        report.warnings.push("the agent is another build".to_owned());
        let warned = text(&report, &place);
        assert!(warned.contains("nothing was changed") && warned.contains("warning: the agent is another build"), "{warned}");
        assert!(!warned.contains("everything is as asked for"), "{warned}");
    }
}
