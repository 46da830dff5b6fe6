//! What is accepted and what is refused, in which words: one table for kube's own CEL engine and for a real API server.

use serde_json::{Map, Value, json};

/// Who refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A rule.
    Rule,
    /// A rule, by what the API server's CEL knows better than kube's.
    ServerOnly,
    /// The schema's types and bounds.
    Schema,
    /// Strict decoding: a field that there is not.
    Strict,
}

/// Something that is refused.
pub struct Refused {
    /// Plural of the kind.
    pub kind: &'static str,
    /// What it was before, where the refusal is one of a change: changes to [`good`].
    pub before: Option<Value>,
    /// Changes to [`good`], a merge patch.
    pub change: Value,
    /// Who says so.
    pub by: By,
    /// What is said.
    pub message: String,
}

impl Refused {
    /// What was there, if it matters, and what is refused.
    pub fn objects(&self, good: &Value) -> (Option<Value>, Value) {
        let Some(before) = &self.before else { return (None, merged(good, &self.change)) };
        let (before, after) = change(good, before, &self.change);
        (Some(before), after)
    }
}

/// An object and what becomes of it. A change of the spec leaves the status as it is, as the API server does.
pub fn change(good: &Value, before: &Value, after: &Value) -> (Value, Value) {
    let (before, mut after) = (merged(good, before), merged(good, after));
    if let Some(status) = before.get("status") {
        after["status"] = status.clone();
    }
    (before, after)
}

/// A merge patch (RFC 7386).
pub fn merged(base: &Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut merged = base.as_object().cloned().unwrap_or_else(Map::new);
    for (key, value) in patch {
        if value.is_null() {
            merged.remove(key);
        } else {
            let before = merged.get(key).cloned().unwrap_or_default();
            merged.insert(key.clone(), super::cases::merged(&before, value));
        }
    }
    Value::Object(merged)
}

/// A valid object of a kind.
pub fn good(kind: &str) -> Value {
    match kind {
        "clusters" => serde_saphyr::from_str(include_str!("../../../examples/local-ha.yaml")).unwrap(),
        "nodepools" => json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "NodePool", "metadata": { "name": "demo-workers" },
            "spec": { "cluster": "demo", "pool": "workers", "replicas": 2 }
        }),
        "machines" => json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "Machine", "metadata": { "name": "demo-workers-0" },
            "spec": { "cluster": "demo", "pool": "workers", "role": "Worker", "ordinal": 0,
                "versions": { "kubelet": "v1.36.4", "containerd": "v2.3.4" } }
        }),
        "etcdsnapshots" => json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "EtcdSnapshot", "metadata": { "name": "demo-monday" }, "spec": { "cluster": "demo" }
        }),
        other => panic!("no such kind: {other}"),
    }
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn network(network: Value) -> Value {
    spec(json!({ "network": network }))
}

/// Clusters that are accepted, as changes to [`good`].
pub fn accepted() -> Vec<Value> {
    let pool = |pool: Value| spec(json!({ "pools": [pool] }));
    vec![
        json!({}),
        json!({ "metadata": { "name": "a".repeat(30) } }),
        spec(json!({ "controlPlane": { "replicas": 7 }, "pools": null, "deletionPolicy": "Orphan" })),
        spec(json!({ "kubernetesVersion": "v1.37.2", "componentVersions": { "etcd": "v3.7.3", "containerd": "v2.3.4" } })),
        spec(json!({ "upgrade": { "ignoreRemovedApis": ["policy/v1beta1 podsecuritypolicies", "v1 endpoints"] } })),
        network(json!({ "podCIDR": "10.244.0.0/21", "serviceCIDR": "10.244.8.0/28", "kubeProxyMode": "ipvs" })),
        pool(json!({ "name": "p".repeat(20) })),
        pool(json!({ "name": "0", "replicas": 0, "drainTimeoutSeconds": 0 })),
        pool(json!({ "name": "gpu", "labels": { "example.com/gpu": "yes", "plain": "" },
            "taints": [{ "key": "example.com/gpu", "effect": "NoSchedule" }, { "key": "example.com/gpu", "value": "x", "effect": "NoExecute" }] })),
        pool(json!({ "name": "behind", "kubernetesVersion": "v1.35.8", "replaceRequest": "2026-07-01",
            "upgrade": { "strategy": "Replace", "maxSurge": "100%", "maxUnavailable": 0, "allow": "Any" },
            "healthCheck": { "agentSilentSeconds": 60, "maxReplacing": "7%", "nodeConditions": [{ "type": "DiskPressure", "status": "True", "seconds": 600 }] } })),
        pool(json!({ "name": "same", "kubernetesVersion": "v1.36.4", "upgrade": { "maxSurge": 0, "maxUnavailable": "25%" } })),
        spec(json!({ "controlPlane": { "upgrade": { "strategy": "Replace", "allow": "InPlaceOnly" }, "replaceRequest": "again" } })),
        spec(json!({ "maintenance": { "paused": true, "healing": "InWindows", "windows": [
            { "days": ["Saturday", "Sunday"], "start": "23:59", "minutes": 1440 }, { "start": "00:00", "minutes": 1 }] } })),
        spec(
            json!({ "pools": [{ "name": "a", "replicas": 1000 }, { "name": "b" }, { "name": "c" }], "network": { "podCIDR": "10.240.0.0/12" } }),
        ),
    ]
}

