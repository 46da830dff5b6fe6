//! Compares the versions of what runs, several times a second: API servers within one minor version of each other, no kubelet newer than any of them and
//! none more than three minor versions older.

use crate::api::Api;
use crate::cluster::Cluster;
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);

/// A watch at work.
pub struct SkewWatch {
    stop: Arc<AtomicBool>,
    looks: Arc<Mutex<(usize, Option<String>)>>,
    thread: Option<JoinHandle<()>>,
}

impl SkewWatch {
    /// Begins to look at the servers that there are now.
    pub fn start(cluster: &Cluster<'_>) -> Result<Self> {
        let servers: Vec<Api> = cluster.control_planes()?.iter().map(|machine| cluster.server(machine)).collect();
        ensure!(!servers.is_empty(), "no API server to look at");
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((0, None))));
        let (api, told, kept) = (cluster.api().clone(), stop.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // Servers first: a kubelet that is changed between the two looks has waited for its servers longer than that.
                let versions: Vec<String> = servers.iter().filter_map(version_of).collect();
                if let (Some(kubelets), Ok(mut looks)) = (kubelets(&api), kept.lock()) {
                    looks.0 += 1;
                    looks.1 = looks.1.take().or_else(|| broken(&versions, &kubelets));
                }
                std::thread::sleep(PERIOD);
            }
        });
        Ok(Self { stop, looks, thread: Some(thread) })
    }

    /// Ends. How often it was looked, or the first rule that was broken.
    pub fn finish(mut self) -> Result<usize> {
        self.halt();
        let (looks, broken) = self.looks.lock().map(|l| l.clone()).unwrap_or_default();
        if let Some(broken) = broken {
            bail!("version skew: {broken}");
        }
        ensure!(looks > 0, "the versions were never seen");
        Ok(looks)
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It does not panic; and if it did, its looks would be missing.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for SkewWatch {
    fn drop(&mut self) {
        self.halt();
    }
}

/// What an API server says that it is.
#[must_use]
pub fn version_of(api: &Api) -> Option<String> {
    let answer = api.request("GET", "/version", None, PATIENCE).ok().filter(|a| a.status == 200)?;
    answer.body["gitVersion"].as_str().map(str::to_owned)
}

fn kubelets(api: &Api) -> Option<Vec<String>> {
    let answer = api.request("GET", "/api/v1/nodes", None, PATIENCE).ok().filter(|a| a.status == 200)?;
    let version = |node: &serde_json::Value| node["status"]["nodeInfo"]["kubeletVersion"].as_str().map(str::to_owned);
    Some(answer.body["items"].as_array()?.iter().filter_map(version).collect())
}

fn minor(version: &str) -> Result<u32> {
    let minor = version.split('.').nth(1).with_context(|| format!("{version:?} is no version"))?;
    Ok(minor.parse()?)
}

/// The rule that these versions break.
fn broken(servers: &[String], kubelets: &[String]) -> Option<String> {
    let minors = |versions: &[String]| -> Vec<u32> { versions.iter().filter_map(|v| minor(v).ok()).collect() };
    let (of_servers, of_kubelets) = (minors(servers), minors(kubelets));
    let (oldest, newest) = (of_servers.iter().min()?, of_servers.iter().max()?);
    let too_far = newest - oldest > 1;
    let too_new = of_kubelets.iter().any(|k| k > oldest);
    let too_old = of_kubelets.iter().any(|k| k + 3 < *newest);
    (too_far || too_new || too_old).then(|| format!("API servers {servers:?}, kubelets {kubelets:?}"))
}

#[cfg(test)]
mod tests {
    use super::broken;

    fn all(versions: &[&str]) -> Vec<String> {
        versions.iter().map(|v| (*v).to_owned()).collect()
    }

    #[test]
    fn a_kubelet_is_never_newer_than_a_server() {
        assert_eq!(broken(&all(&["v1.36.4", "v1.37.2"]), &all(&["v1.36.4", "v1.35.8"])), None);
        assert!(broken(&all(&["v1.36.4", "v1.37.2"]), &all(&["v1.37.2"])).is_some());
        assert!(broken(&all(&["v1.35.8", "v1.37.2"]), &all(&["v1.35.8"])).is_some());
        assert!(broken(&all(&["v1.37.2"]), &all(&["v1.33.0"])).is_some());
    }
}
