//! Whether a finished cluster does what a cluster is for: a name is resolved, and a Service answers a pod on another node.
//!
//! ```text
//! Namespace slipway-check:  Deployment server (node A) ◄── Service server ◄── Pod client (node B), asked by exec
//! ```
//! Exec goes client → apiserver → kubelet, so that way is tried along with it. The namespace is deleted afterwards, whatever came out.

use crate::output::seconds;
use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use kube::api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const NAMESPACE: &str = "slipway-check";
const IMAGE: &str = "slipway.dev/test-client:1";
/// Of each wait: images are imported after a Node is Ready, and pods back off while they are not there.
const PATIENCE: Duration = Duration::from_secs(90);

/// Says what is being tried.
pub type Say<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What was tried and how long it took.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// In a word or two.
    pub check: String,
    /// What came out.
    pub result: String,
    /// Seconds.
    pub seconds: f64,
}

/// Tries both, in a cluster with two Nodes at least.
pub async fn run(client: &Client, say: Say<'_>) -> Result<Vec<Checked>> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("listing Nodes")?;
    if nodes.items.len() < 2 {
        return Ok(Vec::new());
    }
    let result = attempt(client, say).await;
    // Pods of nobody's need no grace; what is left of the namespace goes by itself.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let _ = namespaces.delete(NAMESPACE, &DeleteParams::default()).await;
    let _ = pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await;
    result
}

async fn attempt(client: &Client, say: Say<'_>) -> Result<Vec<Checked>> {
    say("starting a server and a client on different nodes");
    let started = Instant::now();
    apply::<Namespace>(&Api::all(client.clone()), json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }))
        .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    // Without it no pod is admitted, and a ReplicaSet would back off for seconds.
    until("the namespace's service account", async || match accounts.get_opt("default").await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("not made yet by kube-controller-manager".to_owned()),
        Err(e) => Err(e.to_string()),
    })
    .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    apply::<Deployment>(&Api::namespaced(client.clone(), NAMESPACE), server()).await?;
    apply::<Service>(&Api::namespaced(client.clone(), NAMESPACE), service()).await?;
    apply::<Pod>(&pods, asker()).await?;
    let (server_node, client_node) = until("the check's pods", async || running(&pods).await).await?;
    let mut checked = vec![Checked {
        check: "pods".to_owned(),
        result: format!("server on {server_node}, client on {client_node}"),
        seconds: started.elapsed().as_secs_f64(),
    }];
    let name = "kubernetes.default.svc.cluster.local";
    say(&format!("resolving {name}"));
    checked.push(ask(&pods, "CoreDNS", &["/probe", "resolve", "--timeout", "2s", name], |out| format!("{name} is {}", out.trim())).await?);
    let url = format!("http://server.{NAMESPACE}.svc.cluster.local/");
    say(&format!("asking {url} from {client_node}"));
    let other = format!("{url} on {server_node} answered {client_node}");
    checked.push(ask(&pods, "Service", &["/probe", "get", "--timeout", "2s", &url], |_| other).await?);
    Ok(checked)
}

/// A command in the client's pod, until it succeeds.
async fn ask(pods: &Api<Pod>, check: &str, command: &[&str], tell: impl FnOnce(&str) -> String) -> Result<Checked> {
    let started = Instant::now();
    let out = until(check, async || exec(pods, command).await.map_err(|e| format!("{e:#}"))).await?;
    Ok(Checked { check: check.to_owned(), result: tell(&out), seconds: started.elapsed().as_secs_f64() })
}

async fn exec(pods: &Api<Pod>, command: &[&str]) -> Result<String> {
    let call = async {
        let params = AttachParams::default().stderr(true).stdout(true).stdin(false);
        let mut process = pods.exec("client", command.iter().copied(), &params).await.context("exec")?;
        let status = process.take_status();
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = process.stdout() {
            stdout.read_to_string(&mut out).await.context("reading what it says")?;
        }
        if let Some(mut stderr) = process.stderr() {
            stderr.read_to_string(&mut err).await.context("reading what it says")?;
        }
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        match status.and_then(|s| s.status) {
            Some(status) if status == "Success" => Ok(out),
            _ => Err(anyhow!("{}", if err.trim().is_empty() { "it failed without a word" } else { err.trim() }.to_owned())),
        }
    };
    tokio::time::timeout(Duration::from_secs(10), call).await.map_err(|_| anyhow!("no end within 10 s"))?
}

/// Nodes of server and client once both run.
async fn running(pods: &Api<Pod>) -> Result<(String, String), String> {
    let list = pods.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
    let of = |app: &str| {
        let pod = list.items.iter().find(|p| p.metadata.labels.as_ref().and_then(|l| l.get("app")).is_some_and(|a| a == app));
        let Some(pod) = pod else { return Err(format!("the {app}'s pod is not made yet")) };
        let status = pod.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
        match pod.spec.as_ref().and_then(|s| s.node_name.clone()) {
            Some(node) if ready.next().is_some() => Ok(node),
            Some(node) => Err(format!("the {app}'s pod on {node} is {}", waiting(pod))),
            None => Err(format!("the {app}'s pod has no node yet")),
        }
    };
    Ok((of("server")?, of("client")?))
}

/// Why a pod does not run: its container's reason, else its phase.
fn waiting(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let containers = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let reason = containers.filter_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone()).next();
    reason.or_else(|| status.and_then(|s| s.phase.clone())).unwrap_or_else(|| "not looked at yet".to_owned())
}

async fn until<T>(what: &str, look: impl AsyncFn() -> Result<T, String>) -> Result<T> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let missing = match look().await {
            Ok(found) => return Ok(found),
            Err(missing) => missing,
        };
        if started.elapsed() > PATIENCE {
            bail!("{what}: still not there after {}: {missing}", seconds(started.elapsed()));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(400));
    }
}

async fn apply<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let params = PatchParams::apply("slipway-cli").force();
    // A namespace that is still going away from the last time refuses: wait for it.
    until(&format!("{} {name}", K::kind(&())), async || {
        api.patch(&name, &params, &Patch::Apply(&object)).await.map(|_| ()).map_err(|e| e.to_string())
    })
    .await
}

fn pod_spec(extra: Value) -> Value {
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": 0,
        "tolerations": [{ "operator": "Exists" }],
        "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
    });
    if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
        spec.extend(extra);
    }
    spec
}

fn server() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "server", "namespace": NAMESPACE },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "server" } },
            "template": {
                "metadata": { "labels": { "app": "server" } },
                "spec": pod_spec(json!({ "containers": [{
                    "name": "server", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["serve"],
                    "ports": [{ "containerPort": 8080 }],
                }] })),
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "server", "namespace": NAMESPACE },
        "spec": { "selector": { "app": "server" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

fn asker() -> Value {
    let apart = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": { "matchLabels": { "app": "server" } }, "topologyKey": "kubernetes.io/hostname",
    }] } });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "client", "namespace": NAMESPACE, "labels": { "app": "client" } },
        "spec": pod_spec(json!({
            "affinity": apart,
            "containers": [{ "name": "client", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["sleep"] }],
        })),
    })
}
