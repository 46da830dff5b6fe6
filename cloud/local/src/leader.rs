//! Leader election over a Lease, as Kubernetes' own components do it, in the little that one process per machine needs.
//!
//! Clocks of different machines are never compared: a lease is over when it has not changed for its duration by *this* process's clock.
//! Who leads must end its process when [`Leadership::hold`] returns: only a dead process surely does nothing more.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Others wait this long after the last renewal that they saw.
    pub lease: Duration,
    /// A leader that could not renew for so long has lost. Less than `lease`, so that two never lead at once.
    pub renew_deadline: Duration,
    /// Between renewals, and between looks at somebody else's lease.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(6), renew_deadline: Duration::from_secs(4), retry: Duration::from_secs(1) }
    }
}

/// Pause after an answer that says nothing about the lease: the API server is starting, or our rights have not been granted yet.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// A candidate. The identity must be unique among living processes; one that is the same again after a restart leads again at once.
#[derive(Clone)]
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

/// A lease that this process holds.
pub struct Leadership {
    elector: Elector,
    held: Lease,
    renewed: Instant,
}

impl Elector {
    /// A candidate for the lease `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.to_owned(), identity: identity.to_owned(), timing }
    }

    /// Waits until this process leads.
    pub async fn acquire(&self) -> Leadership {
        // What was seen last, and since when it has not changed.
        let mut seen: Option<(Lease, Instant)> = None;
        let mut told = String::new();
        loop {
            let started = Instant::now();
            match timeout(self.timing.renew_deadline, self.attempt(&mut seen)).await {
                Ok(Ok(Some(held))) => return Leadership { elector: self.clone(), held, renewed: started },
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

    async fn attempt(&self, seen: &mut Option<(Lease, Instant)>) -> Result<Option<Lease>, kube::Error> {
        let Some(found) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let new = Lease { metadata, spec: Some(self.spec(None)) };
            return refused(self.leases.create(&PostParams::default(), &new).await);
        };
        if seen.as_ref().is_none_or(|(before, _)| before.metadata.resource_version != found.metadata.resource_version) {
            *seen = Some((found.clone(), Instant::now()));
        }
        let waited = seen.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        if !takeable(found.spec.as_ref(), &self.identity, waited, self.timing.lease) {
            return Ok(None);
        }
        let spec = self.spec(found.spec.as_ref());
        let mine = Lease { spec: Some(spec), ..found };
        // The resourceVersion in it makes this a compare-and-swap.
        refused(self.leases.replace(&self.name, &PostParams::default(), &mine).await)
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timing.lease.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(before.and_then(|s| s.lease_transitions).unwrap_or(-1).saturating_add(1)),
            ..LeaseSpec::default()
        }
    }
}

/// An error in one sentence: kube's own words contain the whole answer, twice.
pub(crate) fn in_short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

/// Whether a lease may be taken: free, our own of a life before, or not renewed for its duration.
fn takeable(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration, ours: Duration) -> bool {
    let Some(spec) = spec else { return true };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let duration = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map_or(ours, Duration::from_secs);
    holder.is_empty() || holder == identity || unchanged >= duration
}

/// Somebody else was quicker: no error, and no lease.
fn refused(result: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match result {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(e) => Err(e),
    }
}

impl Leadership {
    /// Renews the lease until that fails for too long, or somebody else has it; tells why.
    pub async fn hold(mut self) -> String {
        let Elector { leases, name, timing, identity } = &self.elector;
        let mut why = "no renewal was tried".to_owned();
        loop {
            sleep(timing.retry).await;
            let left = timing.renew_deadline.saturating_sub(self.renewed.elapsed());
            if left.is_zero() {
                return format!("the lease {name} was not renewed for {:?}: {why}", timing.renew_deadline);
            }
            let mut next = self.held.clone();
            if let Some(spec) = &mut next.spec {
                spec.renew_time = Some(MicroTime(Timestamp::now()));
            }
            let started = Instant::now();
            match timeout(left, leases.replace(name, &PostParams::default(), &next)).await {
                Ok(Ok(lease)) => (self.held, self.renewed) = (lease, started),
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => match leases.get_opt(name).await {
                    // An answer that was lost: it is still ours.
                    Ok(Some(found)) if found.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(identity) => {
                        self.held = found
                    }
                    Ok(_) => return format!("somebody else has the lease {name}"),
                    Err(e) => why = in_short(&e),
                },
                Ok(Err(e)) => why = in_short(&e),
                Err(_) => why = "no answer".to_owned(),
            }
        }
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
}
