//! Effects on Secrets of the management cluster. Contents go from here to the API and to agents, and nowhere else.
//!
//! | Secret | holds | lives |
//! |---|---|---|
//! | `<cluster>-pki` | authorities and the service-account key | as long as the cluster, under our finalizer |
//! | `<cluster>-kubeconfig` | key `value`: the owner's kubeconfig | as long as the cluster |
//! | `<machine>-bootstrap` | one-time token, frozen user data | until the claim |
//! | `<machine>-pki` | the machine's certificates, and its cloud-controller-manager's | as long as the machine |
//!
//! None carries an ownerReference, or an orphaned cluster would lose them. What a Secret was issued for stands in an annotation, so that a pass sees from
//! metadata alone whether it still fits.

use super::renewal::{LAST_TENTH, RENEW_AT, REPLACED_IN, REPLACED_LAST_TENTH, is_due, last_tenth, replaced_last_tenth};
use super::{EffectError, Scene};
use crate::api::call;
use crate::artifacts::AGENT;
use crate::clock;
use crate::context::{CloudAccess, Context, FIELD_MANAGER, FINALIZER, LABEL_CLUSTER, LABEL_MACHINE};
use crate::render;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use secrecy::{ExposeSecret, SecretString};
use slipway_components::user_data::UserData;
use slipway_model::{MachineName, PoolName};
use slipway_pki::{AdminLeaves, ClusterPki, MachineLeaves};
use slipway_plan::Endpoint;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Annotation: what a Secret was issued for.
pub const ISSUED_FOR: &str = "slipway.dev/issued-for";

/// Data of a Secret, as `slipway-pki` takes and gives it.
pub type Data = BTreeMap<String, Vec<u8>>;

/// `<cluster>-pki`.
#[must_use]
pub fn pki_name(cluster: &str) -> String {
    format!("{cluster}-pki")
}

/// `<cluster>-kubeconfig`.
#[must_use]
pub fn kubeconfig_name(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// `<machine>-bootstrap`.
#[must_use]
pub fn bootstrap_name(machine: &MachineName) -> String {
    format!("{machine}-bootstrap")
}

/// `<machine>-pki`.
#[must_use]
pub fn machine_pki_name(machine: &MachineName) -> String {
    format!("{machine}-pki")
}

/// What a machine's certificates are issued for, as its Secret says it.
#[must_use]
pub fn certificates_for(uid: &str, pool: &PoolName, address: Ipv4Addr, endpoint: &Endpoint, keys: &str) -> String {
    // A worker's certificates do not name the endpoint.
    let endpoint = if pool.is_control_plane() { endpoint.host.as_str() } else { "" };
    format!("{uid} {address} {endpoint} {keys}")
}

/// What the kubeconfig is issued for.
#[must_use]
pub fn kubeconfig_for(endpoint: &Endpoint, keys: &str) -> String {
    format!("{endpoint} {keys}")
}

/// The API of the cluster's Secrets.
pub fn api(context: &Context, namespace: &str) -> Api<Secret> {
    Api::namespaced(context.client.clone(), namespace)
}

/// A Secret's data.
pub async fn read(context: &Context, scene: &Scene, name: &str) -> Result<Option<Data>, EffectError> {
    let secret =
        call(api(context, &scene.cluster.namespace).get_opt(name)).await.map_err(EffectError::api(format!("read Secret {name}")))?;
    Ok(secret.map(data_of))
}

/// A Secret's data, as `slipway-pki` takes it.
#[must_use]
pub fn data_of(secret: Secret) -> Data {
    secret.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes)).collect()
}