/// Changes that are accepted: before, after.
pub fn accepted_changes() -> Vec<(Value, Value)> {
    vec![
        (spec(json!({ "kubernetesVersion": "v1.35.8" })), spec(json!({ "kubernetesVersion": "v1.36.4" }))),
        (spec(json!({ "componentVersions": { "etcd": "v3.6.13" } })), spec(json!({ "componentVersions": { "etcd": "v3.6.14" } }))),
        (json!({}), spec(json!({ "pools": [{ "name": "others" }] }))),
        // Written out, the defaults are what they were.
        (json!({}), network(json!({ "podCIDR": "10.244.0.0/16", "serviceCIDR": "10.96.0.0/16" }))),
        (replicas(3), replicas(1)),
        (replicas(1), replicas(7)),
        // Held back in the same breath as the control plane is raised, and let go again.
        (
            versions("v1.35.8"),
            spec(json!({ "kubernetesVersion": "v1.36.4", "pools": [{ "name": "workers", "kubernetesVersion": "v1.35.8" }] })),
        ),
        (pool_version("v1.35.8"), spec(json!({ "pools": [{ "name": "workers" }] }))),
        // While an upgrade is under way: back, and back again; a pool that it has not reached is held back.
        (upgrading("v1.36.4", "v3.6.9"), spec(json!({ "kubernetesVersion": "v1.35.8", "componentVersions": { "etcd": "v3.6.9" } }))),
        (upgrading("v1.36.4", "v3.6.9"), versions("v1.36.4")),
        (upgrading("v1.36.4", "v3.6.9"), pool_version("v1.35.8")),
        // What was asked for and has not begun is taken back.
        (running("v1.36.4", "v1.35.8", "v3.6.14", "v3.6.14"), versions("v1.35.8")),
        (running("v1.36.4", "v1.35.8", "v3.6.14", "v3.6.14"), pool_version("v1.35.8")),
        (running("v1.36.4", "v1.36.4", "v3.7.3", "v3.6.14"), etcd("v3.6.14")),
        (running("v1.36.4", "v1.36.4", "v3.6.14", "v3.6.14"), versions("v1.37.2")),
    ]
}

fn versions(version: &str) -> Value {
    spec(json!({ "kubernetesVersion": version }))
}

fn etcd(version: &str) -> Value {
    spec(json!({ "componentVersions": { "etcd": version } }))
}

fn replicas(replicas: u32) -> Value {
    spec(json!({ "controlPlane": { "replicas": replicas } }))
}

fn pool_version(version: &str) -> Value {
    spec(json!({ "pools": [{ "name": "workers", "kubernetesVersion": version }] }))
}

