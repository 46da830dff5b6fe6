//! What people apply: a file with one or several objects, Clusters among them.

use crate::connect::asked;
use crate::outcome::refused;
use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, discovery};
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Field manager of all that `slipway` applies for people.
pub const FIELD_MANAGER: &str = "slipway-cli";

/// An object of a file.
#[derive(Debug, Clone)]
pub struct Object {
    value: Value,
}

/// Reads a file, or standard input for `-`.
pub fn read(path: &Path) -> Result<Vec<Object>> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
        text
    } else {
        std::fs::read_to_string(path).map_err(|e| refused(format!("{}: {e}", path.display())))?
    };
    parse(&text).map_err(|e| refused(format!("{}: {e:#}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Object>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("not YAML")?;
    let documents: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
    anyhow::ensure!(!documents.is_empty(), "nothing in it: a Cluster is expected");
    documents
        .into_iter()
        .map(|value| {
            let object = Object { value };
            anyhow::ensure!(
                !object.text("/kind").is_empty() && !object.text("/apiVersion").is_empty(),
                "an object without apiVersion or kind"
            );
            anyhow::ensure!(!object.name().is_empty(), "a {} without metadata.name", object.text("/kind"));
            Ok(object)
        })
        .collect()
}

impl Object {
    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// `metadata.namespace`, where it is said.
    pub fn namespace(&self) -> Option<&str> {
        Some(self.text("/metadata/namespace")).filter(|n| !n.is_empty())
    }

    /// Whether it is a Cluster of ours.
    pub fn is_cluster(&self) -> bool {
        self.text("/kind") == "Cluster" && self.text("/apiVersion").starts_with("slipway.dev/")
    }

    /// A Cluster's Kubernetes version, where it is said.
    pub fn kubernetes_version(&self) -> Option<&str> {
        Some(self.text("/spec/kubernetesVersion")).filter(|v| self.is_cluster() && !v.is_empty())
    }

    /// The object itself.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Applies it. Returns whether that changed anything.
    pub async fn apply(&self, client: &Client, namespace: &str) -> Result<bool> {
        let what = format!("applying {} {}", self.text("/kind"), self.name());
        let within = Duration::from_secs(15);
        let (group, version) = match self.text("/apiVersion").split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", self.text("/apiVersion")),
        };
        let gvk = GroupVersionKind::gvk(group, version, self.text("/kind"));
        let (resource, capabilities) = asked(&what, within, discovery::pinned_kind(client, &gvk)).await?;
        let api: Api<DynamicObject> = match capabilities.scope {
            discovery::Scope::Namespaced => Api::namespaced_with(client.clone(), self.namespace().unwrap_or(namespace), &resource),
            discovery::Scope::Cluster => Api::all_with(client.clone(), &resource),
        };
        let before = asked(&what, within, api.get_opt(self.name())).await?;
        // Strict: a misspelt field is refused, not dropped.
        let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
        let after = asked(&what, within, api.patch(self.name(), &params, &Patch::Apply(&self.value))).await?;
        Ok(changed(before, after))
    }
}

/// Whether applying changed more than the book of who manages what.
pub fn changed(before: Option<DynamicObject>, after: DynamicObject) -> bool {
    let told = |mut object: DynamicObject| {
        object.metadata.managed_fields = None;
        object.metadata.resource_version = None;
        // The API's own bookkeeping moves by itself.
        if let Some(data) = object.data.as_object_mut() {
            data.remove("status");
        }
        (object.metadata, object.data)
    };
    before.is_none_or(|before| told(before) != told(after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_file_may_hold_several_objects() {
        let objects = parse("---\n# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n---\napiVersion: slipway.dev/v1alpha1\nkind: Cluster\nmetadata: {name: demo, namespace: team}\nspec: {kubernetesVersion: v1.36.4}\n").unwrap();
        assert_eq!(objects.iter().map(Object::name).collect::<Vec<_>>(), ["team", "demo"]);
        assert_eq!((objects[1].kubernetes_version(), objects[1].namespace()), (Some("v1.36.4"), Some("team")));
        assert_eq!(objects[0].kubernetes_version(), None);
    }

    #[test]
    fn what_is_no_object_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", "nothing in it"),
            ("a: 1\n", "without apiVersion"),
            ("apiVersion: v1\nkind: Pod\n", "without metadata.name"),
            ("{", "not YAML"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
