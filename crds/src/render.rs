//! The definitions as they are applied and as they are checked in.

use crate::{Cluster, EtcdSnapshot, Machine, NodePool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

/// Every definition, in the order in which they are applied. Apply these and not what the derived `crd()` gives: they are finished here.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![Cluster::crd(), NodePool::crd(), Machine::crd(), EtcdSnapshot::crd()];
    let versions = definitions.iter_mut().flat_map(|d| d.spec.versions.iter_mut());
    versions.filter_map(|v| v.schema.as_mut()?.open_api_v3_schema.as_mut()).for_each(finish);
    definitions
}

/// Joins the lines of doc comments, and takes back that what is optional may be null: a rule would see such a null as a value that is there.
fn finish(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(text) = &mut schema.description {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    schema.properties.iter_mut().flat_map(|p| p.values_mut()).for_each(finish);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        finish(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        finish(values);
    }
}

/// File names below `crds/yaml/` and their contents.
pub fn yaml() -> Result<Vec<(String, String)>, serde_saphyr::ser::Error> {
    all()
        .into_iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let text = serde_saphyr::to_string(&crd)?;
            Ok((name, format!("# Generated from crds/src by `cargo xtask gen`: change it there.\n{text}")))
        })
        .collect()
}
