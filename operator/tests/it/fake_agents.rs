//! Agents in memory: they claim and apply as real ones do, and when the founders have their plans the cluster's API appears, Nodes and all.

use crate::fake_api::FakeApi;
use crate::fake_cloud::FakeCloud;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use secrecy::SecretString;
use serde_json::json;
use slipway_agent_api::{AgentError, OperatorIdentity, v1};
use slipway_cloud_api::InstanceState;
use slipway_model::{MachinePlan, PlanDigest};
use slipway_operator::agents::{Agent, Agents, SignCertificate};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// One machine's agent.
struct One {
    claimed: bool,
    sealed: bool,
    state: watch::Sender<v1::MachineState>,
}

#[derive(Default)]
struct Held {
    by_uid: BTreeMap<String, One>,
    claims: usize,
    applies: usize,
}

/// All agents. Clones share them.
#[derive(Clone)]
pub struct FakeAgents {
    held: Arc<Mutex<Held>>,
    cloud: FakeCloud,
    pub workload: FakeApi,
    control_planes: usize,
}

fn silent(address: SocketAddr) -> AgentError {
    AgentError::Unreachable { peer: address.to_string(), why: "nobody listens".into() }
}

impl FakeAgents {
    pub fn new(cloud: FakeCloud, control_planes: usize) -> Self {
        Self { held: Arc::default(), cloud, workload: FakeApi::closed(), control_planes }
    }

    pub fn claims(&self) -> usize {
        self.held.lock().unwrap().claims
    }

    /// A claim of an earlier operator that died before it wrote it down.
    pub fn seal(&self, uid: &str) {
        self.with(uid, |one| (one.claimed, one.sealed) = (true, true));
    }

    pub fn applies(&self) -> usize {
        self.held.lock().unwrap().applies
    }

    /// Says something new about a machine that changes nothing.
    pub fn chatter(&self) {
        for one in self.held.lock().unwrap().by_uid.values() {
            one.state.send_modify(|s| s.disk_free_bytes += 1);
        }
    }

    /// The instance at an address: uid and name.
    fn at(&self, address: SocketAddr) -> Result<(String, String, String), AgentError> {
        let IpAddr::V4(ip) = address.ip() else { return Err(silent(address)) };
        let found = self.cloud.instance_at(ip).filter(|i| i.state == InstanceState::Running).ok_or_else(|| silent(address))?;
        Ok((found.machine_uid, found.name.to_string(), found.provider_id))
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut One) -> T) -> T {
        let mut held = self.held.lock().unwrap();
        let fresh = || One {
            claimed: false,
            sealed: false,
            state: watch::Sender::new(v1::MachineState { machine_uid: uid.into(), ..Default::default() }),
        };
        act(held.by_uid.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// When every founder has its plan, etcd has its quorum and the API answers.
    fn rise(&self) {
        let held = self.held.lock().unwrap();
        let has_plan = |name: &str| name.contains("-cp-");
        let instances = self.cloud.all_instances();
        let applied: Vec<_> = instances
            .iter()
            .filter(|i| held.by_uid.get(&i.machine_uid).is_some_and(|o| !o.state.borrow().applied_digest.is_empty()))
            .collect();
        let founders: Vec<_> = applied.iter().filter(|i| has_plan(i.name.as_str())).collect();
        if founders.len() < self.control_planes {
            return;
        }
        for founder in founders {
            held.by_uid[&founder.machine_uid].state.send_modify(|s| {
                s.probes = ["etcd", "kube-apiserver"]
                    .map(|p| v1::ProbeStatus {
                        name: p.into(),
                        unit: format!("{p}.service"),
                        healthy: true,
                        since_ms: 1,
                        ..Default::default()
                    })
                    .to_vec();
            });
        }
        self.workload.open();
        for instance in applied {
            self.workload.put(
                "/nodes",
                "",
                json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": instance.name},
                    "spec": {"providerID": instance.provider_id},
                    "status": {
                        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                        "nodeInfo": {"kubeletVersion": "v1.36.4", "architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""},
                    },
                }),
            );
        }
    }
}

#[async_trait]
impl Agents for FakeAgents {
    async fn greet(&self, address: SocketAddr) -> Result<v1::Info, AgentError> {
        let (uid, name, _) = self.at(address)?;
        if self.with(&uid, |one| one.sealed) {
            return Err(AgentError::AlreadyClaimed { peer: address.to_string() });
        }
        Ok(v1::Info { machine_uid: uid, name, ..Default::default() })
    }

    async fn claim(&self, address: SocketAddr, _: &SecretString, machine_uid: &str, sign: SignCertificate<'_>) -> Result<(), AgentError> {
        let (uid, ..) = self.at(address)?;
        assert_eq!(uid, machine_uid, "a claim goes to the machine that was meant");
        if self.with(&uid, |one| one.sealed) {
            return Err(AgentError::AlreadyClaimed { peer: address.to_string() });
        }
        sign(&request()).map_err(AgentError::Own)?;
        self.with(&uid, |one| one.claimed = true);
        self.held.lock().unwrap().claims += 1;
        Ok(())
    }

    async fn connect(&self, address: SocketAddr, machine_uid: &str, _: &OperatorIdentity) -> Result<Arc<dyn Agent>, AgentError> {
        let (uid, ..) = self.at(address)?;
        assert_eq!(uid, machine_uid);
        if !self.with(&uid, |one| one.claimed) {
            return Err(AgentError::NotClaimed { peer: address.to_string() });
        }
        Ok(Arc::new(FakeAgent { uid, all: self.clone() }))
    }
}

fn request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

struct FakeAgent {
    uid: String,
    all: FakeAgents,
}

#[async_trait]
impl Agent for FakeAgent {
    async fn get_info(&self) -> Result<v1::Info, AgentError> {
        self.all.with(&self.uid, |one| one.sealed = true);
        Ok(v1::Info { machine_uid: self.uid.clone(), claimed: true, sealed: true, ..Default::default() })
    }

    async fn apply_plan(&self, expected: Option<&PlanDigest>, _: u64, plan: &MachinePlan) -> Result<PlanDigest, AgentError> {
        let digest = plan.digest();
        self.all.with(&self.uid, |one| {
            let current = one.state.borrow().accepted_digest.clone();
            let wanted = expected.map(|d| d.0.clone()).unwrap_or_default();
            if current != wanted && current != digest.0 {
                return Err(AgentError::DigestMismatch { peer: "fake".into(), current });
            }
            one.state.send_modify(|s| {
                s.accepted_digest.clone_from(&digest.0);
                s.applied_digest.clone_from(&digest.0);
            });
            Ok(())
        })?;
        self.all.held.lock().unwrap().applies += 1;
        self.all.rise();
        Ok(digest)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<v1::MachineState, AgentError>>, AgentError> {
        let states = self.all.with(&self.uid, |one| one.state.subscribe());
        Ok(tokio_stream::wrappers::WatchStream::new(states).map(Ok).boxed())
    }

    async fn renewal_request(&self, _: u64) -> Result<String, AgentError> {
        Ok(request())
    }

    async fn reset(&self, _: u64, _: &str) -> Result<(), AgentError> {
        Ok(())
    }
}