/// A Cluster that wants a version, in the middle of an upgrade from v1.35.8 and an etcd. It holds etcd at v3.6.14.
fn upgrading(wanted: &str, etcd: &str) -> Value {
    let told = |kubernetes: &str, etcd: &str| json!({ "etcd": etcd, "apiServer": kubernetes, "controllers": kubernetes, "kubelet": kubernetes, "containerd": "v2.3.4" });
    json!({
        "spec": { "kubernetesVersion": wanted, "componentVersions": { "etcd": "v3.6.14" } },
        "status": { "kubernetesVersion": "v1.35.8", "recorded": { "upgrade": {
            "from": told("v1.35.8", etcd), "to": told(wanted, "v3.6.14"), "snapshot": "demo-before-v1.36.4-1", "since": "2026-01-01T00:00:00Z" } } },
    })
}

/// A Cluster that wants versions and runs others, and nothing was begun.
fn running(wanted: &str, runs: &str, wanted_etcd: &str, runs_etcd: &str) -> Value {
    let member = |id: &str| json!({ "id": id, "machine": format!("demo-cp-{id}"), "role": "Follower", "version": runs_etcd });
    json!({
        "spec": { "kubernetesVersion": wanted, "componentVersions": { "etcd": wanted_etcd } },
        "status": { "kubernetesVersion": runs, "etcdMembers": [member("0"), member("1")] },
    })
}

/// Everything that is refused.
pub fn refused() -> Vec<Refused> {
    let mut all = Vec::new();
    let mut add = |kind, before: Option<Value>, change: Value, by, message: &str| {
        all.push(Refused { kind, before, change, by, message: message.to_owned() });
    };
    clusters(&mut |change, by, message| add("clusters", None, change, by, message));
    let mut changed = |before, change, message: &str| add("clusters", Some(before), change, By::Rule, message);
    version_changes(&mut changed);
    for (field, was, is) in [("podCIDR", "10.244.0.0/16", "10.245.0.0/16"), ("serviceCIDR", "10.96.0.0/16", "10.97.0.0/16")] {
        let message = format!("spec.network.{field} is \"{is}\" and was \"{was}\": cannot be changed, make a new cluster for other ranges");
        changed(json!({}), network(json!({ field: is })), &message);
    }
    changed(
        network(json!({ "podCIDR": "10.245.0.0/16" })),
        spec(json!({ "network": null })),
        "spec.network.podCIDR is \"10.244.0.0/16\" and was \"10.245.0.0/16\": cannot be changed, make a new cluster for other ranges",
    );
    let name = |n: &str| json!({ "metadata": { "name": n } });
    add("nodepools", None, name("other"), By::Rule, "metadata.name is \"other\": must be demo-workers, cluster and pool");
    add("nodepools", None, spec(json!({ "replicas": -1 })), By::Schema, "spec.replicas in body should be greater than or equal to 0");
    add("nodepools", None, spec(json!({ "replicas": 1001 })), By::Schema, "spec.replicas in body should be less than or equal to 1000");
    add("machines", None, name("other"), By::Rule, "metadata.name is \"other\": must be demo-workers-0, cluster, pool and ordinal");
    add(
        "machines",
        None,
        spec(json!({ "role": "ControlPlane" })),
        By::Rule,
        "spec.role is \"ControlPlane\" in pool \"workers\": must be ControlPlane in pool cp and Worker in every other",
    );
    add(
        "machines",
        None,
        spec(json!({ "role": "Spare" })),
        By::Schema,
        "spec.role: Unsupported value: \"Spare\": supported values: \"ControlPlane\", \"Worker\"",
    );
    let ignoring = |apis: serde_json::Value| spec(json!({ "upgrade": { "ignoreRemovedApis": apis } }));
    for (apis, told) in [(json!(["policy/v1beta1"]), "policy/v1beta1"), (json!(["policy/v1beta1 *"]), "policy/v1beta1 *")] {
        let message = format!(
            "spec.upgrade.ignoreRemovedApis is {told}: each is one group/version and one resource, e.g. policy/v1beta1 podsecuritypolicies"
        );
        add("clusters", None, ignoring(apis), By::Rule, &message);
    }
    let instance = |id: &str| spec(json!({ "instance": { "id": id, "address": "198.18.1.9" } }));
    let recorded = "spec.instance is another than was recorded: cannot be changed or removed, delete the Machine to have it replaced";
    add("machines", Some(instance("i-1")), instance("i-2"), By::Rule, recorded);
    add("machines", Some(instance("i-1")), spec(json!({ "instance": null })), By::Rule, recorded);
    let zoned = |zone: &str| spec(json!({ "instance": { "id": "i-1", "address": "198.18.1.9", "zone": zone } }));
    add("machines", Some(zoned("a")), zoned("b"), By::Rule, recorded);
    add("machines", Some(zoned("a")), instance("i-1"), By::Rule, recorded);
    add(
        "machines",
        Some(spec(json!({ "agentKey": "aa" }))),
        spec(json!({ "agentKey": "bb" })),
        By::Rule,
        "spec.agentKey is another than was recorded: cannot be changed or removed, delete the Machine to have it replaced",
    );
    let join = |member: &str| spec(json!({ "join": { "member": member, "members": { "demo-cp-0": "198.18.1.9" } } }));
    add(
        "machines",
        Some(join("8e9e05c52164694d")),
        join("8e9e05c52164694e"),
        By::Rule,
        "spec.join is another than was recorded: cannot be changed or removed, delete the Machine to have it replaced",
    );
    add(
        "etcdsnapshots",
        None,
        name(&"s".repeat(201)),
        By::Rule,
        "metadata.name has 201 characters: must have at most 200, since files are called after it",
    );
    add(
        "etcdsnapshots",
        Some(json!({})),
        spec(json!({ "cluster": "other" })),
        By::Rule,
        "spec.cluster is \"other\" and was \"demo\": cannot be changed",
    );
    all
}