/// Creates a Secret; one of that name that was issued for the same stays, one that was issued for something else is replaced.
async fn issue(
    context: &Context,
    scene: &Scene,
    name: &str,
    machine: Option<&MachineName>,
    notes: &[(&str, String)],
    data: Data,
) -> Result<(), EffectError> {
    let secrets = api(context, &scene.cluster.namespace);
    let what = || format!("create Secret {name}");
    let mut labels = BTreeMap::from([(LABEL_CLUSTER.to_owned(), scene.cluster.name.clone())]);
    labels.extend(machine.map(|m| (LABEL_MACHINE.to_owned(), m.to_string())));
    let annotations: BTreeMap<_, _> = notes.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations.clone()),
            finalizers: (name == pki_name(&scene.cluster.name)).then(|| vec![FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        data: Some(data.into_iter().map(|(key, bytes)| (key, ByteString(bytes))).collect()),
        type_: Some("slipway.dev/cluster-secret".to_owned()),
        ..Secret::default()
    };
    let manager = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match call(secrets.create(&manager, &secret)).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(EffectError::api(what())(error)),
    }
    let found = call(secrets.get_metadata_opt(name)).await.map_err(EffectError::api(what()))?;
    let Some(found) = found else { return Err(EffectError::Precondition(format!("Secret {name} was just deleted"))) };
    let fits = match annotations.get(ISSUED_FOR) {
        Some(wanted) => found.annotations().get(ISSUED_FOR) == Some(wanted) && !is_due(found.annotations(), clock::now()),
        // Authorities: whatever is there is the cluster's identity.
        None => true,
    };
    if fits {
        return Ok(());
    }
    let has = machine.and_then(|m| scene.accepted.get(m));
    if let Some(tenth) = replaced_last_tenth(found.annotations(), has, clock::now()) {
        let notes = secret.metadata.annotations.get_or_insert_default();
        notes.insert(REPLACED_LAST_TENTH.to_owned(), tenth);
        notes.extend(has.map(|digest| (REPLACED_IN.to_owned(), digest.0.clone())));
    }
    secret.metadata.resource_version.clone_from(&found.metadata.resource_version);
    call(secrets.replace(name, &manager, &secret)).await.map_err(EffectError::api(format!("replace Secret {name}")))?;
    Ok(())
}

pub async fn create_pki(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    let pki = ClusterPki::generate(&scene.cluster.name, clock::now()).map_err(EffectError::own)?;
    issue(context, scene, &pki_name(&scene.cluster.name), None, &[], pki.to_secret()).await
}

pub async fn issue_bootstrap(context: &Context, scene: &Scene, machine: &MachineName, uid: &str) -> Result<(), EffectError> {
    let agent = context.artifacts.own(AGENT).map_err(EffectError::own)?;
    let token = token()?;
    let script =
        UserData { machine_uid: uid, name: machine, cluster_uid: &scene.key.uid, token: token.expose_secret(), agent: &agent }.render();
    let data =
        BTreeMap::from([("token".to_owned(), token.expose_secret().as_bytes().to_vec()), ("user-data".to_owned(), script.into_bytes())]);
    issue(context, scene, &bootstrap_name(machine), Some(machine), &[(ISSUED_FOR, uid.to_owned())], data).await
}

/// 256 random bits, hexadecimal.
fn token() -> Result<SecretString, EffectError> {
    let mut bytes = [0u8; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| EffectError::Own("the system gives no random numbers".to_owned()))?;
    Ok(SecretString::from(hex::encode(bytes)))
}

/// The frozen first-boot script.
pub async fn user_data(context: &Context, scene: &Scene, machine: &MachineName) -> Result<String, EffectError> {
    text(context, scene, &bootstrap_name(machine), "user-data").await.map(|s| s.expose_secret().to_owned())
}

/// The one-time token.
pub async fn read_token(context: &Context, scene: &Scene, machine: &MachineName) -> Result<SecretString, EffectError> {
    text(context, scene, &bootstrap_name(machine), "token").await
}

async fn text(context: &Context, scene: &Scene, name: &str, key: &str) -> Result<SecretString, EffectError> {
    let data = read(context, scene, name).await?;
    let mut data = data.ok_or_else(|| EffectError::Precondition(format!("there is no Secret {name}")))?;
    let bytes = data
        .remove(key)
        .ok_or_else(|| EffectError::Own(format!("Secret {name} has no key {key:?}: delete the Machine, it is replaced")))?;
    String::from_utf8(bytes).map(SecretString::from).map_err(|_| EffectError::Own(format!("key {key:?} of Secret {name} is no text")))
}

