//! The service: puts the parts together and keeps the watchdog fed.

use crate::accepted::Accepted;
use crate::apply::Applier;
use crate::authorise::Authorise;
use crate::board::Board;
use crate::credentials::Credentials;
use crate::gate::Gate;
use crate::identity::{Identity, IdentityError};
use crate::notify::{notify, watchdog_interval};
use crate::reset::Reset;
use crate::root::{self, Access, Root};
use crate::service::{Complaints, Machine, Service};
use crate::systemd::Systemd;
use crate::update::Updates;
use crate::{probes, server, units};
use anyhow::Context;
use secrecy::SecretString;
use slipway_agent_api::v1::MachineState;
use slipway_agent_api::v1::agent_server::AgentServer;
use slipway_agent_api::{AGENT_PORT, MAX_MESSAGE};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

/// An operator that is gone must not keep a journalctl alive.
const KEEPALIVE: Duration = Duration::from_secs(10);
const DISK_EVERY: Duration = Duration::from_secs(30);
/// Free space is told in steps: a number that always changes wakes the operator for nothing.
const DISK_STEP: u64 = 64 * 1024 * 1024;

/// Runs the agent until the process ends.
pub async fn run(root: PathBuf) -> anyhow::Result<()> {
    let root = Root::new(root);
    let _lock = root.lock().context("another agent is running on this machine, or /var/lib/slipway/agent cannot be written")?;
    let systemd = Systemd::spawn();
    let reset = Reset::load(&root, &systemd);
    let identity = match Identity::read(&root) {
        Ok(identity) => identity,
        // After a reset there is none, and everybody is told so.
        Err(IdentityError::Missing(_)) if reset.state() != crate::reset::ResetState::Never => nobody(),
        Err(e) => return Err(e.into()),
    };
    let credentials = Arc::new(Credentials::load(&root, &identity.machine_uid)?);
    let accepted = Accepted::load(&root)?;
    let boot_id = boot_id(&root).context("/run/slipway cannot be written")?;
    let board = Arc::new(Board::new(MachineState {
        machine_uid: identity.machine_uid.clone(),
        boot_id,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        accepted_digest: accepted.digest().to_owned(),
        certificate_expires_ms: credentials.expires_ms(),
        epoch: accepted.epoch,
        ..MachineState::default()
    }));
    let listen = identity.listen;
    let name = identity.name.clone();
    let updates = Updates::start(&root, &systemd, &board);
    let machine = Arc::new(Machine::new(&root, identity, credentials.clone(), board.clone(), accepted, reset, updates));

    let down = Arc::new(Notify::new());
    let (unit_names, names) = watch::channel(Vec::new());
    let (probe_lists, lists) = watch::channel(Arc::default());
    tokio::spawn(units::observe(systemd.clone(), board.clone(), names, down.clone()));
    tokio::spawn(probes::run(board.clone(), lists));
    let gate = Gate::open(&board);
    tokio::spawn(gate.clone().run(machine.plans()));
    tokio::spawn(Applier::new(&root, &systemd, &board, &down, &gate).run(machine.plans()));
    let mut plans = machine.plans();
    tokio::spawn(async move {
        loop {
            let plan = plans.borrow_and_update().clone();
            let (units, probes) = plan.map(|plan| (plan.plan.units.clone(), plan.plan.probes.clone())).unwrap_or_default();
            unit_names.send_replace(units.into_iter().map(|unit| unit.name).collect());
            probe_lists.send_replace(Arc::new(probes));
            if plans.changed().await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(disk(root.clone(), board));

    let listener = TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
    let complaints = Arc::new(Complaints::default());
    let connections = server::accept(listener, credentials, complaints.clone());
    tracing::info!(machine = name, %listen, version = env!("CARGO_PKG_VERSION"), "the agent is up");
    notify("READY=1");
    if let Some(interval) = watchdog_interval() {
        tokio::spawn(async move {
            loop {
                notify("WATCHDOG=1");
                tokio::time::sleep(interval).await;
            }
        });
    }
    let service = AgentServer::new(Service(machine.clone())).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(64)
        .layer(Authorise { machine, complaints })
        .add_service(service)
        .serve_with_incoming(connections)
        .await?;
    Ok(())
}

fn nobody() -> Identity {
    Identity {
        machine_uid: "reset".into(),
        name: String::new(),
        cluster_uid: String::new(),
        token: SecretString::from(""),
        listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, AGENT_PORT)),
    }
}

/// Changes with each boot of the machine and with nothing else. The kernel's own is the host's where machines are containers.
fn boot_id(root: &Root) -> anyhow::Result<String> {
    let path = root.boot("boot-id");
    if let Some(id) = root::read(&path)? {
        return Ok(String::from_utf8_lossy(&id).into_owned());
    }
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow::anyhow!("no randomness"))?;
    let id = hex::encode(bytes);
    root::replace(&path, id.as_bytes(), Access::PUBLIC)?;
    Ok(id)
}

async fn disk(root: Root, board: Arc<Board>) {
    loop {
        if let Ok(is) = rustix::fs::statvfs(root.at("/var")) {
            let free = is.f_bavail.saturating_mul(is.f_frsize);
            board.update(|state| {
                state.disk_free_bytes = free - free % DISK_STEP;
                state.disk_total_bytes = is.f_blocks.saturating_mul(is.f_frsize);
            });
        }
        tokio::time::sleep(DISK_EVERY).await;
    }
}
