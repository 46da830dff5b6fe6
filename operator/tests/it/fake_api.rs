//! A management API in memory: objects with resourceVersion, uid, generation, finalizers and deletion as the real one has them, conflicts and
//! preconditions included; server-side apply without field ownership. Counts what it is asked, and can lose answers.

use crate::json_patch_lite;
use axum::body::Body as AxumBody;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;

/// `group/plural`, namespace, name.
type Key = (String, String, String);

#[derive(Default)]
struct Objects {
    metrics: String,
    metrics_asked: usize,
    by_key: BTreeMap<Key, Value>,
    version: u64,
    uids: u64,
    requests: BTreeMap<String, usize>,
    /// Every event with its version: a watch begins where its list ended.
    past: Vec<(u64, String, Value)>,
    /// Nobody answers yet.
    closed: bool,
    /// Lose the answer of this many of the next mutating requests: done, but the caller hears an error.
    lose: usize,
}

/// The API. Clones share it.
#[derive(Clone)]
pub struct FakeApi {
    objects: Arc<Mutex<Objects>>,
    events: broadcast::Sender<(String, Value)>,
}

struct Target {
    resource: String,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

fn target(path: &str) -> Target {
    let mut parts = path.trim_matches('/').split('/');
    let group = match parts.next() {
        Some("api") => {
            parts.next();
            String::new()
        }
        _ => {
            let group = parts.next().unwrap().to_owned();
            parts.next();
            group
        }
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", ns, rest @ ..] if !rest.is_empty() => ((*ns).to_owned(), rest.to_vec()),
        rest => (String::new(), rest.to_vec()),
    };
    Target {
        resource: format!("{group}/{}", rest[0]),
        namespace,
        name: rest.get(1).map(|s| (*s).to_owned()),
        subresource: rest.get(2).map(|s| (*s).to_owned()),
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

fn not_found(what: &Target) -> (u16, Value) {
    failure(404, "NotFound", &format!("{} {:?} not found", what.resource, what.name))
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

impl FakeApi {
    pub fn new() -> Self {
        Self { objects: Arc::default(), events: broadcast::channel(4096).0 }
    }

    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::io::Error>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// How many requests there were, by `VERB resource`.
    pub fn requests(&self) -> BTreeMap<String, usize> {
        self.objects.lock().unwrap().requests.clone()
    }

    /// Mutating requests so far.
    pub fn writes(&self) -> usize {
        self.requests().iter().filter(|(k, _)| !k.starts_with("GET") && !k.starts_with("WATCH")).map(|(_, n)| n).sum()
    }

    /// An API that does not answer before [`Self::open`].
    pub fn closed() -> Self {
        let api = Self::new();
        api.objects.lock().unwrap().closed = true;
        api
    }

    pub fn open(&self) {
        self.objects.lock().unwrap().closed = false;
    }

    /// Puts an object there, as another client would; one that is there stays.
    pub fn put(&self, resource: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut objects = self.objects.lock().unwrap();
        let key = (resource.to_owned(), namespace.to_owned(), name);
        if !objects.by_key.contains_key(&key) {
            self.store(&mut objects, key, None, object, false);
        }
    }

    /// Asks for an object's deletion, as `kubectl delete` would.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        let what =
            Target { resource: resource.to_owned(), namespace: namespace.to_owned(), name: Some(name.to_owned()), subresource: None };
        let (code, answer) = self.answer(&Method::DELETE, &what, &BTreeMap::new(), "", Value::Null);
        assert_eq!(code, 200, "{answer}");
    }

    /// Changes an object's spec, as `kubectl patch` would.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: Value) {
        let what =
            Target { resource: resource.to_owned(), namespace: namespace.to_owned(), name: Some(name.to_owned()), subresource: None };
        let (code, answer) = self.answer(&Method::PATCH, &what, &BTreeMap::new(), "application/merge-patch+json", patch);
        assert_eq!(code, 200, "{answer}");
    }

    /// What `/metrics` shows.
    pub fn set_metrics(&self, text: &str) {
        self.objects.lock().unwrap().metrics = text.to_owned();
    }

    /// How often it was asked for.
    pub fn metrics_asked(&self) -> usize {
        self.objects.lock().unwrap().metrics_asked
    }

    pub fn lose_answers(&self, n: usize) {
        self.objects.lock().unwrap().lose = n;
    }

    /// All objects of a resource, e.g. `slipway.dev/machines`.
    pub fn all(&self, resource: &str) -> Vec<Value> {
        self.objects.lock().unwrap().by_key.iter().filter(|((r, ..), _)| r == resource).map(|(_, v)| v.clone()).collect()
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.all(resource).into_iter().find(|v| v["metadata"]["name"] == name)
    }

    async fn serve(&self, request: Request<Body>) -> Response<AxumBody> {
        let (head, body) = request.into_parts();
        let query: BTreeMap<String, String> = url_pairs(head.uri.query().unwrap_or_default());
        if head.uri.path() == "/metrics" {
            let mut objects = self.objects.lock().unwrap();
            objects.metrics_asked += 1;
            return Response::new(AxumBody::from(objects.metrics.clone()));
        }
        let what = target(head.uri.path());
        if self.objects.lock().unwrap().closed {
            let (_, answer) = failure(503, "ServiceUnavailable", "nobody answers yet");
            return Response::builder().status(503).body(AxumBody::from(answer.to_string())).unwrap();
        }
        if query.get("watch").is_some_and(|w| w == "true") {
            return self.watch(&what, query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0));
        }
        let bytes = body.collect_bytes().await.unwrap();
        let kind = head.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        let (mut code, mut answer) = self.answer(&head.method, &what, &query, &kind, body);
        if head.method != Method::GET {
            let mut objects = self.objects.lock().unwrap();
            if objects.lose > 0 {
                objects.lose -= 1;
                (code, answer) = failure(500, "InternalError", "the answer was lost");
            }
        }
        Response::builder().status(StatusCode::from_u16(code).unwrap()).body(AxumBody::from(answer.to_string())).unwrap()
    }

    fn watch(&self, what: &Target, since: u64) -> Response<AxumBody> {
        let mut objects = self.objects.lock().unwrap();
        *objects.requests.entry(format!("WATCH {}", what.resource)).or_default() += 1;
        let resource = what.resource.clone();
        let missed: Vec<Value> =
            objects.past.iter().filter(|(version, r, _)| *version > since && *r == resource).map(|(.., event)| event.clone()).collect();
        // Subscribed under the same lock: nothing falls between.
        let events = self.events.subscribe();
        drop(objects);
        let live = futures::stream::unfold(events, move |mut events| {
            let resource = resource.clone();
            async move {
                loop {
                    match events.recv().await {
                        Ok((r, event)) if r == resource => return Some((event, events)),
                        Ok(_) => {}
                        Err(_) => return None,
                    }
                }
            }
        });
        let all = futures::stream::iter(missed).chain(live).map(|event| Ok::<_, std::io::Error>(format!("{event}\n")));
        Response::new(AxumBody::from_stream(all))
    }

    fn tell(&self, objects: &mut Objects, resource: &str, kind: &str, object: &Value) {
        let event = json!({"type": kind, "object": object});
        objects.past.push((objects.version, resource.to_owned(), event.clone()));
        let _ = self.events.send((resource.to_owned(), event));
    }

    fn answer(&self, method: &Method, what: &Target, query: &BTreeMap<String, String>, kind: &str, body: Value) -> (u16, Value) {
        let mut objects = self.objects.lock().unwrap();
        let sub = what.subresource.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
        *objects.requests.entry(format!("{method} {}{sub}", what.resource)).or_default() += 1;
        let Some(name) = what.name.clone() else {
            return match *method {
                Method::GET => (200, objects.list(what, query)),
                Method::POST => {
                    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    let key = (what.resource.clone(), what.namespace.clone(), name.clone());
                    if objects.by_key.contains_key(&key) {
                        return failure(409, "AlreadyExists", &format!("{} {name:?} already exists", what.resource));
                    }
                    (201, self.store(&mut objects, key, None, body, false))
                }
                _ => failure(405, "MethodNotAllowed", "not in this fake"),
            };
        };
        let key = (what.resource.clone(), what.namespace.clone(), name);
        let old = objects.by_key.get(&key).cloned();
        let status = what.subresource.as_deref() == Some("status");
        match *method {
            Method::GET => old.map_or_else(|| not_found(what), |v| (200, v)),
            Method::PUT => {
                let Some(old) = old else { return not_found(what) };
                if !body["metadata"]["resourceVersion"].is_null()
                    && body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"]
                {
                    return failure(409, "Conflict", "the object has been modified");
                }
                (200, self.store(&mut objects, key, Some(old), body, status))
            }
            Method::PATCH => {
                for (field, why) in [("uid", "uid mismatch"), ("resourceVersion", "the object has been modified")] {
                    let wanted = &body["metadata"][field];
                    if old.as_ref().is_some_and(|old| !wanted.is_null() && old["metadata"][field] != *wanted) {
                        return failure(409, "Conflict", why);
                    }
                }
                let mut new = match (&old, kind) {
                    (Some(old), _) => old.clone(),
                    (None, "application/apply-patch+yaml") if !status && body["metadata"]["uid"].is_null() => Value::Object(Map::new()),
                    (None, "application/apply-patch+yaml") if !status => {
                        return failure(409, "Conflict", "uid mismatch: the object is gone");
                    }
                    (None, _) => return not_found(what),
                };
                if kind == "application/json-patch+json" {
                    let patch: json_patch_lite::Patch = serde_json::from_value(body).unwrap();
                    if let Err(why) = json_patch_lite::apply(&mut new, &patch) {
                        return failure(422, "Invalid", &why);
                    }
                } else {
                    if status && kind == "application/apply-patch+yaml" {
                        // What a manager leaves out of its next apply goes, if nobody else owns it: here, all but the record.
                        let recorded = new["status"]["recorded"].take();
                        new["status"] = if recorded.is_null() { json!({}) } else { json!({"recorded": recorded}) };
                    }
                    merge(&mut new, &body);
                }
                (200, self.store(&mut objects, key, old, new, status))
            }
            Method::DELETE => {
                let Some(mut old) = old else { return not_found(what) };
                for field in ["uid", "resourceVersion"] {
                    let wanted = &body["preconditions"][field];
                    if !wanted.is_null() && *wanted != old["metadata"][field] {
                        return failure(409, "Conflict", &format!("precondition {field} failed"));
                    }
                }
                let kept = old["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
                if kept {
                    if old["metadata"]["deletionTimestamp"].is_null() {
                        old["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
                        let before = objects.by_key.get(&key).cloned();
                        return (200, self.store(&mut objects, key, before, old, false));
                    }
                    return (200, old);
                }
                objects.by_key.remove(&key);
                objects.version += 1;
                self.tell(&mut objects, &key.0, "DELETED", &old);
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200}))
            }
            Method::POST => failure(405, "MethodNotAllowed", "not in this fake"),
            _ => failure(405, "MethodNotAllowed", "not in this fake"),
        }
    }

