//! All effects on the outside world. Each action of a plan becomes a task with a deadline and a span; nothing here decides what is done.
//!
//! ```text
//! Plan.actions ──► not running, not waiting after a failure ──► task ──► records │ secrets │ cloud │ machines │ membership │ workload
//!                                                                └─ ended: success or failure into the book, the bell rings
//! ```
//! Passes go on while effects run: one that is slow holds up nothing but itself. Those that choose ([`Action::chooses`]) end before the next plan.

mod agents;
mod book;
mod checks;
mod cloud;
mod machines;
mod membership;
mod records;
pub mod renewal;
mod scene;
pub mod secrets;
mod versions;
pub mod workload;

pub use book::Page;
pub use scene::{Scene, SceneMachine};

use crate::api::CallError;
use crate::context::Context;
use crate::etcd::EtcdError;
use crate::failures::Again;
use crate::memory::Memory;
use crate::observe::lists::touched;
use crate::snapshots;
use jiff::{SignedDuration, Timestamp};
use slipway_agent_api::AgentError;
use slipway_cloud_api::CloudError;
use slipway_crds::Step;
use slipway_plan::{Action, ActionKey, Plan, PodKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::Instrument;

/// How long one action may take. Each call within has a shorter deadline of its own.
const DEADLINE: Duration = Duration::from_secs(20);
/// How many effects of one cluster run at once.
const AT_ONCE: usize = 64;

/// Why an action did not do what it says.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// A Kubernetes API.
    #[error("{what}: {source}")]
    Api {
        /// The call.
        what: String,
        /// Its failure.
        source: CallError,
    },
    /// The cloud.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// An agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A member of etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A disruption budget keeps a pod where it is, until others are there.
    #[error("evict {pod}: a disruption budget does not allow it: {source}")]
    Budget {
        /// Which.
        pod: PodKey,
        /// What the API says.
        source: CallError,
    },
    /// The world is not as the plan assumed. The next pass sees how it is.
    #[error("not done, since {0}")]
    Precondition(String),
    /// Keys or settings.
    #[error("{0}")]
    Own(String),
    /// No end in sight.
    #[error("not done within {0:?}")]
    Deadline(Duration),
}

impl EffectError {
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(CallError) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    pub(crate) fn own(error: impl std::fmt::Display) -> Self {
        Self::Own(error.to_string())
    }

    /// When it is tried again.
    fn again(&self) -> Again {
        match self {
            Self::Cloud(error) => error.retry_after.and_then(|d| SignedDuration::try_from(d).ok()).map_or(Again::Doubling, Again::Asked),
            // Nothing is wrong: the plan was made from an older picture.
            Self::Precondition(_) => Again::Asked(SignedDuration::ZERO),
            Self::Budget { .. } => Again::Steady,
            Self::Api { .. } | Self::Agent(_) | Self::Etcd(_) | Self::Own(_) | Self::Deadline(_) => Again::Doubling,
        }
    }
}

/// Effects that have begun and not ended. Dropping it abandons them where they are, as a crash would.
#[derive(Default)]
pub struct Running {
    tasks: JoinSet<Result<(), EffectError>>,
    known: BTreeMap<Id, (Action, Timestamp)>,
    /// Succeeded, and not told yet.
    ended: Vec<Action>,
}

impl Running {
    /// What has begun and not ended, and when it began.
    pub fn begun(&self) -> impl Iterator<Item = (&Action, Timestamp)> {
        self.known.values().map(|(action, since)| (action, *since))
    }

    /// What has succeeded since this was last asked, in that order.
    pub fn ended(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.ended)
    }
}

/// Effects of the last passes that have ended, into the book.
pub fn collect(memory: &mut Memory, context: &Context, now: Timestamp) {
    while let Some(ended) = memory.running.tasks.try_join_next_with_id() {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(EffectError::Own(panic_words(&error)))),
        };
        let Some((action, _)) = memory.running.known.remove(&id) else { continue };
        let key = action.key();
        memory.bell.changed(touched(&action));
        context.metrics.effect(result.is_ok());
        match result {
            Ok(()) => {
                memory.failures.succeeded(&key);
                memory.running.ended.push(action);
            }
            Err(error) => {
                tracing::warn!(action = %action, %error, "effect failed");
                memory.failures.failed(key, error.to_string(), error.again(), now);
            }
        }
    }
}

