//! Another build of the agent in place of this one: see docs/adr/0010.

use crate::board::Board;
use crate::check;
use slipway_agent_api::refusal::Refusal;
use slipway_model::ArtifactRef;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tonic::Status;

/// The agent's own build, and what becomes of another.
pub struct Updates {
    own: watch::Receiver<Option<String>>,
}

impl Updates {
    /// Finds out, beside everything else, which build this is, and puts it up.
    #[must_use]
    pub fn start(board: &Arc<Board>) -> Self {
        let (found, own) = watch::channel(None);
        let board = board.clone();
        tokio::spawn(async move {
            // The link stays right when the file is replaced or removed: it leads to what runs.
            match spawn_blocking(|| crate::artifacts::hash(Path::new("/proc/self/exe"))).await {
                Ok(Ok(sha256)) => {
                    board.update(|state| state.agent.get_or_insert_default().sha256.clone_from(&sha256));
                    found.send_replace(Some(sha256));
                }
                Ok(Err(e)) => tracing::warn!(%e, "/proc/self/exe cannot be read: this build has no name, and none can replace it"),
                Err(e) => tracing::warn!(%e, "this build has no name, and none can replace it"),
            }
        });
        Self { own }
    }

    /// sha256 of the program that runs.
    async fn own(&self) -> Result<String, Status> {
        let mut own = self.own.clone();
        let own = own.wait_for(Option::is_some).await.ok().and_then(|own| own.clone());
        own.ok_or_else(|| Status::internal("/proc/self/exe could not be read: the agent does not know which build it is; restart it"))
    }

    /// Begins the trial of another build.
    pub async fn begin(&self, expected: &str, build: &ArtifactRef) -> Result<(), Status> {
        let own = self.own().await?;
        if build.sha256 == own {
            return Ok(());
        }
        if expected != own {
            return Err(Refusal::OtherBuild { current: own, expected: expected.to_owned() }.into());
        }
        Err(Status::unimplemented("this build of the agent knows no trial"))
    }
}

/// A build from a message.
pub fn parse(bytes: &[u8]) -> Result<ArtifactRef, Refusal> {
    let build: ArtifactRef = serde_json::from_slice(bytes).map_err(|e| Refusal::Invalid(format!("the build of the agent: {e}")))?;
    check::build(&build).map_err(Refusal::Invalid)?;
    Ok(build)
}
