//! Volumes that are attached to emptied Nodes. The API tells it whatever the driver is: a VolumeAttachment is there from before its driver attaches until
//! after it has detached.

use super::node::PodCount;
use crate::api::{CallError, call_within};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a drain of each of these Nodes has to wait for, by the Nodes' names: volumes by their PersistentVolume's name (the attachment's, where it has none),
/// but for those that pods use which stay. VolumeAttachments cannot be selected by Node, so all are listed, once for all the Nodes.
pub async fn attached(
    client: &Client,
    emptied: &BTreeMap<&String, &PodCount>,
    patience: Duration,
) -> Result<BTreeMap<String, Vec<String>>, CallError> {
    if emptied.is_empty() {
        return Ok(BTreeMap::new());
    }
    let attachments: Api<VolumeAttachment> = Api::all(client.clone());
    let all = call_within(patience, attachments.list(&ListParams::default())).await?.items;
    let mut waited = BTreeMap::new();
    for (node, pods) in emptied {
        let mut volumes = on_node(&all, node);
        // Hardly any pod that stays has a claim, so they are asked one by one.
        for (namespace, claim) in &pods.claims {
            if volumes.is_empty() {
                break;
            }
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
            let found = call_within(patience, claims.get_opt(claim)).await?;
            if let Some(used) = found.and_then(|c| c.spec?.volume_name) {
                volumes.remove(&used);
            }
        }
        waited.insert((*node).clone(), volumes.into_iter().collect());
    }
    Ok(waited)
}

/// One that is not attached yet may be by now, wherever its driver works: what matters is that the object is there.
fn on_node(all: &[VolumeAttachment], node: &str) -> BTreeSet<String> {
    let named = |a: &VolumeAttachment| a.spec.source.persistent_volume_name.clone().unwrap_or_else(|| a.name_any());
    all.iter().filter(|a| a.spec.node_name == node).map(named).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn attachment(name: &str, node: &str, source: Value, status: Value) -> VolumeAttachment {
        let spec = json!({"attacher": "disks.example.com", "nodeName": node, "source": source});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn volumes_of_a_node_are_named_whatever_their_attachments_state() {
        let volume = |name: &str| json!({"persistentVolumeName": name});
        let all = [
            attachment("csi-1", "w-0", volume("data"), json!({"attached": true})),
            attachment("csi-2", "w-0", volume("attaching"), Value::Null),
            attachment("csi-3", "w-0", json!({}), json!({"attached": false})),
            attachment("csi-4", "w-1", volume("elsewhere"), json!({"attached": true})),
        ];
        assert_eq!(on_node(&all, "w-0").into_iter().collect::<Vec<_>>(), ["attaching", "csi-3", "data"]);
        assert!(on_node(&all, "w-2").is_empty());
    }
}
