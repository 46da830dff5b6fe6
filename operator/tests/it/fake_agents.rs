//! Agents in memory: they claim and apply as real ones do, and when the founders have their plans the cluster's API appears, Nodes and all.

use crate::fake_api::FakeApi;
use crate::fake_cloud::FakeCloud;
use crate::validating_etcd::ValidatingEtcd;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use secrecy::SecretString;
use serde_json::json;
use sha2::Digest;
use slipway_agent_api::{AgentError, OperatorIdentity, v1};
use slipway_cloud_api::InstanceState;
use slipway_model::{ArtifactRef, MachineName, MachinePlan, PlanDigest};
use slipway_operator::agents::{Agent, Agents, SignCertificate};
use slipway_operator::etcd::{Etcd, EtcdError, EtcdIdentity};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// One machine's agent.
struct One {
    claimed: bool,
    sealed: bool,
    /// What its plan runs, and why etcd ended.
    etcd: bool,
    api_server: bool,
    trouble: String,
    key: String,
    state: watch::Sender<v1::MachineState>,
}

fn new_key() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

#[derive(Default)]
struct Held {
    by_uid: BTreeMap<String, One>,
    claims: usize,
    applies: usize,
    snapshots: usize,
    spoilt: Vec<Spoilt>,
    /// What new machines' agents are, where that is not what the operator gives.
    first_build: Option<String>,
    /// Machine and build, in the order in which they were tried.
    tried: Vec<(String, String)>,
    renewed: usize,
}

/// What is wrong with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoilt {
    /// It ends before its last word.
    BrokenOff,
    /// Its data are not those that its last word speaks of.
    Altered,
}

/// All agents. Clones share them.
#[derive(Clone)]
pub struct FakeAgents {
    held: Arc<Mutex<Held>>,
    cloud: FakeCloud,
    pub workload: FakeApi,
    pub etcd: ValidatingEtcd,
}

fn silent(address: SocketAddr) -> AgentError {
    AgentError::Unreachable { peer: address.to_string(), why: "nobody listens".into() }
}

impl FakeAgents {
    pub fn new(cloud: FakeCloud) -> Self {
        Self { held: Arc::default(), cloud, workload: FakeApi::closed(), etcd: ValidatingEtcd::default() }
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

    /// Lets the next snapshots break off, or come altered.
    pub fn spoil_snapshots(&self, how: &[Spoilt]) {
        self.held.lock().unwrap().spoilt = how.to_vec();
    }

    fn snapshot(&self, uid: &str, epoch: u64) -> Result<BoxStream<'static, Result<v1::EtcdSnapshotPiece, AgentError>>, AgentError> {
        let text = format!("etcd of {uid} in epoch {epoch}");
        let mut held = self.held.lock().unwrap();
        held.snapshots += 1;
        let spoilt = if held.spoilt.is_empty() { None } else { Some(held.spoilt.remove(0)) };
        let sent = if spoilt == Some(Spoilt::Altered) { text.to_uppercase() } else { text.clone() };
        let mut pieces: Vec<_> =
            sent.into_bytes().chunks(7).map(|c| Ok(v1::EtcdSnapshotPiece { data: c.to_vec(), summary: None })).collect();
        let sha256 = hex::encode(sha2::Sha256::digest(&text));
        let (bytes, etcd_version) = (text.len() as u64, "v3.6.14".to_owned());
        let summary = v1::EtcdSnapshotSummary { sha256, bytes, revision: 42, keys: 3, hash: 1, etcd_version };
        if spoilt != Some(Spoilt::BrokenOff) {
            pieces.push(Ok(v1::EtcdSnapshotPiece { data: vec![], summary: Some(summary) }));
        }
        Ok(futures::stream::iter(pieces).boxed())
    }

    /// How many snapshots were asked for.
    pub fn snapshots(&self) -> usize {
        self.held.lock().unwrap().snapshots
    }

