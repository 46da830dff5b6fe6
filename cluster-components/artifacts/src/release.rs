//! Downloading an official release: resumed where it broke off, and not looked into before its digest is the pinned one.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Progress;
use crate::catalogue::{Component, Packaging, Source, host_arch, official};
use crate::store::{Artifact, Store, StoreError, hash_file};

/// How long to try to reach a host; where there is no way out, every start would wait this long.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a connection may say nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a host that could not be reached is not tried again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(60 * 60);

/// Why a release could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error("{0} could not be reached less than an hour ago")]
    KnownUnreachable(String),
    #[error("cannot download {url}: {}", innermost(source))]
    Http { url: String, source: reqwest::Error },
    #[error("{url} has sha256 {actual} where {expected} is pinned: it was altered on its way or at its source, and was thrown away")]
    Digest { url: String, expected: String, actual: String },
    #[error("there is no {member} in {url}")]
    Member { url: String, member: String },
    #[error("cannot unpack {url}: {source}")]
    Unpack { url: String, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReleaseError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// reqwest says only that a request failed; why is at the bottom of its chain of causes.
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).last().map_or_else(String::new, ToString::to_string)
}

/// Downloads what is pinned of `wanted` and returns what got into the store. Upstream archives hold several executables;
/// each is downloaded once. With `try_again`, hosts known to be unreachable are tried all the same.
pub(crate) fn fetch(
    store: &Store,
    component: Component,
    version: &str,
    wanted: &[&'static str],
    try_again: bool,
    progress: &dyn Progress,
) -> Result<Vec<Artifact>, ReleaseError> {
    let mut files: BTreeMap<(String, &'static str), Vec<(&'static str, Packaging)>> = BTreeMap::new();
    for &binary in wanted {
        if let Some(Source { url, sha256: Some(digest), packaging }) = official(component, version, host_arch(), binary) {
            files.entry((url, digest)).or_default().push((binary, packaging));
        }
    }
    let mut fetched = Vec::new();
    for ((url, digest), executables) in files {
        let label = format!("{component} {version}");
        let file = download(store, &url, digest, try_again, &label, progress)?;
        for (binary, packaging) in executables {
            let mut temp = store.temp_file()?;
            match packaging {
                Packaging::Plain => {
                    let mut from = File::open(&file).map_err(ReleaseError::io(&file))?;
                    io::copy(&mut from, &mut temp).map_err(ReleaseError::io(&file))?;
                }
                Packaging::TarGz { member } => unpack(&file, &url, &member, &mut temp)?,
            }
            fetched.push(store.adopt_temp(component.name(), version, binary, &format!("release:{url}"), temp)?);
        }
        // It is in the store now; left behind it would only cost disk.
        let _ = fs::remove_file(&file);
    }
    Ok(fetched)
}

/// Brings `url` into `partial/` and returns the file once its digest is right. What a killed run left is carried on from;
/// if the whole is then wrong, the beginning may have been, and it is downloaded once more from the start.
fn download(
    store: &Store,
    url: &str,
    digest: &str,
    try_again: bool,
    label: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, ReleaseError> {
    let path = store.root().join("partial").join(format!("{digest}.partial"));
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    if !try_again && known_unreachable(store, &host) {
        return Err(ReleaseError::KnownUnreachable(host));
    }
    for _ in 0..2 {
        let resumed = transfer(url, &path, label, progress).inspect_err(|error| {
            if let ReleaseError::Http { source, .. } = error
                && source.is_connect()
            {
                remember_unreachable(store, &host);
            }
        })?;
        let (actual, _) = hash_file(&path).map_err(ReleaseError::io(&path))?;
        if actual == digest {
            return Ok(path);
        }
        fs::remove_file(&path).map_err(ReleaseError::io(&path))?;
        if !resumed {
            return Err(ReleaseError::Digest { url: url.to_owned(), expected: digest.to_owned(), actual });
        }
        progress.step(label, &format!("what was resumed of {url} is not what it should be; from the start"));
    }
    Err(ReleaseError::Digest { url: url.to_owned(), expected: digest.to_owned(), actual: "another one twice".to_owned() })
}

/// One transfer, appended to what is at `path` if the server lets us; returns whether it was.
fn transfer(url: &str, path: &Path, label: &str, progress: &dyn Progress) -> Result<bool, ReleaseError> {
    let http = |source| ReleaseError::Http { url: url.to_owned(), source };
    // One of the processes of a program may have chosen a provider already; then that one serves.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ReleaseError::io(path))?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).build().map_err(http)?;
        let have = fs::metadata(path).map(|file| file.len()).unwrap_or(0);
        let mut request = client.get(url);
        if have > 0 {
            request = request.header("range", format!("bytes={have}-"));
        }
        let mut response = request.send().await.map_err(http)?;
        let status = response.status().as_u16();
        // 416: what we have is the whole already (or more than it); the digest will tell.
        if have > 0 && status == 416 {
            return Ok(true);
        }
        let from = format!("bytes {have}-");
        let resumed =
            status == 206 && response.headers().get("content-range").and_then(|v| v.to_str().ok()).is_some_and(|v| v.starts_with(&from));
        if status == 206 && !resumed {
            // Some other part than the asked one.
            response = client.get(url).send().await.map_err(http)?;
        }
        let mut response = response.error_for_status().map_err(http)?;
        let mut file =
            OpenOptions::new().create(true).write(true).append(resumed).truncate(!resumed).open(path).map_err(ReleaseError::io(path))?;
        let mut done = if resumed { have } else { 0 };
        let total = response.content_length().map(|rest| rest + done);
        let mut said = 0;
        while let Some(chunk) = response.chunk().await.map_err(http)? {
            file.write_all(&chunk).map_err(ReleaseError::io(path))?;
            done += chunk.len() as u64;
            // A line per 16 MiB.
            if said == 0 || done - said > 16 << 20 {
                said = done;
                let of = total.map_or(String::new(), |total| format!(" of {}", total >> 20));
                progress.step(label, &format!("downloading {url}: {}{of} MiB", done >> 20));
            }
        }
        Ok(resumed)
    })
}

