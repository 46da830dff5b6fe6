//! The Cluster's record, `status.recorded`: written by compare-and-swap and by nobody else.

use super::records::{TRIES, clusters, manager};
use super::{EffectError, Scene};
use crate::api::call;
use crate::context::Context;
use kube::ResourceExt;
use kube::api::Patch;
use serde_json::{Value, json};
use slipway_crds::{Cluster, Recorded};
use slipway_model::MachineName;

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
        let changed = change(&mut recorded).map(|changed| keep_founders(scene, &mut recorded) || changed);
        match changed {
            Ok(true) => {}
            Ok(false) => {
                *book = Some(page);
                return Ok(());
            }
            Err(why) if fresh => return Err(EffectError::Precondition(why)),
            // What is remembered may be out of date: only what was read now can refuse.
            Err(_) => continue,
        }
        let patch = json!({"metadata": {"uid": page.uid, "resourceVersion": page.version}, "status": {"recorded": change_of(&page.recorded, &recorded)}});
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

/// Writes down where the founders are, while all of them still are: each is told of all for as long as it lives, and the first to go takes its
/// address along. Whether that changed the record.
fn keep_founders(scene: &Scene, recorded: &mut Recorded) -> bool {
    let known = scene.founders.keys().map(MachineName::as_str).eq(recorded.founders.iter().map(String::as_str));
    if !recorded.bootstrapped || !recorded.founder_addresses.is_empty() || !known {
        return false;
    }
    recorded.founder_addresses = scene.founders.iter().map(|(name, address)| (name.to_string(), address.to_string())).collect();
    !recorded.founder_addresses.is_empty()
}

/// A merge patch from one record to the next: what is gone is named, or it would stay.
fn change_of(old: &Recorded, new: &Recorded) -> Value {
    // Plain types: serialising them cannot fail, and nothing would be changed if it did.
    let json = |record| serde_json::to_value(record).unwrap_or_default();
    let mut patch = json(new);
    name_what_is_gone(&json(old), &mut patch);
    patch
}

fn name_what_is_gone(old: &Value, new: &mut Value) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    for (key, old) in old {
        name_what_is_gone(old, new.entry(key).or_insert(Value::Null));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_crds::{Stopped, Upgrade, Versions};

    #[test]
    fn an_upgrade_that_is_over_and_a_stop_that_is_lifted_are_named_in_the_patch() {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let stopped = Stopped { machine: "demo-cp-0".into(), part: "etcd".into(), why: "x".into(), since: at };
        let upgrade = |stopped| Recorded {
            upgrade: Some(Upgrade { from: Versions::default(), to: Versions::default(), snapshot: String::new(), since: at, stopped }),
            ..Recorded::default()
        };
        let none = Recorded::default();
        assert_eq!(change_of(&upgrade(None), &none).get("upgrade"), Some(&Value::Null));
        assert_eq!(change_of(&upgrade(Some(stopped)), &upgrade(None)).pointer("/upgrade/stopped"), Some(&Value::Null));
        assert_eq!(change_of(&none, &upgrade(None)).pointer("/upgrade/stopped"), None);
    }
}