pub async fn issue_certificates(context: &Context, scene: &Scene, machine: &MachineName, uid: &str) -> Result<(), EffectError> {
    let (keys, endpoint, address) = (scene.keys()?, scene.endpoint()?, scene.address(machine, uid)?);
    let pool = &scene.machine(machine, uid)?.pool;
    let facts = render::machine_facts(&scene.spec, &endpoint.host, machine, pool, address);
    let leaves = MachineLeaves::issue(&keys.pki, &facts, clock::now()).map_err(EffectError::own)?;
    let mut data = leaves.to_secret();
    if pool.is_control_plane() {
        put_cloud(&mut data, &context.identities.issue(&scene.key.uid).await?);
    }
    let issued_for = certificates_for(uid, pool, address, endpoint, keys.fingerprint());
    let (renew_at, last_tenth) = (leaves.renew_at(), last_tenth(leaves.renew_at(), leaves.expires()));
    let notes = [(ISSUED_FOR, issued_for), (RENEW_AT, renew_at.to_string()), (LAST_TENTH, last_tenth)];
    issue(context, scene, &machine_pki_name(machine), Some(machine), &notes, data).await
}

fn put_cloud(data: &mut Data, access: &CloudAccess) {
    data.insert("cloud-endpoint".to_owned(), access.endpoint.clone().into_bytes());
    data.insert("cloud-ca.crt".to_owned(), access.ca.clone().into_bytes());
    data.insert("cloud.crt".to_owned(), access.certificate.clone().into_bytes());
    data.insert("cloud.key".to_owned(), access.key.expose_secret().as_bytes().to_vec());
}

/// The cloud-controller-manager's part of a machine's Secret.
#[must_use]
pub fn take_cloud(data: &Data) -> Option<CloudAccess> {
    let text = |key: &str| String::from_utf8(data.get(key)?.clone()).ok();
    Some(CloudAccess {
        endpoint: text("cloud-endpoint")?,
        ca: text("cloud-ca.crt")?,
        certificate: text("cloud.crt")?,
        key: SecretString::from(text("cloud.key")?),
    })
}

pub async fn write_kubeconfig(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    let (keys, endpoint) = (scene.keys()?, scene.endpoint()?);
    let leaves = AdminLeaves::issue(&keys.pki, clock::now()).map_err(EffectError::own)?;
    let value = leaves.kubeconfig(&scene.cluster.name, &format!("https://{endpoint}"), &keys.pki);
    let data = BTreeMap::from([("value".to_owned(), value.expose_secret().as_bytes().to_vec())]);
    let notes = [(ISSUED_FOR, kubeconfig_for(endpoint, keys.fingerprint())), (RENEW_AT, leaves.admin.renew_at().to_string())];
    issue(context, scene, &kubeconfig_name(&scene.cluster.name), None, &notes, data).await
}

pub async fn drop_bootstrap(context: &Context, scene: &Scene, machine: &MachineName) -> Result<(), EffectError> {
    delete(context, scene, &bootstrap_name(machine)).await
}

/// Both Secrets of a machine.
pub async fn drop_machine(context: &Context, scene: &Scene, machine: &MachineName) -> Result<(), EffectError> {
    let names = (bootstrap_name(machine), machine_pki_name(machine));
    tokio::try_join!(delete(context, scene, &names.0), delete(context, scene, &names.1)).map(|_| ())
}

async fn delete(context: &Context, scene: &Scene, name: &str) -> Result<(), EffectError> {
    match call(api(context, &scene.cluster.namespace).delete(name, &DeleteParams::default())).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(EffectError::api(format!("delete Secret {name}"))(error)),
    }
}

pub async fn delete_secrets(context: &Context, scene: &Scene) -> Result<(), EffectError> {
    let secrets = api(context, &scene.cluster.namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_CLUSTER}={}", scene.cluster.name));
    let found = call(secrets.list_metadata(&ours)).await.map_err(EffectError::api("list Secrets"))?;
    let delete_one = async |secret: &kube::core::PartialObjectMeta<Secret>| {
        let name = secret.name_any();
        if secret.finalizers().iter().any(|f| f == FINALIZER) {
            super::records::drop_finalizer(&secrets, secret).await?;
        }
        let exactly = DeleteParams::default().preconditions(Preconditions { uid: secret.uid(), resource_version: None });
        match call(secrets.delete(&name, &exactly)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(EffectError::api(format!("delete Secret {name}"))(error)),
        }
    };
    futures::future::try_join_all(found.items.iter().map(delete_one)).await.map(|_| ())
}
