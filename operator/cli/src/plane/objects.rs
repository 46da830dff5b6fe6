//! What the management machine is to be, and the objects that its API begins with.

use crate::file::{FIELD_MANAGER, changed};
use crate::outcome::timed_out;
use crate::plane::identity::PlaneIdentity;
use crate::plane::{MACHINE, own};
use anyhow::{Context, Result, anyhow};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use slipway_artifacts::{Artifact, Component, catalogue};
use slipway_cloud_api::Instance;
use slipway_components::machine::OPERATOR_USER;
use slipway_components::{ClusterSettings, Endpoint, EtcdSettings, EtcdState, Image, Images, ManagementMachine, OperatorSettings, Profile};
use slipway_local::LocalClient;
use slipway_local::wire::Certificate;
use slipway_model::{Content, File, MachinePlan, Network, ProxyMode};
use slipway_operator::artifacts::render_artifacts_index;
use slipway_pki::{MachineFacts, MachineRole};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Where the operator's files lie on the machine.
const OPERATOR_DIR: &str = "/etc/kubernetes/slipway-operator";
/// Its certificate towards the local cloud, kept.
const CLOUD: &str = "cloud.json";
/// Where the operator says how it is, and what it would do: on the machine itself, and through its agent.
pub const OPERATOR_HTTP: &str = "127.0.0.1:8080";
/// How long the API may take until it answers: etcd and kube-apiserver start in about four seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// The machine's whole plan. The same world gives the same plan, so nothing restarts that need not. `extra` is one more argument for the operator.
pub async fn plan(
    identity: &PlaneIdentity,
    cloud: &LocalClient,
    instance: &Instance,
    artifacts: &[Artifact],
    extra: Option<String>,
    now: Timestamp,
) -> Result<MachinePlan> {
    let set = catalogue::version_set(catalogue::DEFAULT_KUBERNETES).context("the default version")?;
    let network = Network::new("10.244.0.0/16".parse()?, "10.96.0.0/16".parse()?, ProxyMode::Nftables, 1)?;
    let endpoint = Endpoint { host: instance.address.to_string(), port: 6443 };
    let role = MachineRole::ControlPlane { endpoint: endpoint.host.clone(), service_ip: network.api_service_ip(), extra_names: Vec::new() };
    let facts = MachineFacts { node: MACHINE.to_owned(), address: instance.address, role };
    let credentials = identity.machine_leaves(&facts, now)?.control_plane_credentials(&identity.pki)?;
    let pause = Image {
        reference: slipway_artifacts::image_reference(Component::Pause, set.pause).unwrap_or_default(),
        artifact: "pause.tar".to_owned(),
    };
    let cluster = ClusterSettings {
        name: "management".to_owned(),
        network,
        endpoint,
        profile: Profile::local(false),
        images: Images { pause, others: Vec::new() },
    };
    let wanted = |a: &&Artifact| match a.component.as_str() {
        "kubernetes" => a.version == set.kubernetes,
        "etcd" => a.version == set.etcd,
        own::COMPONENT => true,
        _ => false,
    };
    let mut operator = operator(identity, cloud, artifacts, now).await?;
    operator.args.extend(extra);
    let machine = ManagementMachine {
        cluster,
        node: MACHINE.to_owned(),
        address: instance.address,
        etcd: EtcdSettings {
            members: BTreeMap::from([(MACHINE.to_owned(), instance.address)]),
            token: identity.machine_uid.clone(),
            state: EtcdState::New,
            data_directory: identity.machine_uid.clone(),
        },
        credentials,
        operator,
        artifacts: artifacts.iter().filter(wanted).map(|a| (a.name.clone(), own::to_reference(a))).collect(),
    };
    slipway_components::machine::management(&machine).context("the management machine's plan")
}

