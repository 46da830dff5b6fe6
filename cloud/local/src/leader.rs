//! Leader election over a Lease, as Kubernetes' own components do it: for the operator and for the clusters' cloud-controller-manager.
//!
//! ```text
//! acquire ──► Term { epoch } ──hold──► lost (the process must end: only a dead process surely does nothing more)
//!                               └────► stopped (the Lease is released: the next one starts at once)
//! ```
//! Clocks of different machines are never compared: a Lease is over when it has not changed for its duration by *this* process's clock.
//!
//! The **epoch** fences what an earlier leader may still send: agents refuse one that is older than the highest they heard. It is the Lease's
//! `leaseTransitions`, raised with every term, and never below the minutes since 2025: so it does not start over when somebody deletes the
//! Lease or restores an old one.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Begin of the count of minutes that an epoch is never below: 2025-01-01T00:00:00Z.
const EPOCH_ZERO: i64 = 1_735_689_600;
/// Pause after an answer that says nothing about the Lease: the API server is starting, or our rights have not been granted yet.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// How fast leadership moves.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a silent holder is believed.
    pub lease: Duration,
    /// How long the holder goes on without having renewed. Shorter than `lease`, so that two never act at once.
    pub renew_deadline: Duration,
    /// Between renewals, and between looks at somebody else's Lease.
    pub retry: Duration,
}

impl Timing {
    /// Kubernetes' own numbers: for several replicas in one management cluster.
    pub const REPLICATED: Self =
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) };
    /// For what systemd runs once per machine and restarts under the same identity.
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

/// A term of leadership.
pub struct Term {
    candidate: Candidate,
    lease: Lease,
    /// Raised with every term of whomever.
    pub epoch: u64,
    renewed: Instant,
}

/// How a term ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Another one leads, or may: nothing must be written any more. The words say why.
    Lost(String),
    /// As asked for; the Lease was released.
    Stopped,
}

/// Somebody else's Lease as it was last seen: its version, and since when it is this one.
type Seen = Option<(String, Instant)>;

// === impl Candidate ===

impl Candidate {
    /// Waits until this one leads. A holder of the same identity is this one's own former life: its supervisor runs only one at a time.
    pub async fn acquire(&self) -> Term {
        let mut seen: Seen = None;
        let mut told = String::new();
        loop {
            // A term counts from before the call: the others' clocks start at the earliest when it is answered.
            let started = Instant::now();
            match timeout(self.timing.renew_deadline, self.attempt(&mut seen)).await {
                Ok(Ok(Some(lease))) => return self.term(lease, started),
                Ok(Ok(None)) => sleep(self.timing.retry).await,
                Ok(Err(e)) => {
                    let said = in_short(&e);
                    if said != told {
                        tracing::info!(lease = self.name, "not yet: {said}");
                        told = said;
                    }
                    sleep(IMPATIENCE).await;
                }
                Err(_) => tracing::info!(lease = self.name, "no answer within {:?}", self.timing.renew_deadline),
            }
        }
    }

    /// One try: the Lease if it is this one's now.
    async fn attempt(&self, seen: &mut Seen) -> Result<Option<Lease>, kube::Error> {
        let Some(found) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let fresh = Lease { metadata, spec: Some(self.new_term(None)) };
            return refused(self.api.create(&PostParams::default(), &fresh).await);
        };
        let version = found.metadata.resource_version.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|(known, _)| *known != version) {
            *seen = Some((version, Instant::now()));
        }
        let unchanged = seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if !takeable(found.spec.as_ref(), &self.identity, unchanged, self.timing.lease) {
            return Ok(None);
        }
        let mine = Lease { spec: Some(self.new_term(found.spec.as_ref())), ..found };
        // The resourceVersion in it makes this a compare-and-swap.
        refused(self.api.replace(&self.name, &PostParams::default(), &mine).await)
    }

    fn new_term(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Timestamp::now();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX)),
            lease_transitions: Some(next_epoch(before.and_then(|spec| spec.lease_transitions), now)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }
    }

    fn term(&self, lease: Lease, renewed: Instant) -> Term {
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        Term { candidate: self.clone(), lease, epoch: u64::try_from(transitions).unwrap_or(0), renewed }
    }
}

