//! What would speak against an upgrade, asked of the cluster itself: uses of APIs that the new version does not serve any more, as every API server counts
//! them, and PodDisruptionBudgets that no drain can satisfy.
//!
//! Nobody asks unless an upgrade is wanted and not begun: a task does then, again and again until it has begun, and a pass reads its last answer from memory.

use crate::api::{CallError, call_within};
use crate::bell::Bell;
use crate::clock;
use futures::future::try_join_all;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use slipway_model::{MachineName, MachineVersions};
use slipway_plan::{ClusterFacts, Fact, MachineRecord, PreflightFacts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two looks: whoever mends what speaks against the upgrade wants to see it.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks when the upgrade has not begun for [`PATIENT`] looks: a window may be days away.
const AGAIN_LATER: Duration = Duration::from_secs(60);
/// Five minutes.
const PATIENT: u32 = 60;
/// One API server's metrics are some megabytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Gauge of requests for deprecated APIs since the API server started.
const DEPRECATED: &str = "apiserver_requested_deprecated_apis{";

type Found = Arc<Mutex<Fact<PreflightFacts>>>;

/// Looks until it is dropped.
pub struct PreflightLook {
    found: Found,
    task: JoinHandle<()>,
}

impl Drop for PreflightLook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The versions of an upgrade that is wanted and not begun.
#[must_use]
pub fn wanted(cluster: &ClusterFacts, target: &MachineVersions, machines: &[MachineRecord]) -> Option<MachineVersions> {
    let differs = machines.iter().any(|m| m.is_control_plane() && m.deleting.is_none() && m.versions != *target);
    let begins = cluster.bootstrapped && cluster.deleting.is_none() && cluster.upgrade.is_none();
    (differs && begins).then_some(*target)
}

impl PreflightLook {
    /// Begins to look. `servers`: a way to each API server; `cluster`: one to any of them. The bell rings when the answer is another one.
    #[must_use]
    pub fn open(to: MachineVersions, servers: BTreeMap<MachineName, Client>, cluster: Client, bell: Arc<Bell>) -> Self {
        let found: Found = Arc::new(Mutex::new(Fact::unknown("not asked yet", clock::now())));
        let task = tokio::spawn(look(to, servers, cluster, found.clone(), bell));
        Self { found, task }
    }

    /// The last answer.
    #[must_use]
    pub fn found(&self) -> Fact<PreflightFacts> {
        lock(&self.found).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(to: MachineVersions, servers: BTreeMap<MachineName, Client>, cluster: Client, found: Found, bell: Arc<Bell>) {
    for looks in 0_u32.. {
        let answer = ask(&to, &servers, &cluster).await;
        if note(&found, answer) {
            bell.fact();
        }
        tokio::time::sleep(if looks < PATIENT { AGAIN } else { AGAIN_LATER }).await;
    }
}

/// Remembers an answer; says whether it is another one than before.
fn note(found: &Found, answer: Result<PreflightFacts, String>) -> bool {
    let mut known = lock(found);
    let same = match (&*known, &answer) {
        (Fact::Known(before), Ok(now)) => before == now,
        (Fact::Unknown { why: before, .. }, Err(why)) => before == why,
        (Fact::Known(_), Err(_)) | (Fact::Unknown { .. }, Ok(_)) => false,
    };
    if !same {
        *known = answer.map_or_else(|why| Fact::unknown(why, clock::now()), Fact::Known);
    }
    !same
}

async fn ask(to: &MachineVersions, servers: &BTreeMap<MachineName, Client>, cluster: &Client) -> Result<PreflightFacts, String> {
    let minor = to.control_plane.map_or(to.node.kubelet, |v| v.api_server).minor;
    let servers = servers.iter().map(|(machine, client)| async move {
        let text = metrics(client).await.map_err(|e| format!("the API server of {machine} does not show its metrics: {e}"))?;
        Ok::<_, String>(removed_apis(&text, minor))
    });
    let budgets: Api<PodDisruptionBudget> = Api::all(cluster.clone());
    let budgets = async {
        let listed = call_within(PATIENCE, budgets.list(&ListParams::default())).await;
        listed.map_err(|e| format!("the cluster's API does not show PodDisruptionBudgets: {e}"))
    };
    let (removed, budgets) = tokio::try_join!(try_join_all(servers), budgets)?;
    Ok(PreflightFacts {
        to: Some(*to),
        removed_apis: removed.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect(),
        impossible_budgets: impossible(&budgets.items),
    })
}

async fn metrics(client: &Client) -> Result<String, CallError> {
    let request = http::Request::get("/metrics").body(vec![]).map_err(|e| CallError::Kube(Box::new(kube::Error::HttpError(e))))?;
    call_within(PATIENCE, client.request_text(request)).await
}

/// `group/version resource` of each API in use that is removed in this minor version of Kubernetes 1, or was before.
fn removed_apis(metrics: &str, minor: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(DEPRECATED)) {
        let Some((labels, value)) = line.rsplit_once("} ") else { continue };
        let label =
            |name: &str| labels.split(',').find_map(|l| l.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"')).unwrap_or_default();
        let removed = label("removed_release").strip_prefix("1.").and_then(|m| m.parse::<u32>().ok());
        let used = value.trim().parse::<f64>().is_ok_and(|v| v > 0.0);
        if used && removed.is_some_and(|removed| removed <= minor) {
            let group = Some(label("group")).filter(|g| !g.is_empty()).map(|g| format!("{g}/")).unwrap_or_default();
            found.insert(format!("{group}{} {}", label("version"), label("resource")));
        }
    }
    found
}

/// `namespace/name` of each budget that allows no disruption though all of its pods are healthy. One whose controller has not looked yet says nothing.
fn impossible(budgets: &[PodDisruptionBudget]) -> Vec<String> {
    let blocked = |b: &&PodDisruptionBudget| {
        let current = |generation: Option<i64>| generation.is_some() && generation == b.metadata.generation;
        b.status
            .as_ref()
            .filter(|s| current(s.observed_generation))
            .is_some_and(|s| s.expected_pods >= 1 && s.disruptions_allowed == 0 && s.current_healthy >= s.expected_pods)
    };
    budgets.iter().filter(blocked).map(|b| format!("{}/{}", b.namespace().unwrap_or_default(), b.name_any())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_apis_that_are_in_use_and_go_with_the_version_count() {
        let metrics = "\
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1
apiserver_requested_deprecated_apis{group=\"flowcontrol.apiserver.k8s.io\",removed_release=\"1.37\",resource=\"flowschemas\",subresource=\"status\",version=\"v1beta3\"} 1
apiserver_requested_deprecated_apis{group=\"flowcontrol.apiserver.k8s.io\",removed_release=\"1.37\",resource=\"flowschemas\",subresource=\"\",version=\"v1beta3\"} 1
apiserver_requested_deprecated_apis{group=\"storage.k8s.io\",removed_release=\"1.38\",resource=\"volumeattributesclasses\",subresource=\"\",version=\"v1beta1\"} 1
apiserver_requested_deprecated_apis{group=\"\",removed_release=\"1.36\",resource=\"componentstatuses\",subresource=\"\",version=\"v1\"} 1
apiserver_requested_deprecated_apis{group=\"batch\",removed_release=\"1.37\",resource=\"cronjobs\",subresource=\"\",version=\"v1beta1\"} 0
apiserver_request_total{code=\"200\"} 17
";
        let found: Vec<_> = removed_apis(metrics, 37).into_iter().collect();
        assert_eq!(found, ["flowcontrol.apiserver.k8s.io/v1beta3 flowschemas", "v1 componentstatuses"]);
        assert_eq!(removed_apis(metrics, 35).len(), 0);
    }

    #[test]
    fn a_budget_is_impossible_when_all_its_pods_are_healthy_and_none_may_go() {
        let budget = |name: &str, expected: i32, healthy: i32, allowed: i32, observed: i64| -> PodDisruptionBudget {
            let status = json!({ "expectedPods": expected, "currentHealthy": healthy, "desiredHealthy": expected, "disruptionsAllowed": allowed, "observedGeneration": observed });
            serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "a", "generation": 2 }, "status": status })).unwrap()
        };
        let mut unseen = budget("unseen", 1, 1, 0, 2);
        unseen.status = None;
        let budgets = [
            budget("never", 2, 2, 0, 2),
            budget("unhealthy", 2, 1, 0, 2),
            budget("allows", 2, 2, 1, 2),
            budget("empty", 0, 0, 0, 2),
            budget("stale", 2, 2, 0, 1),
            unseen,
        ];
        assert_eq!(impossible(&budgets), ["a/never"]);
    }
}