/// Whether a plan has to wait for an effect that is one choice among several.
#[must_use]
pub fn is_choosing(memory: &Memory) -> bool {
    memory.running.known.values().any(|(action, _)| action.chooses())
}

/// What runs, for people. What is over within a moment is not told: it would only be out of date.
#[must_use]
pub fn steps(memory: &Memory) -> Vec<Step> {
    let step = |(action, since): &(Action, Timestamp)| Step {
        what: action.to_string(),
        machine: action.machine().map(ToString::to_string),
        since: Timestamp::from_second(since.as_second()).ok(),
    };
    let mut steps: Vec<Step> = memory.running.known.values().map(step).collect();
    steps.sort_by(|a, b| a.what.cmp(&b.what));
    steps
}

/// Begins what may begin now.
pub fn start(context: &Arc<Context>, memory: &mut Memory, scene: &Arc<Scene>, plan: &Plan, now: Timestamp) {
    let planned: Vec<ActionKey> = plan.actions.iter().map(Action::key).collect();
    memory.failures.forget_stale(|key| planned.contains(key), now);
    for (action, key) in plan.actions.iter().zip(&planned) {
        let runs = memory.running.known.values().any(|(running, _)| running.key() == *key);
        // The last of all actions: nothing else of the cluster may be under way.
        let alone = *action == Action::RemoveFinalizer && !memory.running.known.is_empty();
        if runs || alone || memory.running.known.len() >= AT_ONCE || !memory.failures.may_start(key, now) {
            continue;
        }
        let (context, scene, bell, action) = (context.clone(), scene.clone(), memory.bell.clone(), action.clone());
        let span = tracing::info_span!("effect", action = ?key.kind, subject = %key.subject);
        let known = action.clone();
        let task = async move {
            let deadline = if matches!(action, Action::TakeSnapshot { .. }) { snapshots::DEADLINE } else { DEADLINE };
            let result = match tokio::time::timeout(deadline, perform(&context, &scene, &action)).await {
                Ok(result) => result,
                Err(_) => Err(EffectError::Deadline(deadline)),
            };
            // Counted whether it succeeded or not: an answer that was lost may hide an effect.
            context.effects.done(&format!("{action}{}", if result.is_ok() { "" } else { " (failed)" }));
            Rung(bell).hold(result)
        };
        let id = memory.running.tasks.spawn(task.instrument(span)).id();
        memory.running.known.insert(id, (known, now));
    }
}

/// Rings when dropped: also when the task panics.
struct Rung(Arc<crate::bell::Bell>);

impl Rung {
    fn hold<T>(&self, value: T) -> T {
        value
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        self.0.fact();
    }
}

fn panic_words(error: &JoinError) -> String {
    format!("the effect ended unexpectedly: {error}")
}