    /// The instance at an address: uid and name.
    fn at(&self, address: SocketAddr) -> Result<(String, String, String), AgentError> {
        let IpAddr::V4(ip) = address.ip() else { return Err(silent(address)) };
        let found = self.cloud.instance_at(ip).filter(|i| i.state == InstanceState::Running).ok_or_else(|| silent(address))?;
        Ok((found.machine_uid, found.name.to_string(), found.provider_id))
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut One) -> T) -> T {
        let mut held = self.held.lock().unwrap();
        let build = v1::AgentBuild { sha256: held.first_build.clone().unwrap_or_else(|| "ab".repeat(32)), ..Default::default() };
        let fresh = || One {
            claimed: false,
            sealed: false,
            etcd: false,
            api_server: false,
            trouble: String::new(),
            key: new_key(),
            state: watch::Sender::new(v1::MachineState { machine_uid: uid.into(), agent: Some(build), ..Default::default() }),
        };
        act(held.by_uid.entry(uid.to_owned()).or_insert_with(fresh))
    }

    /// Machines that are made from now on have this build of the agent.
    pub fn are_made_with(&self, build: &str) {
        self.held.lock().unwrap().first_build = Some(build.to_owned());
    }

    /// Machine and build, in the order in which they were tried.
    pub fn tried(&self) -> Vec<(String, String)> {
        self.held.lock().unwrap().tried.clone()
    }

    /// What runs where, by the machine's name.
    pub fn builds(&self) -> BTreeMap<String, String> {
        let held = self.held.lock().unwrap();
        let build = |uid: &str| held.by_uid.get(uid).and_then(|one| one.state.borrow().agent.clone()).map(|a| a.sha256).unwrap_or_default();
        self.cloud.all_instances().into_iter().map(|i| (i.name.to_string(), build(&i.machine_uid))).collect()
    }

    /// Ends all trials: the builds stay, or not.
    pub fn end_trials(&self, why_not: Option<&str>) {
        for one in self.held.lock().unwrap().by_uid.values() {
            one.state.send_if_modified(|s| {
                let Some(own) = s.agent.as_mut().filter(|a| !a.trial.is_empty()) else { return false };
                let tried = std::mem::take(&mut own.trial);
                match why_not {
                    None => (own.sha256, own.refused) = (tried, String::new()),
                    Some(why) => (own.refused, own.refused_why, own.refused_since_ms) = (tried, why.into(), 1),
                }
                true
            });
        }
    }

    /// All certificates end then.
    pub fn certificates_end(&self, at: jiff::Timestamp) {
        for one in self.held.lock().unwrap().by_uid.values() {
            one.state.send_modify(|s| s.certificate_expires_ms = at.as_millisecond());
        }
    }

    /// When the first certificate ends.
    pub fn first_end(&self) -> jiff::Timestamp {
        let held = self.held.lock().unwrap();
        let ends = held.by_uid.values().map(|one| one.state.borrow().certificate_expires_ms).min().unwrap_or_default();
        jiff::Timestamp::from_millisecond(ends).unwrap()
    }

    /// How many certificates were renewed.
    pub fn renewed(&self) -> usize {
        self.held.lock().unwrap().renewed
    }

    /// Somebody else's agent stands where a machine's was.
    pub fn changes_key(&self, uid: &str) {
        self.with(uid, |one| one.key = new_key());
    }

    /// A control plane's etcd ends, or runs again.
    pub fn power_etcd(&self, machine: &str, runs: bool) {
        self.etcd.power(machine, runs);
        self.rise();
    }

    /// Starts the machine's etcd as its plan says.
    fn start_etcd(&self, uid: &str, plan: &MachinePlan) {
        let name = self.cloud.all_instances().into_iter().find(|i| i.machine_uid == uid).map(|i| i.name.to_string()).unwrap_or_default();
        let text = String::from_utf8(plan.canonical()).unwrap();
        let serves = |unit: &str| plan.units.iter().any(|u| u.name.starts_with(unit));
        if serves("etcd") {
            let trouble = self.etcd.start(&name, &text).err().unwrap_or_default();
            let mut held = self.held.lock().unwrap();
            let one = held.by_uid.get_mut(uid).unwrap();
            (one.etcd, one.api_server, one.trouble) = (true, serves("kube-apiserver"), trouble);
        }
    }

    /// What probes find; and when etcd has its quorum, the API answers.
    fn rise(&self) {
        let held = self.held.lock().unwrap();
        let instances = self.cloud.all_instances();
        let applied: Vec<_> = instances
            .iter()
            .filter(|i| held.by_uid.get(&i.machine_uid).is_some_and(|o| !o.state.borrow().applied_digest.is_empty()))
            .collect();
        for instance in &applied {
            let one = &held.by_uid[&instance.machine_uid];
            if !one.etcd {
                continue;
            }
            let healthy = self.etcd.serves(instance.name.as_str());
            let probe = |name: &str| v1::ProbeStatus {
                name: name.into(),
                unit: format!("{name}.service"),
                healthy,
                message: one.trouble.clone(),
                since_ms: 1,
            };
            let probes: Vec<_> = ["etcd", "kube-apiserver"].into_iter().take(1 + usize::from(one.api_server)).map(probe).collect();
            one.state.send_if_modified(|s| std::mem::replace(&mut s.probes, probes.clone()) != probes);
        }
        if !self.etcd.has_quorum() {
            return;
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
        sign(&request(&self.with(&uid, |one| one.key.clone()))).map_err(AgentError::Own)?;
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

fn request(key: &str) -> String {
    let key = rcgen::KeyPair::from_pem(key).unwrap();
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
        self.all.start_etcd(&self.uid, plan);
        self.all.rise();
        Ok(digest)
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<v1::MachineState, AgentError>>, AgentError> {
        let states = self.all.with(&self.uid, |one| one.state.subscribe());
        Ok(tokio_stream::wrappers::WatchStream::new(states).map(Ok).boxed())
    }

    async fn renewal_request(&self, _: u64) -> Result<String, AgentError> {
        Ok(request(&self.all.with(&self.uid, |one| one.key.clone())))
    }

    async fn install_renewed(&self, _: u64, certificate: &str, authority: &str) -> Result<(), AgentError> {
        assert!(authority.starts_with("-----BEGIN CERTIFICATE"), "{authority}");
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).unwrap();
        let ends = pem.parse_x509().unwrap().validity().not_after.timestamp() * 1000;
        self.all.with(&self.uid, |one| one.state.send_modify(|s| s.certificate_expires_ms = ends));
        self.all.held.lock().unwrap().renewed += 1;
        Ok(())
    }

    async fn update(&self, _: u64, expected: &str, build: &ArtifactRef) -> Result<(), AgentError> {
        let own = self.all.with(&self.uid, |one| one.state.borrow().agent.clone()).unwrap();
        if own.trial == build.sha256 {
            return Ok(());
        }
        if own.sha256 != expected {
            return Err(AgentError::OtherBuild { peer: "fake".into(), current: own.sha256 });
        }
        assert!(own.trial.is_empty() && own.refused != build.sha256, "{own:?}");
        assert!(build.sources[0].ends_with(&format!("{}/slipway-agent", build.sha256)), "{build:?}");
        let name = self.all.cloud.all_instances().into_iter().find(|i| i.machine_uid == self.uid).unwrap().name.to_string();
        let mut held = self.all.held.lock().unwrap();
        let others_on_trial = held.by_uid.values().any(|o| o.state.borrow().agent.as_ref().is_some_and(|a| !a.trial.is_empty()));
        assert!(!others_on_trial, "two agents on trial");
        held.tried.push((name, build.sha256.clone()));
        held.by_uid[&self.uid].state.send_modify(|s| s.agent.as_mut().unwrap().trial.clone_from(&build.sha256));
        Ok(())
    }

    async fn reset(&self, _: u64, _: &str) -> Result<(), AgentError> {
        Ok(())
    }

    async fn etcd_snapshot(&self, epoch: u64) -> Result<BoxStream<'static, Result<v1::EtcdSnapshotPiece, AgentError>>, AgentError> {
        self.all.snapshot(&self.uid, epoch)
    }

    async fn etcd(&self, target: &str, machine: &MachineName, _: &EtcdIdentity) -> Result<Arc<dyn Etcd>, EtcdError> {
        let silent = |why: &str| EtcdError::Silent { machine: machine.clone(), why: why.into() };
        let there: SocketAddr = target.parse().unwrap();
        let found = self.all.cloud.all_instances().into_iter().find(|i| match there.ip() {
            IpAddr::V4(ip) if !ip.is_loopback() => i.address == ip,
            _ => i.machine_uid == self.uid,
        });
        let found = found.filter(|i| i.state == InstanceState::Running).ok_or_else(|| silent("no route"))?;
        assert_eq!((found.name.as_str(), there.port()), (machine.as_str(), 2379), "the member that is meant is the one that is asked");
        self.all.etcd.door(machine)
    }
}
