//! What the management API would say to a candidate: its own rules, asked by a dry run, so that they are written down once.

use crate::api::{CallError, call};
use crate::context::ClusterRef;
use http::Request;
use kube::Client;
use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails};
use serde_json::{Value, json};
use slipway_crds::Cluster;

/// Others write statuses meanwhile, which changes the version that a replacement names.
const TRIES: usize = 4;

/// A candidate that the API takes.
pub struct Admitted {
    /// As it would be stored.
    pub wanted: Cluster,
    /// `metadata.generation` of the one that is there.
    pub generation: Option<i64>,
}

/// Tries a candidate in place of what is there.
pub async fn admit(client: &Client, cluster: &ClusterRef, candidate: &Value) -> Result<Admitted, Box<Status>> {
    let all = format!("/apis/slipway.dev/v1alpha1/namespaces/{}/clusters", cluster.namespace);
    let one = format!("{all}/{}", cluster.name);
    let trying = "dryRun=All&fieldValidation=Strict&fieldManager=slipway-operator";
    let spec = candidate.get("spec").cloned().unwrap_or_default();
    let mut last = None;
    for _ in 0..TRIES {
        let there = match send(client, Request::get(&one), None).await {
            Ok(there) => Some(there),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(unavailable(&error)),
        };
        let generation = there.as_ref().and_then(|t| t.pointer("/metadata/generation")?.as_i64());
        let tried = match there {
            // All but the spec is what it was: metadata and status are not the candidate's to change.
            Some(mut object) => {
                if let Some(object) = object.as_object_mut() {
                    object.insert("spec".to_owned(), spec.clone());
                }
                send(client, Request::put(format!("{one}?{trying}")), Some(&object)).await
            }
            None => {
                let metadata = json!({"name": cluster.name, "namespace": cluster.namespace});
                let object = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "Cluster", "metadata": metadata, "spec": spec});
                send(client, Request::post(format!("{all}?{trying}")), Some(&object)).await
            }
        };
        match tried {
            Ok(object) => {
                let wanted = serde_json::from_value(object).map_err(|e| invalid(&cluster.name, "spec", &e.to_string()))?;
                return Ok(Admitted { wanted, generation });
            }
            Err(error) if error.is_conflict() => last = Some(error),
            Err(error) => return Err(said_no(cluster, error)),
        }
    }
    Err(last.map_or_else(Box::default, |error| unavailable(&error)))
}

async fn send(client: &Client, request: http::request::Builder, body: Option<&Value>) -> Result<Value, CallError> {
    let own = |e: http::Error| CallError::Kube(Box::new(kube::Error::HttpError(e)));
    // A Value: writing it cannot fail.
    let body = body.map(|b| serde_json::to_vec(b).unwrap_or_default()).unwrap_or_default();
    let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body).map_err(own)?;
    call(client.request(request)).await
}

/// The API's own words where it refused the object, with the fields that it names.
fn said_no(cluster: &ClusterRef, error: CallError) -> Box<Status> {
    let CallError::Kube(inner) = &error else { return unavailable(&error) };
    let kube::Error::Api(status) = inner.as_ref() else { return unavailable(&error) };
    match status.code {
        422 => status.clone(),
        // Unknown fields and wrong types: named in the message only.
        400 => {
            let field = status.message.split('"').find(|part| part.starts_with("spec")).unwrap_or("spec");
            invalid(&cluster.name, field, &status.message)
        }
        _ => unavailable(&error),
    }
}

/// What is wrong with which field of a candidate.
pub fn invalid(name: &str, field: &str, problem: &str) -> Box<Status> {
    let message = format!("Cluster {name} is invalid: {field}: {problem}");
    let cause = StatusCause { reason: "FieldValueInvalid".to_owned(), message: problem.to_owned(), field: field.to_owned() };
    let details = StatusDetails {
        name: name.to_owned(),
        group: "slipway.dev".to_owned(),
        kind: "Cluster".to_owned(),
        uid: String::new(),
        causes: vec![cause],
        retry_after_seconds: 0,
    };
    Status::failure(&message, "Invalid").with_code(422).with_details(details).boxed()
}

fn unavailable(error: &CallError) -> Box<Status> {
    Status::failure(&format!("the management API cannot be asked: {error}"), "ServiceUnavailable").with_code(503).boxed()
}
