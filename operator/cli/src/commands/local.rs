//! `slipway local`: the local cloud from outside, by its own API; for people who want to see things break and heal, and for tests.

use crate::args::{Faults, Format, Global, Local, LocalCommand};
use crate::outcome::{Outcome, refused};
use crate::output::{print, say, table};
use crate::place::Place;
use crate::plane::identity::PlaneIdentity;
use crate::plane::{self, daemon, machine};
use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use slipway_cloud_api::{Cloud, ClusterKey, Instance, LoadBalancerState};
use slipway_local::LocalClient;
use slipway_local::wire::{CallFault, Status};
use std::time::Duration;

/// Runs the command.
pub async fn run(global: &Global, args: &Local) -> Result<Outcome> {
    let place = Place::new(global.state.as_deref())?;
    let cloud = daemon::find(&place).await.ok_or_else(|| {
        refused(format!("no local cloud answers in {}: `slipway up` starts one, --state names another place", place.root().display()))
    })?;
    match &args.command {
        LocalCommand::Status => status(global.output, &cloud).await?,
        LocalCommand::PowerOff { machine } => {
            let (cluster, id) = find(&cloud, machine).await?;
            cloud.power_off(&cluster, &id).await?;
        }
        LocalCommand::Start { machine } => {
            let (cluster, id) = find(&cloud, machine).await?;
            cloud.start_instance(&cluster, &id).await?;
        }
        LocalCommand::Reboot { machine } => {
            let (cluster, id) = find(&cloud, machine).await?;
            cloud.reboot(&cluster, &id).await?;
        }
        LocalCommand::Console { machine } => {
            let (cluster, id) = find(&cloud, machine).await?;
            say(&cloud.console(&cluster, &id).await?)?;
        }
        LocalCommand::Faults(faults) => inject(&cloud, faults).await?,
        LocalCommand::DieAfter { deaths: true, .. } => say(&deaths(&place, &cloud).await?.to_string())?,
        LocalCommand::DieAfter { effects, .. } => die_after(&place, &cloud, effects.unwrap_or(0)).await?,
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    daemon: Status,
    machines: Vec<Row>,
    load_balancers: Vec<Balancer>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    cluster: String,
    #[serde(flatten)]
    instance: Instance,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Balancer {
    cluster: String,
    #[serde(flatten)]
    state: LoadBalancerState,
}

async fn status(format: Format, cloud: &LocalClient) -> Result<()> {
    let mut seen = Seen { daemon: cloud.status().await?, machines: Vec::new(), load_balancers: Vec::new() };
    for cluster in cloud.clusters().await? {
        let inventory = cloud.inventory(&cluster).await?;
        let of = cluster.name.to_string();
        seen.machines.extend(inventory.instances.into_iter().map(|i| Row { name: i.name.to_string(), cluster: of.clone(), instance: i }));
        seen.load_balancers.extend(inventory.load_balancer.map(|state| Balancer { cluster: of, state }));
    }
    print(format, &seen, || {
        let d = &seen.daemon;
        let machines = seen.machines.iter().map(|m| {
            let i = &m.instance;
            [
                m.cluster.clone(),
                m.name.clone(),
                i.id.clone(),
                format!("{:?}", i.state),
                i.address.to_string(),
                i.trouble.clone().unwrap_or_default(),
            ]
        });
        let balancers = seen.load_balancers.iter().map(|b| {
            let s = &b.state;
            let state = if s.ready { "Ready" } else { "Waiting" }.to_owned();
            [
                b.cluster.clone(),
                "load balancer".to_owned(),
                s.id.clone(),
                state,
                format!("{}:{}", s.address, s.port),
                s.trouble.clone().unwrap_or_default(),
            ]
        });
        let rows = table(["CLUSTER", "MACHINE", "ID", "STATE", "ADDRESS", "TROUBLE"], machines.chain(balancers));
        format!("slipway-local {} ({}-*, {}) at {}, process {}\n\n{rows}", d.version, d.name, d.range, d.endpoint, d.pid)
    })
}

async fn find(cloud: &LocalClient, name: &str) -> Result<(ClusterKey, String)> {
    for cluster in cloud.clusters().await? {
        let inventory = cloud.inventory(&cluster).await?;
        if let Some(instance) = inventory.instances.into_iter().find(|i| i.name.as_str() == name) {
            return Ok((cluster, instance.id));
        }
    }
    Err(refused(format!("the local cloud has no machine {name}: `slipway local status` lists them")))
}

async fn inject(cloud: &LocalClient, wanted: &Faults) -> Result<()> {
    let mut faults = slipway_local::wire::Faults::default();
    if !wanted.clear {
        let every = CallFault {
            error_rate: wanted.error_rate,
            lost_reply_rate: wanted.lost_reply_rate,
            delay_ms: wanted.delay.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            ..CallFault::default()
        };
        if every != CallFault::default() {
            faults.calls.insert("*".to_owned(), every);
        }
        faults.never_boot_machines.clone_from(&wanted.never_boot);
    }
    Ok(cloud.set_faults(&faults).await?)
}

async fn agent(place: &Place, cloud: &LocalClient) -> Result<(PlaneIdentity, Instance, slipway_agent_api::AgentClient)> {
    let identity = PlaneIdentity::ensure(place, Timestamp::now())?;
    let inventory = cloud.inventory(&plane::key()?).await?;
    let instance = inventory.instances.into_iter().find(|i| i.machine_uid == identity.machine_uid);
    let instance = instance.ok_or_else(|| refused("the management machine has not been made yet: `slipway up` makes it"))?;
    let agent = machine::ensure_claimed(&identity, instance.address, &|_| {}).await?;
    Ok((identity, instance, agent))
}

/// Gives the operator's unit the argument, and takes it away again.
async fn die_after(place: &Place, cloud: &LocalClient, effects: u64) -> Result<()> {
    let (identity, instance, agent) = agent(place, cloud).await?;
    let settings = plane::Settings::read(place)?.context("settings of the local cloud")?;
    let store = slipway_artifacts::Store::open(&settings.store).context("the artifact store")?;
    let bin = plane::own::adopted_from(place)?;
    let artifacts = {
        let (store, place) = (store.clone(), place.clone());
        tokio::task::spawn_blocking(move || plane::own::with_stored(&store, &place, &bin)).await.context("the artifacts")??
    };
    let extra = (effects > 0).then(|| format!("--die-after-effects={effects}"));
    let plan = plane::objects::plan(&identity, cloud, &instance, &artifacts, extra, Timestamp::now()).await?;
    machine::ensure_plan(&agent, &plan).await?;
    // An operator that dies again and again is not healthy all the time: only that it was told is waited for.
    let mut states = agent.watch().await?;
    let wanted = plan.digest().0;
    let told = async {
        while let Some(state) = states.next().await {
            if state?.applied_digest == wanted {
                return Ok(());
            }
        }
        Err(anyhow!("the agent ended the watch"))
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.context("the management machine takes too long over its new plan")?
}

/// systemd's count of restarts since the unit was last started by hand, which a new argument does.
async fn deaths(place: &Place, cloud: &LocalClient) -> Result<u32> {
    let (_, _, agent) = agent(place, cloud).await?;
    let state = agent.watch().await?.next().await.context("the agent says nothing")??;
    Ok(state.units.iter().find(|u| u.name == "slipway-operator.service").map_or(0, |u| u.restarts))
}
