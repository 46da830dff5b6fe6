//! What each method does.

use crate::accepted::{self, Accepted, Plan};
use crate::board::Board;
use crate::check;
use crate::credentials::{CredentialError, Credentials, InstallError};
use crate::identity::{Identity, IdentityError};
use crate::reset::{Reset, ResetState};
use crate::root::{self, Root};
use crate::server::Peer;
use crate::snapshot::{Program, Snapshots};
use crate::update::{self, Updates};
use crate::{logs, tunnel};
use arc_swap::ArcSwap;
use futures::StreamExt;
use futures::stream::BoxStream;
use slipway_agent_api::claim::{self, Statement};
use slipway_agent_api::refusal::Refusal;
use slipway_agent_api::v1::{self, agent_server::Agent};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, Streaming};

/// Between two messages of one Watch: what happens in between goes into the next.
const WATCH_EVERY: Duration = Duration::from_millis(20);

/// The agent's state that calls read and change.
pub struct Machine {
    /// Where things are.
    pub root: Root,
    /// Key, certificate, TLS.
    pub credentials: Arc<Credentials>,
    /// What the operator sees.
    pub board: Arc<Board>,
    /// Of this boot.
    pub boot_id: String,
    identity: ArcSwap<Identity>,
    /// One call at a time changes what must be durable.
    accepted: tokio::sync::Mutex<Accepted>,
    plans: watch::Sender<Option<Arc<Plan>>>,
    reset: Reset,
    snapshots: Snapshots,
    updates: Arc<Updates>,
}

impl Machine {
    /// From what was read at the start.
    #[must_use]
    pub fn new(
        root: &Root,
        identity: Identity,
        credentials: Arc<Credentials>,
        board: Arc<Board>,
        accepted: Accepted,
        reset: Reset,
        updates: Arc<Updates>,
    ) -> Self {
        let plans = watch::Sender::new(accepted.plan.clone());
        let (root, snapshots) = (root.clone(), Snapshots::new(root));
        let (identity, boot_id) = (ArcSwap::from_pointee(identity), board.subscribe().borrow().boot_id.clone());
        Self { root, credentials, board, boot_id, identity, accepted: accepted.into(), plans, reset, snapshots, updates }
    }

    /// The accepted plan, now and later. None after a reset.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Option<Arc<Plan>>> {
        self.plans.subscribe()
    }

    /// Whether the token is burnt.
    #[must_use]
    pub fn sealed(&self) -> bool {
        self.identity.load().sealed()
    }

    /// Burns the token, durably, before the operator's first call is answered.
    pub async fn seal(&self) -> Result<(), Status> {
        // In order with everything else that must be durable; whoever comes second finds it done.
        let _turn = self.accepted.lock().await;
        if self.sealed() || self.reset.state() != ResetState::Never {
            return Ok(());
        }
        let (root, identity) = (self.root.clone(), self.identity.load_full());
        let burnt = spawn_blocking(move || identity.burn(&root)).await.map_err(internal)?.map_err(|e: IdentityError| internal(e))?;
        self.identity.store(Arc::new(burnt));
        tracing::info!("claimed: the operator has called over mTLS, the token is burnt");
        Ok(())
    }

    /// The operator has called over mTLS, and was answered.
    pub fn answered(&self) {
        self.updates.reached();
    }

    /// After a reset there is one answer to everything but to the reset itself, whose caller may not have heard its end.
    pub fn buried(&self, path: &str) -> Result<(), Status> {
        if path.ends_with("/Reset") { Ok(()) } else { self.alive() }
    }

    fn mine(&self, uid: &str) -> Result<(), Status> {
        let own = &self.identity.load().machine_uid;
        if uid == own { Ok(()) } else { Err(Refusal::WrongMachine { own: own.clone(), asked: uid.to_owned() }.into()) }
    }

    fn alive(&self) -> Result<(), Status> {
        if self.reset.state() == ResetState::Never { Ok(()) } else { Err(Refusal::Reset.into()) }
    }

    /// Hears a caller of this epoch, and from then on none of an earlier one.
    async fn hear(&self, accepted: &mut Accepted, epoch: u64) -> Result<(), Status> {
        if let Some(next) = accepted.hear(epoch)? {
            self.save(&next).await?;
            *accepted = next;
            self.board.update(|state| state.epoch = epoch);
        }
        Ok(())
    }

    async fn save(&self, next: &Accepted) -> Result<(), Status> {
        let (root, copy) = (self.root.clone(), next.clone());
        let saved = spawn_blocking(move || copy.save(&root)).await.map_err(internal)?;
        // Nothing is acknowledged that a crash could lose: what was accepted before still holds.
        saved.map_err(|e| internal(format!("/var/lib/slipway/agent/plan.json cannot be written: {}", root::words(&e))))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("a connection without a peer"))
}

/// The service: the machine behind an Arc.
#[derive(Clone)]
pub struct Service(pub Arc<Machine>);

