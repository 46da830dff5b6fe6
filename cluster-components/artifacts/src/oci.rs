//! Writing OCI archives: one program in one uncompressed layer, the same bytes each time.
//!
//! ```text
//! oci-layout                 {"imageLayoutVersion":"1.0.0"}
//! index.json                 one manifest, annotated with the name containerd is to know it by
//! blobs/sha256/<manifest>    ─► config (entrypoint, user, digest of the layer), layer (a tar with the program)
//! ```
//! Nodes run Kubernetes itself from files, so these images are all that a new cluster needs, and nothing is pulled.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::catalogue::{Component, host_arch};

/// Goes into an archive's origin: a change here makes archives in a store stale.
pub(crate) const LAYOUT: &str = "1";

/// What an image is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image<'a> {
    /// The full name, registry and tag included.
    pub reference: &'a str,
    /// The program's name in the root directory.
    pub program: &'a str,
    /// Arguments if the pod gives none.
    pub arguments: &'a [&'a str],
    /// `uid:gid`, or empty for root.
    pub user: &'a str,
}

/// The image of a component that has one; `reference` is its name.
pub(crate) fn image(component: Component, reference: &str) -> Option<Image<'_>> {
    match component {
        Component::Pause => Some(Image { reference, program: "pause", arguments: &[], user: "65535:65535" }),
        // Root, as the pod drops all capabilities but the one to bind port 53.
        Component::Coredns => Some(Image { reference, program: "coredns", arguments: &[], user: "" }),
        Component::TestClient => Some(Image { reference, program: "probe", arguments: &["serve"], user: "65532:65532" }),
        Component::Kubernetes | Component::Etcd | Component::Containerd | Component::Runc | Component::Cni => None,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    name: String,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    tag: String,
}

#[derive(Serialize)]
struct Platform {
    architecture: &'static str,
    os: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'static str,
    os: &'static str,
    config: Process<'a>,
    rootfs: RootFs,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Process<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    entrypoint: [String; 1],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [&'a str],
    working_dir: &'static str,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: [String; 1],
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes the archive of `image`, whose program's bytes are `program`.
pub(crate) fn write(image: &Image<'_>, program: &[u8], to: impl Write) -> io::Result<()> {
    let mut layer = tar::Builder::new(Vec::with_capacity(program.len() + 4096));
    append(&mut layer, image.program, 0o755, program)?;
    let layer = layer.into_inner()?;

    let layer_digest = digest(&layer);
    let config = serde_json::to_vec(&Config {
        architecture: host_arch(),
        os: "linux",
        config: Process { user: image.user, entrypoint: [format!("/{}", image.program)], cmd: image.arguments, working_dir: "/" },
        rootfs: RootFs { kind: "layers", diff_ids: [layer_digest.clone()] },
    })?;
    let manifest = serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: descriptor(CONFIG, &config),
        layers: vec![Descriptor { media_type: LAYER, digest: layer_digest, size: layer.len() as u64, annotations: None, platform: None }],
    })?;
    let tag = image.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let index = serde_json::to_vec(&Index {
        schema_version: 2,
        media_type: INDEX,
        manifests: vec![Descriptor {
            annotations: Some(Annotations { name: image.reference.to_owned(), tag: tag.to_owned() }),
            platform: Some(Platform { architecture: host_arch(), os: "linux" }),
            ..descriptor(MANIFEST, &manifest)
        }],
    })?;

    let mut archive = tar::Builder::new(to);
    append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut archive, "index.json", 0o644, &index)?;
    for blob in [&config, &manifest, &layer] {
        append(&mut archive, format!("blobs/{}", digest(blob).replace(':', "/")), 0o644, blob)?;
    }
    archive.into_inner()?.flush()
}

/// A file of root's, from the beginning of time: nothing in an archive depends on who packs it, or when.
fn append(tar: &mut tar::Builder<impl Write>, path: impl AsRef<Path>, mode: u32, contents: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(contents.len() as u64);
    tar.append_data(&mut header, path, contents)
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn descriptor(media_type: &'static str, bytes: &[u8]) -> Descriptor {
    Descriptor { media_type, digest: digest(bytes), size: bytes.len() as u64, annotations: None, platform: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn archive() -> Vec<u8> {
        let image = image(Component::Pause, "registry.k8s.io/pause:3.10.2").unwrap();
        let mut bytes = Vec::new();
        write(&image, b"a program", &mut bytes).unwrap();
        bytes
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        tar::Archive::new(archive)
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).unwrap();
                (path, contents)
            })
            .collect()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_same_program_makes_the_same_archive_byte_for_byte() {
        assert_eq!(digest(&archive()), "sha256:1f8cf42056fc8e32ca4432fb258562f81c12915ecf69d1aca25037a85e162802");
    }

    #[test]
    fn every_blob_lies_under_its_digest_and_the_chain_of_digests_holds() {
        let files = files(&archive());
        for (path, contents) in &files {
            if let Some(name) = path.strip_prefix("blobs/sha256/") {
                assert_eq!(digest(contents), format!("sha256:{name}"));
            }
        }
        let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&files[path]).unwrap();
        let blob = |descriptor: &serde_json::Value| {
            let path = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
            assert_eq!(files[&path].len() as u64, descriptor["size"].as_u64().unwrap());
            path
        };
        let index = json("index.json");
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "registry.k8s.io/pause:3.10.2");
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "3.10.2");
        let manifest = json(&blob(&index["manifests"][0]));
        let config = json(&blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"][0], "/pause");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = blob(&manifest["layers"][0]);
        let mut layer = tar::Archive::new(files[&layer].as_slice());
        let mut entry = layer.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o755);
        let mut program = String::new();
        entry.read_to_string(&mut program).unwrap();
        assert_eq!((entry.path().unwrap().to_str().unwrap(), program.as_str()), ("pause", "a program"));
    }
}
