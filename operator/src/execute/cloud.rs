//! Effects on the cloud. What would do harm on a stale picture is checked at the management API first.

use super::checks::{self, live_cluster};
use super::{EffectError, Scene, secrets};
use crate::context::Context;
use slipway_cloud_api::{InstanceRequest, LoadBalancerRequest};
use slipway_model::MachineName;

pub async fn ensure_network(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    live_cluster(context, scene).await?;
    context.cloud.ensure_network(&scene.key).await?;
    Ok(())
}

pub async fn ensure_load_balancer(context: &Context, scene: &Scene, port: u16) -> Result<(), EffectError> {
    live_cluster(context, scene).await?;
    context.cloud.ensure_load_balancer(&LoadBalancerRequest { cluster: scene.key.clone(), port }).await?;
    Ok(())
}

pub async fn set_targets(context: &Context, scene: &Scene, instances: &[String]) -> Result<(), EffectError> {
    Ok(context.cloud.set_targets(&scene.key, instances).await?)
}

/// The same user data at every call: they were frozen before the first.
pub async fn create_instance(context: &Context, scene: &Scene, machine: &MachineName, uid: &str) -> Result<(), EffectError> {
    let (record, user_data) = tokio::try_join!(checks::machine(context, scene, machine), secrets::user_data(context, scene, machine))?;
    let Some(record) = record.filter(|r| r.uid == uid && r.deleting.is_none()) else {
        return Err(EffectError::Precondition(format!("{machine} is not the machine {uid} any more, or is being deleted")));
    };
    if record.instance.is_some() {
        return Err(EffectError::Precondition(format!("{machine} has an instance already")));
    }
    let request = InstanceRequest { cluster: scene.key.clone(), name: machine.clone(), machine_uid: uid.to_owned(), zone: None, user_data };
    context.cloud.create_instance(&request).await?;
    Ok(())
}

pub async fn start_instance(context: &Context, scene: &Scene, instance: &str) -> Result<(), EffectError> {
    Ok(context.cloud.start_instance(&scene.key, instance).await?)
}

pub async fn delete_instance(context: &Context, scene: &Scene, machine: &MachineName, instance: &str) -> Result<(), EffectError> {
    checks::instance_may_go(context, scene, machine).await?;
    Ok(context.cloud.delete_instance(&scene.key, instance).await?)
}

pub async fn delete_stray_instance(
    context: &Context,
    scene: &Scene,
    machine: &MachineName,
    machine_uid: &str,
    instance: &str,
) -> Result<(), EffectError> {
    checks::stray_may_go(context, scene, machine, machine_uid, instance).await?;
    Ok(context.cloud.delete_instance(&scene.key, instance).await?)
}

pub async fn delete_load_balancer(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    Ok(context.cloud.delete_load_balancer(&scene.key).await?)
}

pub async fn delete_network(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    Ok(context.cloud.delete_network(&scene.key).await?)
}