/// The operator's arguments and the files they name.
async fn operator(identity: &PlaneIdentity, cloud: &LocalClient, artifacts: &[Artifact], now: Timestamp) -> Result<OperatorSettings> {
    let endpoint = cloud.status().await?.endpoint;
    // Issued once: a fresh one would restart the operator at each run.
    let kept = match identity.kept(CLOUD)? {
        Some(kept) => kept,
        None => {
            let issued = cloud.issue_certificate("operator").await?;
            let issued = serde_json::to_vec(&issued).context("the operator's certificate towards the local cloud")?;
            identity.frozen(CLOUD, || Ok(issued))?
        }
    };
    let certificate: Certificate =
        serde_json::from_slice(&kept).map_err(|_| anyhow!("{CLOUD} in management/ is not what `slipway up` wrote"))?;
    let file = |name: &str, content: Content| File {
        path: format!("{OPERATOR_DIR}/{name}"),
        mode: 0o600,
        owner: OPERATOR_USER.to_owned(),
        content,
    };
    let files = vec![
        file("artifacts.json", render_artifacts_index(artifacts).into()),
        file("cloud-ca.crt", certificate.ca.into()),
        file("cloud.crt", certificate.cert.into()),
        file("cloud.key", certificate.key.into()),
    ];
    let args = vec![
        "run".to_owned(),
        format!("--artifacts={OPERATOR_DIR}/artifacts.json"),
        format!("--artifact-source={}", own::STORE_ON_MACHINES),
        format!("--cloud-local-address={endpoint}"),
        format!("--cloud-local-ca={OPERATOR_DIR}/cloud-ca.crt"),
        format!("--cloud-local-cert={OPERATOR_DIR}/cloud.crt"),
        format!("--cloud-local-key={OPERATOR_DIR}/cloud.key"),
        format!("--snapshots=file://{}", slipway_components::OPERATOR_SNAPSHOTS),
        format!("--metrics={OPERATOR_HTTP}"),
        // systemd runs one process of this unit at a time, so a restarted operator may take its own Lease over at once.
        format!("--identity={MACHINE}"),
    ];
    let credential = identity.operator_credential(now)?;
    let health_url = format!("http://{OPERATOR_HTTP}/readyz");
    Ok(OperatorSettings { credential, args, environment: BTreeMap::new(), files, health_url })
}

/// Waits until the API answers.
pub async fn wait_api(client: &Client, say: super::machine::Say<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let error = match tokio::time::timeout(Duration::from_secs(2), client.request_text(request)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "no answer within 2 s".to_owned(),
        };
        say("waiting for its API");
        if Instant::now() > deadline {
            return Err(timed_out(format!(
                "the management API does not answer after {} s: {error}; `slipway logs {MACHINE} kube-apiserver` and `… etcd` say why",
                PATIENCE.as_secs()
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// CRDs, rights and namespace. Returns whether anything changed.
pub async fn apply(client: &Client) -> Result<bool> {
    let mut changed = false;
    let crds = slipway_crds::all().into_iter().map(|crd| serde_json::to_value(crd).context("a CRD")).collect::<Result<Vec<_>>>()?;
    for object in crds.into_iter().chain(slipway_operator::manifests()) {
        changed |= apply_one(client, object).await?;
    }
    established(client).await?;
    Ok(changed)
}

async fn apply_one(client: &Client, object: Value) -> Result<bool> {
    let object: DynamicObject = serde_json::from_value(object).context("an object of the operator's")?;
    let name = object.name_any();
    let types = object.types.clone().unwrap_or_default();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", types.api_version.as_str()));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let what = format!("applying {} {name}", types.kind);
    let within = Duration::from_secs(10);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = api.get_opt(&name);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let result = async {
            let before = crate::connect::asked(&what, within, before).await?;
            let after = crate::connect::asked(&what, within, api.patch(&name, &params, &Patch::Apply(&object))).await?;
            Ok::<bool, anyhow::Error>(changed(before, after))
        };
        match result.await {
            Ok(changed) => return Ok(changed),
            // An apiserver that has just become ready still fills its RBAC and namespaces.
            Err(e) if !invalid(&e) && Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(e) => return Err(e),
        }
    }
}

/// Whether the same object will never be taken.
fn invalid(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| matches!(cause.downcast_ref::<kube::Error>(), Some(kube::Error::Api(status)) if matches!(status.code, 400 | 422)))
}

/// Waits until the CRDs are served.
async fn established(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let deadline = Instant::now() + PATIENCE;
    for name in ["clusters.slipway.dev", "nodepools.slipway.dev", "machines.slipway.dev"] {
        loop {
            let crd = crds.get(name).await.with_context(|| format!("the CRD {name}"))?;
            let conditions = crd.status.and_then(|s| s.conditions).unwrap_or_default();
            if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
                break;
            }
            if Instant::now() > deadline {
                return Err(timed_out(format!("the CRD {name} is not established: {conditions:?}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