/// Copies one file out of a gzipped tar archive whose digest is right.
fn unpack(archive: &Path, url: &str, member: &str, to: &mut impl Write) -> Result<(), ReleaseError> {
    let unpack = |source| ReleaseError::Unpack { url: url.to_owned(), source };
    let file = File::open(archive).map_err(ReleaseError::io(archive))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().map_err(unpack)? {
        let mut entry = entry.map_err(unpack)?;
        let is_it = entry
            .path()
            .map_err(unpack)?
            .strip_prefix("./")
            .map_or_else(|_| entry.path().is_ok_and(|path| path == Path::new(member)), |path| path == Path::new(member));
        if is_it && entry.header().entry_type().is_file() {
            // No more than it says it holds.
            let size = entry.size();
            io::copy(&mut entry.by_ref().take(size), to).map_err(unpack)?;
            return Ok(());
        }
    }
    Err(ReleaseError::Member { url: url.to_owned(), member: member.to_owned() })
}

fn unreachable_note(store: &Store, host: &str) -> PathBuf {
    store.root().join("unreachable").join(host)
}

fn known_unreachable(store: &Store, host: &str) -> bool {
    fs::metadata(unreachable_note(store, host))
        .and_then(|note| note.modified())
        .ok()
        .and_then(|when| SystemTime::now().duration_since(when).ok())
        .is_some_and(|age| age < UNREACHABLE_FOR)
}

/// A note that cannot be written costs two seconds next time.
fn remember_unreachable(store: &Store, host: &str) {
    let note = unreachable_note(store, host);
    let _ = fs::create_dir_all(store.root().join("unreachable")).and_then(|()| fs::write(note, ""));
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
