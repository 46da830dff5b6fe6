//! Downloads from a server on this machine that resumes, that does not, and that lies.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::*;
use crate::Silent;

/// A server that ends with the test, and the ranges it was asked for.
struct Server {
    address: String,
    ranges: Arc<Mutex<Vec<Option<String>>>>,
    _runtime: tokio::runtime::Runtime,
}

const FILE: &[u8] = b"what upstream released, all of it";

fn serve() -> Server {
    async fn resuming(State(ranges): State<Arc<Mutex<Vec<Option<String>>>>>, headers: HeaderMap) -> Response {
        let range = headers.get("range").map(|value| value.to_str().unwrap().to_owned());
        ranges.lock().unwrap().push(range.clone());
        let Some(from) = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) else {
            return FILE.into_response();
        };
        if from >= FILE.len() {
            return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
        }
        let content_range = format!("bytes {from}-{}/{}", FILE.len() - 1, FILE.len());
        (StatusCode::PARTIAL_CONTENT, [("content-range", content_range)], &FILE[from..]).into_response()
    }
    let ranges = Arc::<Mutex<Vec<_>>>::default();
    let routes = Router::new().route("/resuming", get(resuming)).route("/whole", get(|| async { FILE })).with_state(ranges.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, routes).await });
    Server { address, ranges, _runtime: runtime }
}

fn digest() -> String {
    hex::encode(Sha256::digest(FILE))
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// What a killed run left.
fn leave_partial(store: &Store, bytes: &[u8]) {
    fs::write(store.root().join("partial").join(format!("{}.partial", digest())), bytes).unwrap();
}

fn get_it(store: &Store, url: &str) -> Result<Vec<u8>, ReleaseError> {
    download(store, url, &digest(), false, "test v1", &Silent).map(|path| fs::read(path).unwrap())
}

#[test]
fn a_download_that_broke_off_is_resumed_where_it_was() {
    let (server, (_dir, store)) = (serve(), store());
    leave_partial(&store, &FILE[..10]);
    assert_eq!(get_it(&store, &format!("{}/resuming", server.address)).unwrap(), FILE);
    assert_eq!(*server.ranges.lock().unwrap(), [Some("bytes=10-".to_owned())]);
}

#[test]
fn a_download_that_was_whole_already_is_used() {
    let (server, (_dir, store)) = (serve(), store());
    leave_partial(&store, FILE);
    assert_eq!(get_it(&store, &format!("{}/resuming", server.address)).unwrap(), FILE);
}

#[test]
fn a_server_that_cannot_resume_sends_the_whole() {
    let (server, (_dir, store)) = (serve(), store());
    leave_partial(&store, &FILE[..10]);
    assert_eq!(get_it(&store, &format!("{}/whole", server.address)).unwrap(), FILE);
}

#[test]
fn a_wrong_beginning_is_thrown_away_and_the_whole_fetched_once_more() {
    let (server, (_dir, store)) = (serve(), store());
    leave_partial(&store, b"not that");
    assert_eq!(get_it(&store, &format!("{}/resuming", server.address)).unwrap(), FILE);
    assert_eq!(*server.ranges.lock().unwrap(), [Some("bytes=8-".to_owned()), None]);
}

#[test]
fn a_file_that_is_not_the_pinned_one_is_refused_and_not_kept() {
    let (server, (_dir, store)) = (serve(), store());
    let other = hex::encode(Sha256::digest(b"another"));
    let error = download(&store, &format!("{}/whole", server.address), &other, false, "test v1", &Silent).unwrap_err();
    assert!(matches!(&error, ReleaseError::Digest { expected, actual, .. } if *expected == other && *actual == digest()));
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_host_that_cannot_be_reached_is_remembered_unless_it_is_asked_for() {
    let (_dir, store) = store();
    // A port that was free a moment ago: nobody answers there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}/file");
    assert!(matches!(get_it(&store, &url), Err(ReleaseError::Http { .. })));
    assert!(matches!(get_it(&store, &url), Err(ReleaseError::KnownUnreachable(host)) if host == "127.0.0.1"));
    let tried = download(&store, &url, &digest(), true, "test v1", &Silent);
    assert!(matches!(tried, Err(ReleaseError::Http { .. })));
}

#[test]
fn the_executable_is_found_in_an_archive_by_its_path_with_or_without_a_dot() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("archive.tgz");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::fast()));
    for (path, contents) in [("./bridge", "the bridge"), ("etcd/etcd", "etcd"), ("./other/bridge", "no")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, contents.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    for (member, contents) in [("bridge", "the bridge"), ("etcd/etcd", "etcd")] {
        let mut out = Vec::new();
        unpack(&archive, "https://x", member, &mut out).unwrap();
        assert_eq!(out, contents.as_bytes());
    }
    let error = unpack(&archive, "https://x", "portmap", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "there is no portmap in https://x");
}