#[tonic::async_trait]
impl Agent for Service {
    async fn get_info(&self, _: Request<v1::GetInfoRequest>) -> Result<Response<v1::Info>, Status> {
        let (identity, accepted) = (self.0.identity.load_full(), self.0.accepted.lock().await);
        Ok(Response::new(v1::Info {
            machine_uid: identity.machine_uid.clone(),
            name: identity.name.clone(),
            boot_id: self.0.boot_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            claimed: self.0.credentials.claimed(),
            sealed: identity.sealed(),
            applied_digest: accepted.digest().to_owned(),
            epoch: accepted.epoch,
        }))
    }

    async fn claim(&self, request: Request<v1::ClaimRequest>) -> Result<Response<v1::ClaimResponse>, Status> {
        let peer = peer(&request)?;
        let v1::ClaimRequest { machine_uid, proof } = request.into_inner();
        let identity = self.0.identity.load_full();
        if !claim::verify(&identity.token, Statement::Operator, &peer.exporter, &machine_uid, &proof) || machine_uid != identity.machine_uid
        {
            return Err(Refusal::WrongProof.into());
        }
        let csr_pem = self.0.credentials.request().map_err(|e: CredentialError| internal(e))?.into_bytes();
        let proof = claim::prove(&identity.token, Statement::Agent { csr_pem: &csr_pem }, &peer.exporter, &machine_uid);
        Ok(Response::new(v1::ClaimResponse { proof, csr_pem }))
    }

