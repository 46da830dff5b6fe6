//! The definitions as they are applied and as they are checked in.

use crate::{Cluster, Machine, NodePool};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every definition, in the order in which they are applied.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![Cluster::crd(), NodePool::crd(), Machine::crd()]
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
