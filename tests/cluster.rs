//! One cluster as those see it who hurt it: its machines, who leads, how it is. All by requests to APIs: a kubectl takes part in what is measured.

use crate::api::{Answer, Api};
use crate::net;
use crate::{Plane, Process, until};
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "/apis/slipway.dev/v1alpha1/namespaces/default";
/// Where etcd tells how it is, inside its machine's network.
const ETCD_METRICS: &str = "127.0.0.1:2381";

/// A machine with an instance.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name, which is its Node's and its host name too.
    pub name: String,
    /// Its pool; cp is the control plane.
    pub pool: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The cloud's id of it.
    pub instance: String,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// What it is told to run.
    pub versions: Value,
}

/// A cluster of a management plane.
pub struct Cluster<'a> {
    plane: &'a Plane,
    name: String,
    api: Api,
    management: Api,
    cloud: Api,
}

/// The spec of a local Cluster; more is added by the caller.
#[must_use]
pub fn spec(version: &str, control_planes: u32, workers: u32) -> Value {
    let mut spec = json!({"kubernetesVersion": version, "provider": {"local": {}}, "controlPlane": {"replicas": control_planes}});
    if workers > 0 {
        spec["pools"] = json!([{"name": "workers", "replicas": workers}]);
    }
    spec
}

impl<'a> Cluster<'a> {
    /// Makes it and waits until it is well.
    pub fn create(plane: &'a Plane, name: &str, spec: &Value) -> Result<Self> {
        let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": spec});
        plane.apply(&object.to_string())?.must("kubectl apply")?;
        plane.wait_ready(name, Duration::from_secs(240))?;
        let api = Api::from_kubeconfig(&plane.fetch_kubeconfig(name)?)?;
        let cluster = Self { plane, name: name.to_owned(), api, management: plane.api()?, cloud: plane.cloud()? };
        cluster.settle("the new cluster", Duration::from_secs(120))?;
        Ok(cluster)
    }

    /// Deletes it and waits for its end.
    pub fn delete(self) -> Result<()> {
        self.plane.kubectl(&["delete", "cluster", &self.name, "--timeout=120s"])?.must("kubectl delete cluster").map(drop)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its management plane.
    #[must_use]
    pub fn plane(&self) -> &'a Plane {
        self.plane
    }

    /// Its API through the load balancer.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The API of one of its servers.
    #[must_use]
    pub fn server(&self, machine: &Machine) -> Api {
        self.api.at(SocketAddr::from((machine.address, 6443)))
    }

    /// The load balancer and every server: a way into the API each.
    pub fn ways_in(&self) -> Result<Vec<Api>> {
        let mut all = vec![self.api.clone()];
        all.extend(self.control_planes()?.iter().map(|machine| self.server(machine)));
        Ok(all)
    }

    /// The Cluster object.
    pub fn object(&self) -> Result<Value> {
        got(&self.management, &format!("{NAMESPACE}/clusters/{}", self.name))
    }

    /// Changes the Cluster object's spec by a merge patch.
    pub fn patch(&self, spec: &Value) -> Result<()> {
        let path = format!("{NAMESPACE}/clusters/{}", self.name);
        let patched = answered(self.management.request("PATCH", &path, Some(&json!({ "spec": spec })), PATIENCE))?;
        ensure!(patched.status == 200, "patching Cluster {} by {spec}: {}: {}", self.name, patched.status, patched.body);
        Ok(())
    }

    /// Deletes a Machine object, which means: replace that machine.
    pub fn delete_machine(&self, name: &str) -> Result<()> {
        let deleted = answered(self.management.request("DELETE", &format!("{NAMESPACE}/machines/{name}"), None, PATIENCE))?;
        ensure!(matches!(deleted.status, 200 | 202), "deleting Machine {name}: {}: {}", deleted.status, deleted.body);
        Ok(())
    }

    /// Machine objects of the cluster, sorted by name.
    pub fn machine_objects(&self) -> Result<Vec<Value>> {
        let list = got(&self.management, &format!("{NAMESPACE}/machines"))?;
        Ok(list["items"].as_array().into_iter().flatten().filter(|m| m["spec"]["cluster"] == self.name.as_str()).cloned().collect())
    }