    /// Stores an object as the real API would: what the caller may not decide is kept from the old one.
    fn store(&self, objects: &mut Objects, key: Key, old: Option<Value>, mut new: Value, status_only: bool) -> Value {
        if let Some(old) = &old {
            if status_only {
                let status = new["status"].clone();
                new = old.clone();
                new["status"] = status;
            } else {
                // Kinds with a status subresource keep it; the others here have none.
                let status = old["status"].clone();
                if key.0.starts_with("slipway.dev/") {
                    new["status"] = status;
                    if new["status"].is_null() {
                        new.as_object_mut().unwrap().remove("status");
                    }
                }
            }
            let deleting = !new["metadata"]["deletionTimestamp"].is_null() && old["metadata"]["deletionTimestamp"].is_null();
            let changed = new["spec"] != old["spec"] || deleting;
            new["metadata"]["uid"] = old["metadata"]["uid"].clone();
            new["metadata"]["creationTimestamp"] = old["metadata"]["creationTimestamp"].clone();
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(1);
            new["metadata"]["generation"] = json!(generation + u64::from(changed));
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
            if new == *old {
                return new;
            }
        } else {
            objects.uids += 1;
            new["metadata"]["uid"] = json!(format!("uid-{}", objects.uids));
            new["metadata"]["generation"] = json!(1);
            new["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::now().to_string());
            if !key.1.is_empty() {
                new["metadata"]["namespace"] = json!(key.1);
            }
            if key.0.starts_with("slipway.dev/") {
                new.as_object_mut().unwrap().remove("status");
            }
        }
        objects.version += 1;
        new["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        let gone = !new["metadata"]["deletionTimestamp"].is_null() && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let kind = if gone {
            objects.by_key.remove(&key);
            "DELETED"
        } else if objects.by_key.insert(key.clone(), new.clone()).is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        self.tell(objects, &key.0, kind, &new);
        new
    }
}

impl Objects {
    fn list(&self, what: &Target, query: &BTreeMap<String, String>) -> Value {
        let selector: Vec<(String, String)> = query
            .get("labelSelector")
            .map(|s| s.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
            .unwrap_or_default();
        let items: Vec<Value> = self
            .by_key
            .iter()
            .filter(|((r, ns, _), _)| *r == what.resource && (what.namespace.is_empty() || *ns == what.namespace))
            .filter(|(_, v)| selector.iter().all(|(k, wanted)| v["metadata"]["labels"][k.as_str()] == wanted.as_str()))
            .map(|(_, v)| v.clone())
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }
}

fn url_pairs(query: &str) -> BTreeMap<String, String> {
    query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), percent(v))).collect()
}

fn percent(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (vec![], 0);
    while i < bytes.len() {
        if bytes[i] == b'%' && i + 2 < bytes.len() {
            out.push(u8::from_str_radix(&text[i + 1..i + 3], 16).unwrap());
            i += 3;
        } else {
            out.push(if bytes[i] == b'+' { b' ' } else { bytes[i] });
            i += 1;
        }
    }
    String::from_utf8(out).unwrap()
}
