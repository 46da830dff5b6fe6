//! Who of several operators acts: a Lease, and the number of its term, the **epoch**, which fences what an earlier leader may still send.
//!
//! ```text
//! acquire ──► Term { epoch } ──hold──► lost (the process must end)
//!                               └────► stopped (the Lease is released: the next one starts at once)
//! ```
//! Agents refuse an epoch older than the highest they heard. It is the Lease's `leaseTransitions`, raised with every term, and never below the
//! minutes since 2025: so it does not start over when somebody deletes the Lease or restores an old one.

use crate::{api, clock};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Begin of the count of minutes that an epoch is never below: 2025-01-01T00:00:00Z.
const EPOCH_ZERO: i64 = 1_735_689_600;

/// How fast leadership moves.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a silent holder is believed.
    pub lease: Duration,
    /// How long the holder goes on without having renewed. Shorter than `lease`, so that two never act at once.
    pub renew_deadline: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Timing {
    /// Kubernetes' own numbers: for several replicas in one management cluster.
    pub const REPLICATED: Self =
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) };
    /// For a single operator that systemd restarts.
    pub const SINGLE: Self = Self { lease: Duration::from_secs(6), renew_deadline: Duration::from_secs(4), retry: Duration::from_secs(1) };
}

/// One that wants to lead.
#[derive(Clone)]
pub struct Candidate {
    /// Where the Lease lives.
    pub api: Api<Lease>,
    /// The Lease's name.
    pub name: String,
    /// Who this is, unique among living processes.
    pub identity: String,
    /// How fast.
    pub timing: Timing,
}

/// Why no term was begun or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API did not answer as it should.
    #[error("Lease {name}: {source}")]
    Api {
        /// The Lease's name.
        name: String,
        /// What happened.
        source: api::CallError,
    },
}

/// A term of leadership.
pub struct Term {
    candidate: Candidate,
    lease: Lease,
    /// Raised with every term of whomever.
    pub epoch: u64,
    renewed: Instant,
}

/// How a term ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Another one leads, or may: nothing must be written any more.
    Lost,
    /// As asked for; the Lease was released.
    Stopped,
}

impl Candidate {
    /// Waits until this one leads. A holder of the same identity is this one's own former life: its supervisor runs only one at a time.
    pub async fn acquire(&self) -> Term {
        let mut seen: Option<(String, Instant)> = None;
        loop {
            match self.attempt(&mut seen).await {
                Ok(Some(term)) => return term,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "cannot become leader yet"),
            }
            tokio::time::sleep(self.timing.retry).await;
        }
    }

    /// One try. `seen` is the last version of the Lease and when it was first seen: clocks of two hosts are never compared.
    async fn attempt(&self, seen: &mut Option<(String, Instant)>) -> Result<Option<Term>, LeaseError> {
        let fail = |source| LeaseError::Api { name: self.name.clone(), source };
        let Some(lease) = api::call(self.api.get_opt(&self.name)).await.map_err(fail)? else {
            let fresh =
                Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: Some(self.spec(0, None)) };
            return match api::call(self.api.create(&PostParams::default(), &fresh)).await {
                Ok(lease) => Ok(Some(self.term(lease))),
                Err(error) if error.is_already_exists() => Ok(None),
                Err(error) => Err(fail(error)),
            };
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|(known, _)| *known != version) {
            *seen = Some((version, Instant::now()));
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(1)).unwrap_or(1));
        let expired = seen.as_ref().is_some_and(|(_, since)| since.elapsed() > duration);
        if !(holder.is_empty() || holder == self.identity || expired) {
            return Ok(None);
        }
        let mut wanted = lease;
        wanted.spec = Some(self.spec(spec.lease_transitions.unwrap_or(0), None));
        match api::call(self.api.replace(&self.name, &PostParams::default(), &wanted)).await {
            Ok(lease) => Ok(Some(self.term(lease))),
            Err(error) if error.is_conflict() => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// The spec of a new term (`acquired` absent) or of a renewed one.
    fn spec(&self, transitions: i32, acquired: Option<MicroTime>) -> LeaseSpec {
        let now = clock::now();
        let minutes = i32::try_from((now.as_second() - EPOCH_ZERO) / 60).unwrap_or(i32::MAX);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            lease_transitions: Some(if acquired.is_some() { transitions } else { transitions.saturating_add(1).max(minutes) }),
            acquire_time: Some(acquired.unwrap_or_else(|| micro(now))),
            renew_time: Some(micro(now)),
            ..LeaseSpec::default()
        }
    }

    fn term(&self, lease: Lease) -> Term {
        let transitions = lease.spec.as_ref().and_then(|s| s.lease_transitions).unwrap_or(0);
        Term { candidate: self.clone(), lease, epoch: u64::try_from(transitions).unwrap_or(0), renewed: Instant::now() }
    }
}

fn micro(now: Timestamp) -> MicroTime {
    MicroTime(now)
}

impl Term {
    /// Renews until it is lost or `stop` is called; then releases it.
    pub async fn hold(mut self, stop: CancellationToken) -> Ended {
        let timing = self.candidate.timing;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.release().await;
                    return Ended::Stopped;
                }
                () = tokio::time::sleep(timing.retry) => {}
            }
            match tokio::time::timeout(timing.retry * 2, self.renew()).await {
                Ok(Ok(true)) => self.renewed = Instant::now(),
                Ok(Ok(false)) => return Ended::Lost,
                Ok(Err(error)) => tracing::warn!(%error, "the Lease was not renewed"),
                Err(_) => tracing::warn!("the Lease was not renewed: no answer"),
            }
            if self.renewed.elapsed() > timing.renew_deadline {
                return Ended::Lost;
            }
        }
    }

    /// `false`: it is somebody else's.
    async fn renew(&mut self) -> Result<bool, LeaseError> {
        let candidate = self.candidate.clone();
        let fail = |source| LeaseError::Api { name: candidate.name.clone(), source };
        let spec = self.lease.spec.clone().unwrap_or_default();
        let mut wanted = self.lease.clone();
        wanted.spec = Some(candidate.spec(spec.lease_transitions.unwrap_or(0), spec.acquire_time));
        match api::call(candidate.api.replace(&candidate.name, &PostParams::default(), &wanted)).await {
            Ok(lease) => {
                self.lease = lease;
                Ok(true)
            }
            // The last renewal may have been done without an answer: whoever holds it by now decides.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                let Some(lease) = api::call(candidate.api.get_opt(&candidate.name)).await.map_err(fail)? else { return Ok(false) };
                let current = lease.spec.clone().unwrap_or_default();
                let ours = current.holder_identity.as_deref() == Some(candidate.identity.as_str())
                    && current.lease_transitions == spec.lease_transitions;
                self.lease = lease;
                Ok(ours)
            }
            Err(error) => Err(fail(error)),
        }
    }

    async fn release(mut self) {
        let mut spec = self.lease.spec.take().unwrap_or_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.lease.spec = Some(spec);
        let done = api::call(self.candidate.api.replace(&self.candidate.name, &PostParams::default(), &self.lease)).await;
        if let Err(error) = done {
            tracing::warn!(%error, "the Lease was not released: the next leader waits until it expires");
        }
    }
}
