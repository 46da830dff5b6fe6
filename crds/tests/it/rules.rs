//! The table against kube's CEL engine: milliseconds, no processes.

use crate::cases::{self, By};
use kube::core::cel::Validator;
use serde_json::{Value, json};
use slipway_crds::{Cluster, ClusterSpec, all, rules};

fn schema(kind: &str) -> Value {
    let crd = all().into_iter().find(|c| c.spec.names.plural == kind).unwrap();
    serde_json::to_value(crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap()).unwrap()
}

/// kube's parser of CEL recurses deeply where rules nest: unoptimised, it needs more than a test's thread has.
fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| std::thread::Builder::new().stack_size(64 << 20).spawn_scoped(scope, work).unwrap().join().unwrap())
}

fn complaints(kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    with_room(|| match Validator::new().validate(&schema(kind), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.iter().map(|e| e.message.clone()).collect(),
    })
}

#[test]
fn what_is_right_is_accepted() {
    let good = cases::good("clusters");
    for change in cases::accepted() {
        assert_eq!(complaints("clusters", &cases::merged(&good, &change), None), [""; 0], "{change}");
    }
    for (before, after) in cases::accepted_changes() {
        let (before, after) = cases::change(&good, &before, &after);
        assert_eq!(complaints("clusters", &after, Some(&before)), [""; 0], "{after}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_one_message_that_says_what_is_right() {
    for case in cases::refused().into_iter().filter(|c| c.by == By::Rule) {
        let good = cases::good(case.kind);
        let (before, object) = case.objects(&good);
        assert_eq!(complaints(case.kind, &object, before.as_ref()), [case.message], "{object}");
    }
}

#[test]
fn a_second_provider_would_be_one_too_many() {
    let schema = json!({
        "type": "object",
        "properties": { "local": { "type": "object" }, "aws": { "type": "object" } },
        "x-kubernetes-validations": rules::provider(&["local", "aws"]),
    });
    let said = |object: Value, old: Option<Value>| match Validator::new().validate(&schema, &object, old.as_ref()) {
        Ok(()) => String::new(),
        Err(errors) => errors[0].message.clone(),
    };
    assert_eq!(said(json!({ "local": {} }), None), "");
    assert_eq!(said(json!({ "aws": {} }), Some(json!({ "aws": {} }))), "");
    assert_eq!(said(json!({}), None), "spec.provider names none: must name exactly one, local or aws");
    assert_eq!(said(json!({ "local": {}, "aws": {} }), None), "spec.provider names several: must name exactly one, local or aws");
    assert_eq!(
        said(json!({ "aws": {} }), Some(json!({ "local": {} }))),
        "spec.provider is another than it was: cannot be changed, make a new cluster for another provider"
    );
}

#[test]
fn a_typed_cluster_is_checked_by_the_same_rules() {
    let mut cluster: Cluster = serde_json::from_value(cases::good("clusters")).unwrap();
    with_room(|| {
        cluster.validate_cel().unwrap();
        let old = cluster.clone();
        cluster.spec.kubernetes_version = "v1.35.8".into();
        assert!(cluster.validate_cel_update(&old).unwrap_err().to_string().contains("must not be lowered"));
        cluster.spec.control_plane.replicas = 2;
        assert!(cluster.validate_cel().unwrap_err().to_string().contains("spec.controlPlane.replicas is 2"));
    });
}

#[test]
fn defaults_of_the_types_and_of_the_schema_are_the_same() {
    let spec: ClusterSpec = serde_json::from_value(json!({
        "kubernetesVersion": "v1.36.4", "provider": { "local": {} }, "controlPlane": { "replicas": 1 }, "pools": [{ "name": "a" }]
    }))
    .unwrap();
    let written = serde_json::to_value(&spec).unwrap();
    let schema = schema("clusters");
    let default = |pointer: &str| schema.pointer(&format!("/properties/spec/properties/{pointer}/default")).cloned();
    assert_eq!(default("network"), written.get("network").cloned());
    assert_eq!(default("network/properties/podCIDR"), written.pointer("/network/podCIDR").cloned());
    assert_eq!(default("deletionPolicy"), written.get("deletionPolicy").cloned());
    assert_eq!(default("pools/items/properties/drainTimeoutSeconds"), written.pointer("/pools/0/drainTimeoutSeconds").cloned());
    assert_eq!(spec.network.kube_proxy_mode, slipway_crds::ProxyMode::Nftables);
    assert!(written.get("componentVersions").is_none() && written.pointer("/pools/0/replicas").is_none());
}

/// The words of the enums are written by hand into the schema.
#[test]
fn every_word_of_the_schema_is_one_of_the_types() {
    use slipway_crds::{DeletionPolicy, ProxyMode, TaintEffect};
    fn words<T: serde::de::DeserializeOwned>(schema: &Value, pointer: &str) -> usize {
        let words = schema.pointer(&format!("/properties/spec/properties/{pointer}/enum")).and_then(Value::as_array).unwrap();
        let parsed: Vec<T> = words.iter().map(|w| serde_json::from_value(w.clone()).unwrap()).collect();
        parsed.len()
    }
    let schema = schema("clusters");
    assert_eq!(words::<DeletionPolicy>(&schema, "deletionPolicy"), 2);
    assert_eq!(words::<ProxyMode>(&schema, "network/properties/kubeProxyMode"), 3);
    assert_eq!(words::<TaintEffect>(&schema, "pools/items/properties/taints/items/properties/effect"), 3);
}

/// What may be asked for is what can be had.
#[test]
fn supported_versions_are_those_of_the_catalogue() {
    let catalogue: Vec<&str> = slipway_artifacts::catalogue::supported().iter().map(|set| set.kubernetes).collect();
    assert_eq!(slipway_crds::SUPPORTED, catalogue);
    let etcd = |v: &str| json!({ "spec": { "componentVersions": { "etcd": v } } });
    for set in slipway_artifacts::catalogue::supported() {
        let object = cases::merged(&cases::good("clusters"), &etcd(set.etcd));
        let containerd = json!({ "spec": { "kubernetesVersion": set.kubernetes, "componentVersions": { "containerd": set.containerd } } });
        assert_eq!(complaints("clusters", &cases::merged(&object, &containerd), None), [""; 0]);
    }
}

#[test]
fn examples_are_valid() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let object: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(complaints("clusters", &object, None), [""; 0], "{}", path.display());
        let cluster: Cluster = serde_json::from_value(object).unwrap();
        assert_eq!(
            path.file_stem().unwrap().to_str().unwrap().starts_with("local-"),
            matches!(cluster.spec.provider, slipway_crds::Provider::Local(_))
        );
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn what_is_checked_in_is_what_the_types_say() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let definitions = slipway_crds::yaml().unwrap().into_iter().map(|(name, text)| (format!("crds/yaml/{name}"), text));
    let pages = slipway_crds::reference::pages().into_iter().map(|(name, text)| (format!("docs/reference/{name}"), text));
    for (name, text) in definitions.chain(pages) {
        let found = std::fs::read_to_string(format!("{root}/{name}")).unwrap_or_default();
        assert!(found == text, "{name} is not what the types say: run `cargo xtask gen`");
    }
}
