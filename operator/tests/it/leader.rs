//! Leadership by Lease.

use crate::fake_api::FakeApi;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use slipway_local::leader::{Candidate, Ended, Timing};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn candidate(api: &FakeApi, identity: &str) -> Candidate {
    let timing = Timing { lease: Duration::from_secs(1), renew_deadline: Duration::from_millis(600), retry: Duration::from_millis(100) };
    let api: Api<Lease> = Api::namespaced(api.client(), "slipway-system");
    Candidate { api, name: "slipway-operator".into(), identity: identity.into(), timing }
}

#[tokio::test]
async fn one_leads_at_a_time_and_every_term_has_a_higher_epoch() {
    let api = FakeApi::new();
    let first = candidate(&api, "a").acquire().await;
    let (epoch, stop) = (first.epoch, CancellationToken::new());
    let holding = tokio::spawn(first.hold(stop.clone().cancelled_owned()));
    let other = candidate(&api, "b");
    assert!(tokio::time::timeout(Duration::from_millis(1500), other.acquire()).await.is_err(), "a renews, so b waits");
    stop.cancel();
    assert_eq!(holding.await.unwrap(), Ended::Stopped);
    let begin = Instant::now();
    let second = other.acquire().await;
    assert!(begin.elapsed() < Duration::from_millis(500), "a released Lease is taken at once: {:?}", begin.elapsed());
    assert!(second.epoch > epoch);
    // A process of the same name is its own successor: its supervisor runs one at a time.
    let begin = Instant::now();
    let third = candidate(&api, "b").acquire().await;
    assert!(begin.elapsed() < Duration::from_millis(500) && third.epoch > second.epoch);
    // And its former life must not go on.
    assert_eq!(second.hold(std::future::pending()).await, Ended::Lost("somebody else has the Lease slipway-operator".into()));
}

#[tokio::test]
async fn a_silent_leader_is_succeeded_and_a_deleted_lease_starts_no_epoch_over() {
    let api = FakeApi::new();
    let first = candidate(&api, "a").acquire().await;
    let begin = Instant::now();
    let second = candidate(&api, "b").acquire().await;
    assert!(begin.elapsed() > Duration::from_millis(900) && second.epoch > first.epoch);
    api.delete("coordination.k8s.io/leases", "slipway-system", "slipway-operator");
    let third = candidate(&api, "c").acquire().await;
    // The Lease is gone with its count; the minutes since 2025 are not.
    assert!(third.epoch >= first.epoch);
}
