//! Something that runs in a cluster and can be asked: one server on every worker, behind a Service.

use anyhow::{Result, ensure};
use slipway_tests::{Plane, until};
use std::time::Duration;

const SERVERS: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: servers }
spec:
  selector: { matchLabels: { app: servers } }
  template:
    metadata: { labels: { app: servers } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - { name: server, image: "slipway.dev/test-client:1", imagePullPolicy: Never, args: [serve, --port, "8080"], ports: [{ containerPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: servers }
spec: { selector: { app: servers }, ports: [{ port: 80, targetPort: 8080 }] }
"#;

/// A pod with the servers' name for label, `(name, node, address)`.
pub struct Server {
    pub pod: String,
    pub node: String,
    pub address: String,
}

/// Starts the servers and waits for all of them.
pub fn start(plane: &Plane, cluster: &str, workers: usize) -> Result<Vec<Server>> {
    plane.apply_inside(cluster, SERVERS)?.must("kubectl apply of the servers")?;
    until("servers on every worker", Duration::from_secs(90), || {
        // A pod of a Node that is gone is called ready until somebody collects it.
        let nodes = ready_nodes(plane, cluster)?;
        let mut found = servers(plane, cluster).map_err(|e| e.to_string())?;
        found.retain(|server| nodes.contains(&server.node));
        if found.len() == workers { Ok(found) } else { Err(format!("{} of {workers} run", found.len())) }
    })
}

/// Those that are ready.
pub fn servers(plane: &Plane, cluster: &str) -> Result<Vec<Server>> {
    let finished = plane.inside(cluster, &["get", "pods", "--selector=app=servers", "--output=json"])?.must("kubectl get pods")?;
    let list: serde_json::Value = serde_json::from_str(&finished.out)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let ready = |pod: &&serde_json::Value| {
        pod["metadata"]["deletionTimestamp"].is_null()
            && pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    Ok(pods
        .iter()
        .filter(ready)
        .map(|pod| Server {
            pod: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            address: text(&pod["status"]["podIP"]),
        })
        .collect())
}

/// Pods reach each other across nodes, Services by address and by name, and DNS answers.
pub fn traffic_flows(plane: &Plane, cluster: &str, servers: &[Server]) -> Result<()> {
    for from in servers {
        for to in servers {
            let url = format!("http://{}:8080/", to.address);
            let answer =
                until(&format!("{} asks {}", from.node, to.node), Duration::from_secs(30), || probe(plane, cluster, from, &["get", &url]))?;
            ensure!(answer.contains(&to.pod), "{url} was answered by {answer:?}, not by {}", to.pod);
        }
        until(&format!("{} resolves a name", from.node), Duration::from_secs(60), || {
            probe(plane, cluster, from, &["resolve", "servers.default.svc.cluster.local"])
        })?;
        until(&format!("{} asks the Service by name", from.node), Duration::from_secs(30), || {
            probe(plane, cluster, from, &["get", "http://servers.default.svc.cluster.local/"])
        })?;
    }
    Ok(())
}

/// Runs the test client beside a server.
fn probe(plane: &Plane, cluster: &str, from: &Server, args: &[&str]) -> Result<String, String> {
    let mut all = vec!["exec", &from.pod, "--", "/probe"];
    all.extend(args);
    let finished = plane.inside(cluster, &all).map_err(|e| e.to_string())?;
    if finished.code == 0 { Ok(finished.out) } else { Err(format!("{}{}", finished.out, finished.err)) }
}

/// Names of the Nodes that are Ready.
pub fn ready_nodes(plane: &Plane, cluster: &str) -> Result<Vec<String>, String> {
    let finished = plane.inside(cluster, &["get", "nodes", "--no-headers"]).map_err(|e| e.to_string())?;
    if finished.code != 0 {
        return Err(finished.err);
    }
    let lines = finished.out.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    Ok(lines
        .filter(|w| w.get(1).is_some_and(|s| s.split(',').next() == Some("Ready") && !s.contains("SchedulingDisabled")))
        .map(|w| w[0].to_owned())
        .collect())
}