fn next_epoch(before: Option<i32>, now: Timestamp) -> i32 {
    let minutes = i32::try_from((now.as_second() - EPOCH_ZERO) / 60).unwrap_or(i32::MAX);
    before.unwrap_or(0).saturating_add(1).max(minutes)
}

/// Whether a Lease may be taken: free, our own of a life before, or not renewed for its duration.
fn takeable(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration, ours: Duration) -> bool {
    let Some(spec) = spec else { return true };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let duration = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(ours, Duration::from_secs);
    holder.is_empty() || holder == identity || unchanged >= duration
}

/// Somebody else was quicker: no error, and no Lease.
fn refused(result: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(e) => Err(e),
    }
}

/// An error in one sentence: kube's own words contain the whole answer, twice.
pub(crate) fn in_short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

// === impl Term ===

impl Term {
    /// Renews until that fails for too long, somebody else has the Lease, or `stop` ends; then, of its own will, releases it.
    pub async fn hold(mut self, stop: impl Future<Output = ()>) -> Ended {
        let timing = self.candidate.timing;
        let mut stop = std::pin::pin!(stop);
        let mut why = "no renewal was tried".to_owned();
        loop {
            tokio::select! {
                () = &mut stop => {
                    self.release().await;
                    return Ended::Stopped;
                }
                () = sleep(timing.retry) => {}
            }
            let left = timing.renew_deadline.saturating_sub(self.renewed.elapsed());
            if left.is_zero() {
                return Ended::Lost(format!("the Lease {} was not renewed for {:?}: {why}", self.candidate.name, timing.renew_deadline));
            }
            let started = Instant::now();
            match timeout(left, self.renew()).await {
                Ok(Ok(true)) => self.renewed = started,
                Ok(Ok(false)) => return Ended::Lost(format!("somebody else has the Lease {}", self.candidate.name)),
                Ok(Err(e)) => why = in_short(&e),
                Err(_) => "no answer".clone_into(&mut why),
            }
        }
    }

    /// `false`: it is somebody else's.
    async fn renew(&mut self) -> Result<bool, kube::Error> {
        let Candidate { api, name, identity, .. } = &self.candidate;
        let mut next = self.lease.clone();
        if let Some(spec) = &mut next.spec {
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        match api.replace(name, &PostParams::default(), &next).await {
            Ok(lease) => {
                self.lease = lease;
                Ok(true)
            }
            // The last renewal may have been done without an answer: whoever holds it by now decides, and in which term.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                let Some(lease) = api.get_opt(name).await? else { return Ok(false) };
                let term = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
                let ours = holder == Some(identity.as_str()) && term(&lease) == term(&self.lease);
                self.lease = lease;
                Ok(ours)
            }
            Err(e) => Err(e),
        }
    }

    async fn release(mut self) {
        let Candidate { api, name, timing, .. } = &self.candidate;
        let mut spec = self.lease.spec.take().unwrap_or_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.lease.spec = Some(spec);
        let why = match timeout(timing.renew_deadline, api.replace(name, &PostParams::default(), &self.lease)).await {
            Ok(Ok(_)) => return,
            Ok(Err(e)) => in_short(&e),
            Err(_) => "no answer".to_owned(),
        };
        tracing::warn!("the Lease {name} was not released ({why}): the next leader waits until it expires");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_lease_is_taken_only_when_free_own_or_silent() {
        let spec =
            |holder: &str| LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(6), ..LeaseSpec::default() };
        let (moment, long, ours) = (Duration::from_secs(1), Duration::from_secs(6), Duration::from_secs(15));
        assert!(takeable(None, "a", moment, ours));
        assert!(takeable(Some(&spec("")), "a", moment, ours));
        assert!(takeable(Some(&spec("a")), "a", moment, ours));
        assert!(!takeable(Some(&spec("b")), "a", moment, ours));
        assert!(takeable(Some(&spec("b")), "a", long, ours));
    }

    #[test]
    fn an_epoch_rises_and_never_starts_over() {
        let day = Timestamp::from_second(EPOCH_ZERO + 86_400).unwrap();
        assert_eq!(next_epoch(None, day), 1440);
        assert_eq!(next_epoch(Some(3), day), 1440, "an old Lease was restored");
        assert_eq!(next_epoch(Some(1440), day), 1441);
    }
}