/// Versions that are lowered, or raised too far: the nearest value that is allowed is named.
fn version_changes(changed: &mut dyn FnMut(Value, Value, &str)) {
    let is = |field: &str, is: &str, was: &str, must: &str| format!("spec.{field} is \"{is}\" and was \"{was}\": must {must}");
    let lowered = |v: &str, was: &str, end: &str| is("kubernetesVersion", v, was, &format!("not be lowered, {end}"));
    changed(
        versions("v1.36.4"),
        versions("v1.35.8"),
        &lowered("v1.35.8", "v1.36.4", "Kubernetes cannot be downgraded: leave it at v1.36.4").replace("at v1.36.4", "at \"v1.36.4\""),
    );
    changed(
        upgrading("v1.37.2", "v3.6.9"),
        versions("v1.36.4"),
        &lowered("v1.36.4", "v1.37.2", "but back to \"v1.35.8\", which the upgrade under way began with"),
    );
    changed(
        running("v1.37.2", "v1.36.4", "v3.6.14", "v3.6.14"),
        versions("v1.35.8"),
        &lowered("v1.35.8", "v1.37.2", "but back to \"v1.36.4\", which the API servers run"),
    );
    let skipped = |v: &str, base: &str, next: &str| {
        format!("spec.kubernetesVersion is \"{v}\" and {base}: must be raised one minor version at a time, to {next} first")
    };
    changed(versions("v1.35.8"), versions("v1.37.2"), &skipped("v1.37.2", "it was \"v1.35.8\"", "v1.36.4"));
    changed(
        upgrading("v1.36.4", "v3.6.9"),
        versions("v1.37.2"),
        &skipped("v1.37.2", "the upgrade under way began with \"v1.35.8\"", "v1.36.4"),
    );
    changed(
        running("v1.36.4", "v1.35.8", "v3.6.14", "v3.6.14"),
        versions("v1.37.2"),
        &skipped("v1.37.2", "its API servers run \"v1.35.8\"", "v1.36.4"),
    );
    let pool = "kubelets cannot be downgraded, leave it as it was";
    changed(
        spec(json!({ "pools": [{ "name": "other" }, { "name": "workers" }] })),
        spec(json!({ "pools": [{ "name": "other" }, { "name": "workers", "kubernetesVersion": "v1.35.8" }] })),
        &format!("spec.pools[].kubernetesVersion is \"v1.35.8\" and was newer: must not be lowered, {pool}"),
    );
    let field = "componentVersions.etcd";
    let older = |v: &str| format!("not be lowered, an older etcd cannot read the data of a newer one: leave it at \"{v}\"");
    changed(etcd("v3.6.14"), etcd("v3.6.9"), &is(field, "v3.6.9", "v3.6.14", &older("v3.6.14")));
    changed(etcd("v3.7.3"), etcd("v3.6.14"), &is(field, "v3.6.14", "v3.7.3", &older("v3.7.3")));
    // A minor version of etcd is not left even while the upgrade is under way; a patch is left for what it came from and nothing else.
    changed(upgrading("v1.36.4", "v3.5.21"), etcd("v3.5.21"), &is(field, "v3.5.21", "v3.6.14", &older("v3.6.14")));
    changed(
        upgrading("v1.36.4", "v3.6.9"),
        etcd("v3.6.8"),
        &is(field, "v3.6.8", "v3.6.14", "not be lowered, but back to \"v3.6.9\", which the upgrade under way began with"),
    );
    changed(etcd("v3.5.21"), etcd("v3.7.3"), &is(field, "v3.7.3", "v3.5.21", "be raised one minor version at a time, to v3.6 first"));
}