    async fn install(&self, request: Request<v1::InstallRequest>) -> Result<Response<v1::InstallResponse>, Status> {
        let peer = peer(&request)?;
        let v1::InstallRequest { machine_uid, proof, certificate_pem, ca_pem } = request.into_inner();
        // Not while another call burns the token.
        let _turn = self.0.accepted.lock().await;
        let identity = self.0.identity.load_full();
        if identity.sealed() {
            return Err(Refusal::AlreadyClaimed.into());
        }
        let statement = Statement::Install { certificate_pem: &certificate_pem, ca_pem: &ca_pem };
        if !claim::verify(&identity.token, statement, &peer.exporter, &machine_uid, &proof) || machine_uid != identity.machine_uid {
            return Err(Refusal::WrongProof.into());
        }
        self.keep(certificate_pem, ca_pem).await?;
        Ok(Response::new(v1::InstallResponse {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let v1::RenewRequest { machine_uid, epoch, certificate_pem, ca_pem } = request.into_inner();
        self.0.mine(&machine_uid)?;
        self.0.alive()?;
        let mut accepted = self.0.accepted.lock().await;
        self.0.hear(&mut accepted, epoch).await?;
        if !certificate_pem.is_empty() {
            self.keep(certificate_pem, ca_pem).await?;
        }
        let csr_pem = self.0.credentials.request().map_err(|e: CredentialError| internal(e))?.into_bytes();
        Ok(Response::new(v1::RenewResponse { csr_pem }))
    }

    async fn apply_plan(&self, request: Request<v1::ApplyPlanRequest>) -> Result<Response<v1::ApplyPlanResponse>, Status> {
        let v1::ApplyPlanRequest { machine_uid, epoch, expected_digest, plan } = request.into_inner();
        self.0.mine(&machine_uid)?;
        let (plan, digest) = accepted::parse(&plan)?;
        let mut accepted = self.0.accepted.lock().await;
        self.0.alive()?;
        if let Some(next) = accepted.accept(epoch, &expected_digest, plan, digest.clone())? {
            self.0.save(&next).await?;
            let fresh = next.digest() != accepted.digest();
            *accepted = next;
            self.0.board.update(|state| {
                state.epoch = epoch;
                state.accepted_digest.clone_from(&digest);
            });
            if fresh {
                tracing::info!(digest, epoch, "a plan is accepted");
                self.0.plans.send_replace(accepted.plan.clone());
            }
        }
        Ok(Response::new(v1::ApplyPlanResponse { digest }))
    }

    type WatchStream = BoxStream<'static, Result<v1::MachineState, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.0.mine(&request.get_ref().machine_uid)?;
        self.0.alive()?;
        let states = self.0.board.subscribe();
        let stream = futures::stream::unfold((states, true), |(mut states, first)| async move {
            if !first {
                tokio::time::sleep(WATCH_EVERY).await;
                states.changed().await.ok()?;
            }
            let state = states.borrow_and_update().clone();
            Some((Ok(state), (states, false)))
        });
        Ok(Response::new(stream.boxed()))
    }

    type LogsStream = BoxStream<'static, Result<v1::LogLines, Status>>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let v1::LogsRequest { machine_uid, unit, lines, follow } = request.into_inner();
        self.0.mine(&machine_uid)?;
        self.0.alive()?;
        let planned = self.0.plans.borrow().as_ref().is_some_and(|plan| plan.plan.units.iter().any(|planned| planned.name == unit));
        if !planned && ![check::AGENT_UNIT, update::TRIAL_UNIT].contains(&unit.as_str()) {
            return Err(Refusal::Invalid(format!("{unit:?} is neither a unit of this machine's plan nor {}", check::AGENT_UNIT)).into());
        }
        Ok(Response::new(logs::journal(&unit, lines, follow)?))
    }

    type TunnelStream = BoxStream<'static, Result<v1::TunnelBytes, Status>>;

    async fn tunnel(&self, request: Request<Streaming<v1::TunnelBytes>>) -> Result<Response<Self::TunnelStream>, Status> {
        let peer = peer(&request)?;
        let mut incoming = request.into_inner();
        let Some(first) = incoming.message().await? else { return Err(Refusal::Invalid("the tunnel names no target".into()).into()) };
        self.0.mine(&first.machine_uid)?;
        self.0.alive()?;
        let target = tunnel::allowed(&first.target, peer.local)?;
        Ok(Response::new(tunnel::open(target, incoming).await?))
    }

    type EtcdSnapshotStream = BoxStream<'static, Result<v1::EtcdSnapshotPiece, Status>>;

    async fn etcd_snapshot(&self, request: Request<v1::EtcdSnapshotRequest>) -> Result<Response<Self::EtcdSnapshotStream>, Status> {
        let v1::EtcdSnapshotRequest { machine_uid, epoch } = request.into_inner();
        self.0.mine(&machine_uid)?;
        self.0.alive()?;
        self.0.accepted.lock().await.fence(epoch)?;
        let program = Program::of(self.0.plans.borrow().as_deref().map(|plan| &plan.plan), &self.0.root)?;
        Ok(Response::new(self.0.snapshots.take(program)?))
    }

    async fn update(&self, request: Request<v1::UpdateRequest>) -> Result<Response<v1::UpdateResponse>, Status> {
        let v1::UpdateRequest { machine_uid, epoch, expected_sha256, artifact } = request.into_inner();
        self.0.mine(&machine_uid)?;
        self.0.alive()?;
        let build = update::parse(&artifact)?;
        self.0.hear(&mut *self.0.accepted.lock().await, epoch).await?;
        if let Some(trial) = self.0.updates.prepare(&expected_sha256, build).await? {
            // Not while a reset begins, nor for a leader that was overtaken meanwhile.
            let accepted = self.0.accepted.lock().await;
            accepted.fence(epoch)?;
            self.0.alive()?;
            self.0.updates.begin(&trial).await?;
        }
        Ok(Response::new(v1::UpdateResponse {}))
    }

    async fn reset(&self, request: Request<v1::ResetRequest>) -> Result<Response<v1::ResetResponse>, Status> {
        let v1::ResetRequest { machine_uid, epoch, confirm_name } = request.into_inner();
        self.0.mine(&machine_uid)?;
        let name = self.0.identity.load().name.clone();
        if confirm_name != name {
            return Err(Refusal::Invalid(format!("this machine is called {name:?}, not {confirm_name:?}: nothing was reset")).into());
        }
        {
            let accepted = self.0.accepted.lock().await;
            accepted.fence(epoch)?;
            self.0.reset.begin().await.map_err(internal)?;
            // From here on the apply loop has nothing to do, and new plans are refused.
            self.0.plans.send_replace(None);
        }
        self.0.reset.finished().await?;
        Ok(Response::new(v1::ResetResponse {}))
    }
}

impl Service {
    async fn keep(&self, certificate_pem: Vec<u8>, ca_pem: Vec<u8>) -> Result<(), Status> {
        let credentials = self.0.credentials.clone();
        let kept = spawn_blocking(move || credentials.install(&certificate_pem, &ca_pem)).await.map_err(internal)?;
        kept.map_err(|e| match e {
            InstallError::Refused(refusal) => refusal.into(),
            InstallError::Io(e) => internal(format!("/var/lib/slipway/agent: the certificate cannot be written: {}", root::words(&e))),
        })?;
        self.0.board.update(|state| state.certificate_expires_ms = self.0.credentials.expires_ms());
        tracing::info!("a certificate is installed");
        Ok(())
    }
}

/// Logs each cause once per peer, and again after ten minutes: whoever knocks all day must not fill the journal.
#[derive(Default)]
pub struct Complaints(Mutex<HashMap<(String, String, String), Instant>>);

impl Complaints {
    /// Logs it, unless it was said lately.
    pub fn say(&self, why: &str, peer: &str, what: &str) {
        const AGAIN: Duration = Duration::from_secs(600);
        const REMEMBERED: usize = 256;
        let Ok(mut said) = self.0.lock() else { return };
        let now = Instant::now();
        if said.len() >= REMEMBERED {
            said.retain(|_, at| now.duration_since(*at) < AGAIN);
            if said.len() >= REMEMBERED {
                return;
            }
        }
        let key = (why.to_owned(), peer.to_owned(), what.to_owned());
        if said.get(&key).is_none_or(|at| now.duration_since(*at) >= AGAIN) {
            tracing::warn!(peer, what, why, "refused; repetitions are not logged");
            said.insert(key, now);
        }
    }
}