async fn perform(context: &Context, scene: &Scene, action: &Action) -> Result<(), EffectError> {
    match action {
        Action::AddFinalizer => records::add_finalizer(context, scene).await,
        Action::RecordEndpoint { endpoint } => records::record_endpoint(context, scene, endpoint).await,
        Action::CreatePool { pool, replicas } => records::create_pool(context, scene, pool, *replicas).await,
        Action::SetPoolReplicas { pool, uid, from, to } => records::set_pool_replicas(context, scene, pool, uid, *from, *to).await,
        Action::RemovePool { pool, uid } => records::remove_pool(context, scene, pool, uid).await,
        Action::SetOrdinals { pool, from, to } => records::set_ordinals(context, scene, pool, *from, *to).await,
        Action::CreateMachine { machine, pool, ordinal, versions, revision } => {
            records::create_machine(context, scene, machine, pool, *ordinal, versions, revision).await
        }
        Action::SetVersions { machine, uid, from, to } => versions::set(context, scene, machine, uid, from, to).await,
        Action::RecordUpgrade { from, to } => versions::record_upgrade(context, scene, from.as_ref(), to.as_ref()).await,
        Action::TakeSnapshot { snapshot, machine } => snapshots::take(context, scene, snapshot, machine).await,
        Action::RecordInstance { machine, uid, instance } => records::record_instance(context, scene, machine, uid, instance).await,
        Action::RecordFounders { from, founders } => records::record_founders(context, scene, from, founders).await,
        Action::RecordBootstrapped { founders } => records::record_bootstrapped(context, scene, founders).await,
        Action::Retire { machine, uid } => records::retire(context, scene, machine, uid).await,
        Action::DeleteMachine { machine, uid, why } => records::delete_machine(context, scene, machine, uid, *why).await,
        Action::RemoveMachine { machine, uid, keep_secrets } => records::remove_machine(context, scene, machine, uid, *keep_secrets).await,
        Action::RemoveFinalizer => records::remove_finalizer(context, scene).await,

        Action::CreatePki => secrets::create_pki(context, scene).await,
        Action::IssueBootstrap { machine, uid } => secrets::issue_bootstrap(context, scene, machine, uid).await,
        Action::IssueCertificates { machine, uid } => secrets::issue_certificates(context, scene, machine, uid).await,
        Action::DropBootstrap { machine } => secrets::drop_bootstrap(context, scene, machine).await,
        Action::WriteKubeconfig => secrets::write_kubeconfig(context, scene).await,
        Action::DeleteSecrets => secrets::delete_secrets(context, scene).await,

        Action::EnsureNetwork => cloud::ensure_network(context, scene).await,
        Action::EnsureLoadBalancer { port } => cloud::ensure_load_balancer(context, scene, *port).await,
        Action::SetTargets { instances } => cloud::set_targets(context, scene, instances).await,
        Action::CreateInstance { machine, uid } => cloud::create_instance(context, scene, machine, uid).await,
        Action::StartInstance { instance, machine: _ } => cloud::start_instance(context, scene, instance).await,
        Action::DeleteInstance { machine, instance } => cloud::delete_instance(context, scene, machine, instance).await,
        Action::DeleteStrayInstance { machine, machine_uid, instance } => {
            cloud::delete_stray_instance(context, scene, machine, machine_uid, instance).await
        }
        Action::DeleteLoadBalancer => cloud::delete_load_balancer(context, scene).await,
        Action::DeleteNetwork => cloud::delete_network(context, scene).await,

        Action::Claim { machine, uid, address } => machines::claim(context, scene, machine, uid, *address).await,
        Action::ApplyPlan { machine, uid, expected, wanted } => {
            machines::apply_plan(context, scene, machine, uid, expected.as_ref(), wanted).await
        }

        Action::UpdateAgent { machine, uid, from, to } => agents::update(context, scene, machine, uid, from, to).await,
        Action::RenewAgentCertificate { machine, uid } => agents::renew_certificate(context, scene, machine, uid).await,

        Action::AddMember { machine, uid, address } => membership::add(context, scene, machine, uid, *address).await,
        Action::PromoteMember { machine, member } => membership::promote(scene, machine, *member).await,
        Action::RemoveMember { machine, member } => membership::remove(context, scene, machine.as_ref(), *member).await,
        Action::MoveLeader { machine, from, to } => membership::move_leader(scene, machine, *from, *to).await,

        Action::ApplyAddons { wanted } => workload::apply_addons(context, scene, wanted).await,
        Action::LabelNode { machine, node, uid } => workload::label_node(scene, machine, node, uid).await,
        Action::Cordon { node, uid, machine: _, returns } => workload::cordon(scene, node, uid, *returns).await,
        Action::Uncordon { node, uid, machine: _ } => workload::uncordon(scene, node, uid).await,
        Action::Evict { machine, pod } => workload::evict(context, scene, machine, pod).await,
        Action::DeleteNode { node, uid, machine: _ } => workload::delete_node(scene, node, uid).await,
    }
}
