//! From a Cluster object to the model's types: after this only what has been parsed exists. The CRD's own rules refuse most of it at admission; what gets
//! past them (a CRD of another release, a rule that was too dear) becomes a condition, and nothing is done.

use crate::artifacts::ArtifactIndex;
use crate::records::{self, RecordError};
use crate::render;
use slipway_crds::Cluster;
use slipway_model::ClusterSpec;

/// Why a Cluster is not acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The spec says something that cannot be.
    #[error(transparent)]
    Spec(#[from] RecordError),
    /// What it wants is not there to be installed.
    #[error("{0}")]
    Artifacts(String),
}

impl Invalid {
    /// For programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Spec(_) => "InvalidSpec",
            Self::Artifacts(_) => "ArtifactsMissing",
        }
    }

    /// Which field says what cannot be, or is not there.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Spec(error) => error.field,
            Self::Artifacts(_) => "spec.kubernetesVersion",
        }
    }
}

/// The only way to a [`ClusterSpec`].
pub fn validate(cluster: &Cluster, artifacts: &ArtifactIndex) -> Result<ClusterSpec, Invalid> {
    let spec = records::spec(cluster)?;
    // A cluster that is being deleted needs nothing installed.
    if cluster.metadata.deletion_timestamp.is_none() {
        render::available(&spec, artifacts).map_err(|e| Invalid::Artifacts(e.to_string()))?;
    }
    Ok(spec)
}