    /// Its machines that have an instance.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let objects = self.machine_objects()?;
        let machine = |m: &Value| {
            Some(Machine {
                name: text(&m["metadata"]["name"])?,
                pool: text(&m["spec"]["pool"])?,
                address: m["spec"]["instance"]["address"].as_str()?.parse().ok()?,
                instance: text(&m["spec"]["instance"]["id"])?,
                leaving: !m["metadata"]["deletionTimestamp"].is_null(),
                versions: m["spec"]["versions"].clone(),
            })
        };
        Ok(objects.iter().filter_map(machine).collect())
    }

    /// Its control-plane machines that have an instance.
    pub fn control_planes(&self) -> Result<Vec<Machine>> {
        Ok(self.machines()?.into_iter().filter(|m| m.pool == "cp").collect())
    }

    /// Its workers that have an instance.
    pub fn workers(&self) -> Result<Vec<Machine>> {
        Ok(self.machines()?.into_iter().filter(|m| m.pool != "cp").collect())
    }

    /// What etcd of a machine tells of itself.
    pub fn etcd_metrics(&self, machine: &str) -> Result<String> {
        let process = self.plane.process_of(machine, "etcd")?;
        net::get_inside(process.pid, ETCD_METRICS, "/metrics").with_context(|| format!("asking etcd of {machine}"))
    }

    /// The control plane that leads etcd, and those that follow.
    pub fn etcd_leader(&self) -> Result<(Machine, Vec<Machine>)> {
        let leads = |m: &Machine| self.etcd_metrics(&m.name).is_ok_and(|text| has(&text, "etcd_server_is_leader 1"));
        let (mut leaders, followers): (Vec<_>, Vec<_>) = self.control_planes()?.into_iter().partition(leads);
        let leader = leaders.pop().context("no etcd member says that it leads")?;
        ensure!(leaders.is_empty(), "{} and {} both say that they lead etcd", leader.name, leaders[0].name);
        Ok((leader, followers))
    }

    /// Ids of etcd's members as its leader knows them.
    pub fn members(&self) -> Result<Vec<String>> {
        let object = self.object()?;
        let mut ids: Vec<String> =
            object["status"]["etcdMembers"].as_array().into_iter().flatten().filter_map(|m| m["id"].as_str().map(str::to_owned)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Who holds a lease of kube-system: the machine, and the holder's whole identity.
    pub fn holder(&self, lease: &str) -> Result<(String, String)> {
        let lease = got(&self.api, &format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"))?;
        let identity = lease["spec"]["holderIdentity"].as_str().filter(|i| !i.is_empty()).context("nobody holds it")?.to_owned();
        Ok((identity.split('_').next().unwrap_or_default().to_owned(), identity))
    }

    /// Nodes by name: whether Ready, and the kubelet's version.
    pub fn nodes(&self) -> Result<Vec<(String, bool, String)>> {
        let list = got(&self.api, "/api/v1/nodes")?;
        let node = |n: &Value| {
            let conditions = n["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            (text(&n["metadata"]["name"]), ready, text(&n["status"]["nodeInfo"]["kubeletVersion"]))
        };
        Ok(list["items"].as_array().into_iter().flatten().map(node).collect())
    }

    /// A condition's status, reason and message; empty where it is not there.
    pub fn condition(&self, kind: &str) -> Result<(String, String, String)> {
        let object = self.object()?;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
        Ok((text(&found["status"]), text(&found["reason"]), text(&found["message"])))
    }

    /// Why the control plane is not whole: every wanted server ready, every member with a leader and a vote.
    pub fn control_plane_whole(&self) -> Result<(), String> {
        let object = self.object().map_err(said)?;
        let wanted = object["spec"]["controlPlane"]["replicas"].as_u64().unwrap_or_default();
        let machines = self.control_planes().map_err(said)?;
        let names = || machines.iter().map(|m| m.name.as_str()).collect::<Vec<_>>();
        if machines.len() as u64 != wanted || machines.iter().any(|m| m.leaving) {
            return Err(format!("control planes {:?}, {wanted} wanted", names()));
        }
        for machine in &machines {
            match self.server(machine).request("GET", "/readyz", None, Duration::from_secs(1)) {
                Ok(answer) if answer.status == 200 => {}
                Ok(answer) => return Err(format!("kube-apiserver of {} answers {}", machine.name, answer.status)),
                Err(why) => return Err(format!("kube-apiserver of {}: {why:?}", machine.name)),
            }
            let metrics = self.etcd_metrics(&machine.name).map_err(said)?;
            if !has(&metrics, "etcd_server_has_leader 1") || !has(&metrics, "etcd_server_is_learner 0") {
                return Err(format!("etcd of {} follows nobody, or has no vote", machine.name));
            }
        }
        Ok(())
    }

    /// Why the cluster is not as its spec says, in Slipway's own words.
    pub fn followed(&self) -> Result<(), String> {
        let object = self.object().map_err(said)?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let open: Vec<String> = ["Ready", "UpToDate"]
            .iter()
            .filter(|kind| !conditions.iter().any(|c| c["type"] == **kind && c["status"] == "True"))
            .map(|kind| conditions.iter().find(|c| c["type"] == *kind).map_or_else(|| format!("no {kind}"), Value::to_string))
            .collect();
        let waits = &object["status"]["waits"];
        if object["status"]["observedGeneration"] != object["metadata"]["generation"] {
            Err("the operator has not looked at the new spec".to_owned())
        } else if !open.is_empty() {
            Err(format!("{} waits: {waits}", open.join("; ")))
        } else if waits.as_array().is_some_and(|w| !w.is_empty()) || !object["status"]["recorded"]["upgrade"].is_null() {
            Err(format!("waits: {waits}, upgrade: {}", object["status"]["recorded"]["upgrade"]))
        } else {
            Ok(())
        }
    }

    /// Waits until the control plane is whole and the spec followed.
    pub fn settle(&self, what: &str, limit: Duration) -> Result<()> {
        until(&format!("{what} is well"), limit, || {
            self.control_plane_whole()?;
            self.followed()
        })
    }

    /// A machine's one process of that name.
    pub fn process(&self, machine: &str, name: &str) -> Result<Process> {
        self.plane.process_of(machine, name)
    }

    /// Sends all processes of that name on a machine a signal; there must be one.
    pub fn signal(&self, machine: &str, name: &str, signal: Signal) -> Result<Vec<i32>> {
        let pids: Vec<i32> = self.plane.processes_of(machine, name).into_iter().map(|p| p.pid).collect();
        ensure!(!pids.is_empty(), "no {name} runs on {machine}");
        for pid in &pids {
            kill(Pid::from_raw(*pid), signal).with_context(|| format!("sending {signal} to {name} on {machine}"))?;
        }
        Ok(pids)
    }

    /// Whether a program runs again as another process.
    pub fn runs_anew(&self, machine: &str, name: &str, before: &[i32]) -> Result<(), String> {
        let now = self.plane.processes_of(machine, name);
        if !now.is_empty() && now.iter().all(|p| !before.contains(&p.pid)) { Ok(()) } else { Err(format!("no new {name} on {machine}")) }
    }

    /// Pulls the plug: everything on the machine dies at once, its disk stays.
    pub fn power_off(&self, machine: &Machine) -> Result<()> {
        self.press(machine, "POST", "/power-off")
    }

    /// Presses the button.
    pub fn power_on(&self, machine: &Machine) -> Result<()> {
        self.press(machine, "POST", "/start")
    }

    /// Takes the machine and its disk away behind Slipway's back.
    pub fn destroy(&self, machine: &Machine) -> Result<()> {
        self.press(machine, "DELETE", "")
    }

    /// Replaces the faults that the local cloud injects; `{}` ends them.
    pub fn cloud_faults(&self, faults: &Value) -> Result<()> {
        let done = answered(self.cloud.request("PUT", "/v1/faults", Some(faults), Duration::from_secs(30)))?;
        ensure!(done.status < 300, "setting the cloud's faults: {}: {}", done.status, done.body);
        Ok(())
    }

    fn press(&self, machine: &Machine, method: &str, verb: &str) -> Result<()> {
        let uid = self.object()?["metadata"]["uid"].as_str().context("a Cluster without uid")?.to_owned();
        let path = format!("/v1/clusters/{uid}/instances/{}{verb}", machine.instance);
        let body = (method == "POST").then(|| json!({}));
        let done = answered(self.cloud.request(method, &path, body.as_ref(), Duration::from_secs(30)))?;
        ensure!(done.status < 300, "{method} {path}: {}: {}", done.status, done.body);
        Ok(())
    }
}

/// The body of a 200.
fn got(api: &Api, path: &str) -> Result<Value> {
    let answer = answered(api.request("GET", path, None, PATIENCE))?;
    if answer.status == 200 { Ok(answer.body) } else { bail!("GET {path}: {}: {}", answer.status, answer.body["message"]) }
}

fn answered(answer: Result<Answer, crate::api::Failure>) -> Result<Answer> {
    answer.map_err(|failure| anyhow::anyhow!("{failure:?}"))
}

fn has(metrics: &str, line: &str) -> bool {
    metrics.lines().any(|l| l == line)
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn said(error: anyhow::Error) -> String {
    format!("{error:#}")
}
