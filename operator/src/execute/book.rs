//! The Cluster's record, `status.recorded`: written by compare-and-swap and by nobody else.

use super::records::{TRIES, clusters, manager};
use super::{EffectError, Scene};
use crate::api::call;
use crate::context::Context;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::json;
use slipway_crds::{Cluster, Recorded};

/// The Cluster's record at one version.
pub struct Page {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: Option<String>,
    /// What is recorded.
    pub recorded: Recorded,
}

impl Page {
    /// Of an object that was just read or written.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        Self {
            uid: cluster.uid().unwrap_or_default(),
            version: cluster.resource_version(),
            recorded: cluster.status.as_ref().and_then(|s| s.recorded.clone()).unwrap_or_default(),
        }
    }
}

/// Compare-and-swap on `status.recorded`. `change` says what is wrong with the record as it is, or changes it; `Ok(false)`: it is as wanted.
///
/// The writers of one pass come one after the other and each begins with what its predecessor left: no conflicts among ourselves, and no reads.
pub async fn record(context: &Context, scene: &Scene, change: impl Fn(&mut Recorded) -> Result<bool, String>) -> Result<(), EffectError> {
    let (api, name) = (clusters(context, scene), &scene.cluster.name);
    let what = || format!("write the record of Cluster {name}");
    let mut book = scene.book.lock().await;
    for _ in 0..TRIES {
        let remembered = book.take();
        let fresh = remembered.is_none();
        let page = match remembered {
            Some(page) => page,
            None => Page::of(&call(api.get(name)).await.map_err(EffectError::api(what()))?),
        };
        if page.uid != scene.key.uid {
            return Err(EffectError::Precondition(format!("Cluster {name} is another one by now")));
        }
        let mut recorded = page.recorded.clone();
        match change(&mut recorded) {
            Ok(true) => {}
            Ok(false) => {
                *book = Some(page);
                return Ok(());
            }
            Err(why) if fresh => return Err(EffectError::Precondition(why)),
            // What is remembered may be out of date: only what was read now can refuse.
            Err(_) => continue,
        }
        let patch = json!({"metadata": {"uid": page.uid, "resourceVersion": page.version}, "status": {"recorded": recorded}});
        match call(api.patch_status(name, &manager(), &Patch::Merge(&patch))).await {
            Ok(written) => {
                *book = Some(Page::of(&written));
                return Ok(());
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(EffectError::api(what())(error)),
        }
    }
    Err(EffectError::Precondition(format!("Cluster {name} is being written by others all the time")))
}