fn clusters(add: &mut dyn FnMut(Value, By, &str)) {
    let mut rule = |change, message: &str| add(change, By::Rule, message);

    let name = "must be at most 30 lower-case letters, digits and \"-\", without dots, since machine names and labels are made of it";
    let long = "c".repeat(31);
    rule(json!({ "metadata": { "name": long } }), &format!("metadata.name is \"{long}\" (31 characters): {name}"));
    rule(json!({ "metadata": { "name": "a.b" } }), &format!("metadata.name is \"a.b\" (3 characters): {name}"));

    for replicas in [-1, 0, 2, 4, 6, 9] {
        let message = format!("spec.controlPlane.replicas is {replicas}: must be 1, 3, 5 or 7");
        rule(spec(json!({ "controlPlane": { "replicas": replicas } })), &message);
    }
    for version in ["v1.34.9", "v1.36.99", "v2.0.0", "1.36.4", "v1.36", "latest", "", "v1.36.4\nx"] {
        let message = format!("spec.kubernetesVersion is {version:?}: must be v1.35.8, v1.36.4 or v1.37.2");
        rule(spec(json!({ "kubernetesVersion": version })), &message);
    }
    for (field, example, size) in [
        ("podCIDR", "10.244.0.0/16", "must be between /8 and /24, every node takes a /24 of it"),
        ("serviceCIDR", "10.96.0.0/16", "must be between /12 and /28"),
    ] {
        for cidr in ["", "10.1.0.0", "10.1.0.0/33", "10.1.0/16", "any", "fd00::/64"] {
            rule(network(json!({ field: cidr })), &format!("spec.network.{field} is \"{cidr}\": must be an IPv4 range such as {example}"));
        }
        rule(
            network(json!({ field: "10.1.2.3/16" })),
            &format!("spec.network.{field} is \"10.1.2.3/16\": must have no host bits set, write 10.1.0.0/16"),
        );
        for cidr in ["12.0.0.0/7", "10.1.0.0/29"] {
            rule(network(json!({ field: cidr })), &format!("spec.network.{field} is \"{cidr}\": {size}"));
        }
    }
    rule(
        network(json!({ "podCIDR": "10.96.0.0/12" })),
        "spec.network.podCIDR is \"10.96.0.0/12\" and spec.network.serviceCIDR is \"10.96.0.0/16\": must not overlap",
    );
    rule(
        network(json!({ "serviceCIDR": "10.244.128.0/20" })),
        "spec.network.podCIDR is \"10.244.0.0/16\" and spec.network.serviceCIDR is \"10.244.128.0/20\": must not overlap",
    );
    rule(
        network(json!({ "podCIDR": "10.244.0.0/22" })),
        "spec.network.podCIDR is \"10.244.0.0/22\", with room for 4 nodes, and 5 are asked for: must be large enough for a /24 per node",
    );
    rule(
        spec(json!({ "network": { "podCIDR": "10.244.0.0/24" }, "controlPlane": { "replicas": 1 }, "pools": [{ "name": "grows" }] })),
        "spec.network.podCIDR is \"10.244.0.0/24\", with room for 1 nodes, and 2 are asked for: must be large enough for a /24 per node",
    );
    rule(spec(json!({ "provider": { "local": null } })), "spec.provider names none: must name exactly one, local");

    let pool = "must be 1 to 20 lower-case letters, digits and \"-\", beginning and ending with a letter or digit";
    for name in ["", "Workers", "a.b", "-a", "a-", "pppppppppppppppppppppp", "a\nb"] {
        rule(spec(json!({ "pools": [{ "name": name }] })), &format!("spec.pools[].name is {name:?} ({} characters): {pool}", name.len()));
    }
    rule(spec(json!({ "pools": [{ "name": "cp" }] })), "spec.pools[].name is \"cp\": must be another name than the control plane's");
    rule(
        spec(json!({ "pools": [{ "name": "a" }, { "name": "b" }, { "name": "a" }] })),
        "spec.pools[].name is there more than once: must be unique",
    );

    let word = "at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit";
    let long = "x".repeat(64);
    let prefix = format!("{}/x", "p".repeat(254));
    for key in ["", "-a", "a b", "a/b/c", "/a", "Upper.example/a", long.as_str(), prefix.as_str()] {
        let message = format!("spec.pools[].labels has the key \"{key}\": must be {word}, after an optional DNS name and \"/\"");
        rule(spec(json!({ "pools": [{ "name": "a", "labels": { "ok": "ok", key: "v" } }] })), &message);
        let message = format!("spec.pools[].taints[].key is \"{key}\": must be {word}, after an optional DNS name and \"/\"");
        rule(spec(json!({ "pools": [{ "name": "a", "taints": [{ "key": key, "effect": "NoSchedule" }] }] })), &message);
    }
    for value in ["-a", "a b", "a/b", long.as_str()] {
        let message = format!("spec.pools[].labels has \"k\" with the value \"{value}\": must be empty or {word}");
        rule(spec(json!({ "pools": [{ "name": "a", "labels": { "ok": "ok", "k": value } }] })), &message);
        let message = format!("spec.pools[].taints[].value is \"{value}\": must be empty or {word}");
        rule(spec(json!({ "pools": [{ "name": "a", "taints": [{ "key": "k", "value": value, "effect": "NoSchedule" }] }] })), &message);
    }
    for etcd in ["3.6.14", "v3.6", "v2.3.8", "latest", "v3.06.1"] {
        let message = format!("spec.componentVersions.etcd is \"{etcd}\": must be a release such as v3.6.14");
        rule(spec(json!({ "componentVersions": { "etcd": etcd } })), &message);
    }
    let message = "spec.componentVersions.containerd is \"v1.7.0\": must be a release such as v2.3.4";
    rule(spec(json!({ "componentVersions": { "containerd": "v1.7.0" } })), message);

    for version in ["v1.34.9", "1.36.4", "latest"] {
        let message = format!("spec.pools[].kubernetesVersion is {version:?}: must be v1.35.8, v1.36.4 or v1.37.2");
        rule(pool_version(version), &message);
    }
    let message = "spec.pools[].kubernetesVersion is \"v1.37.2\" and spec.kubernetesVersion is \"v1.36.4\": must not be newer than the control plane, leave it out or write \"v1.36.4\"";
    rule(pool_version("v1.37.2"), message);
    for start in ["24:00", "7:30", "07:60", "0730", "", "07:30\n"] {
        let message = format!("spec.maintenance.windows[].start is {start:?}: must be hours and minutes such as 02:30");
        rule(spec(json!({ "maintenance": { "windows": [{ "start": start, "minutes": 60 }] } })), &message);
    }
    for minutes in [-5, 0, 1441] {
        let message = format!("spec.maintenance.windows[].minutes is {minutes}: must be between 1 and 1440");
        rule(spec(json!({ "maintenance": { "windows": [{ "start": "02:30", "minutes": minutes }] } })), &message);
    }
    let upgrade = |upgrade: Value| spec(json!({ "pools": [{ "name": "a", "upgrade": upgrade }] }));
    let both = "spec.pools[].upgrade.maxSurge and maxUnavailable are both 0: at least one must be 1 or more, or no machine can be changed";
    for zero in [json!(0), json!("0%")] {
        rule(upgrade(json!({ "maxSurge": 0, "maxUnavailable": zero })), both);
        rule(upgrade(json!({ "maxSurge": zero, "maxUnavailable": "0%" })), both);
    }

    let message = "spec.network.podCIDR is \"10.01.0.0/16\": must be an IPv4 range such as 10.244.0.0/16";
    add(network(json!({ "podCIDR": "10.01.0.0/16" })), By::ServerOnly, message);

    let mut schema = |change, message: &str| add(change, By::Schema, message);
    schema(spec(json!({ "provider": null })), "spec.provider: Required value");
    schema(spec(json!({ "controlPlane": null })), "spec.controlPlane: Required value");
    schema(
        spec(json!({ "pools": [{ "name": "a", "replicas": -1 }] })),
        "spec.pools[0].replicas in body should be greater than or equal to 0",
    );
    schema(
        spec(json!({ "pools": [{ "name": "a", "replicas": 1001 }] })),
        "spec.pools[0].replicas in body should be less than or equal to 1000",
    );
    schema(
        spec(json!({ "pools": [{ "name": "a", "taints": [{ "key": "k", "effect": "Never" }] }] })),
        "spec.pools[0].taints[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
    );
    schema(
        network(json!({ "kubeProxyMode": "ebpf" })),
        "spec.network.kubeProxyMode: Unsupported value: \"ebpf\": supported values: \"nftables\", \"iptables\", \"ipvs\"",
    );
    schema(
        spec(json!({ "deletionPolicy": "Keep" })),
        "spec.deletionPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Orphan\"",
    );

    let upgrade = |upgrade: Value| spec(json!({ "pools": [{ "name": "a", "upgrade": upgrade }] }));
    for field in ["maxSurge", "maxUnavailable"] {
        for bad in ["25", "101%", "025%", "a%", "", "-1%"] {
            let message = format!("spec.pools[0].upgrade.{field} in body should match '^(100|[1-9]?[0-9])%$'");
            schema(upgrade(json!({ field: bad })), &message);
        }
        schema(upgrade(json!({ field: -1 })), &format!("spec.pools[0].upgrade.{field} in body should be greater than or equal to 0"));
        schema(upgrade(json!({ field: 1001 })), &format!("spec.pools[0].upgrade.{field} in body should be less than or equal to 1000"));
    }
    schema(
        spec(json!({ "maintenance": { "windows": [{ "days": ["Someday"], "start": "02:30", "minutes": 1 }] } })),
        "spec.maintenance.windows[0].days[0]: Unsupported value: \"Someday\": supported values: \"Monday\"",
    );
    schema(
        spec(json!({ "maintenance": { "windows": [{ "days": ["Monday", "Monday"], "start": "02:30", "minutes": 1 }] } })),
        "spec.maintenance.windows[0].days[1]: Duplicate value: \"Monday\"",
    );
    schema(
        spec(
            json!({ "pools": [{ "name": "a", "healthCheck": { "nodeConditions": [{ "type": "Ready", "status": "False", "seconds": 5 }] } }] }),
        ),
        "spec.pools[0].healthCheck.nodeConditions[0].seconds in body should be greater than or equal to 30",
    );

    let mut strict = |change, message: &str| add(change, By::Strict, message);
    strict(spec(json!({ "controlplane": { "replicas": 3 } })), "unknown field \"spec.controlplane\"");
    strict(spec(json!({ "pools": [{ "name": "a", "replica": 3 }] })), "unknown field \"spec.pools[0].replica\"");
    strict(spec(json!({ "provider": { "local": null, "aws": {} } })), "unknown field \"spec.provider.aws\"");
    strict(spec(json!({ "provider": { "aws": {} } })), "unknown field \"spec.provider.aws\"");
    strict(spec(json!({ "provider": { "local": { "host": "x" } } })), "unknown field \"spec.provider.local.host\"");
}
