//! What a machine is told to be: the complete desired state that an agent persists, diffs and makes real.
//!
//! Serialised as canonical JSON (struct order, sorted maps) its sha256 is the plan's identity: the agent compares and swaps on it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::fmt;

/// sha256 of a plan's canonical JSON, in hex.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanDigest(pub String);

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachinePlan {
    /// System users that must exist first.
    pub users: Vec<User>,
    /// Directories that must exist, parents before children.
    pub directories: Vec<Directory>,
    /// Files, complete with their contents.
    pub files: Vec<File>,
    /// Programs and archives.
    pub artifacts: Vec<ArtifactRef>,
    /// systemd units. Those that are not named any more are stopped and removed.
    pub units: Vec<Unit>,
    /// How to tell that a unit does its work.
    pub probes: Vec<Probe>,
    /// What a load balancer asks before it sends requests here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
}

/// TCP port of every control plane's [`Gate`].
pub const GATE_PORT: u16 = 7444;

/// Whether requests shall be sent to this machine: one word per connection to a TCP port, as HAProxy's `agent-check` reads it. It knows what a
/// health check finds out too late: that a unit is about to be restarted, and that one has just died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Where it is asked.
    pub port: u16,
    /// Units without which requests to this machine fail.
    pub units: Vec<String>,
}

/// A system user with a group of the same name and number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name of user and group.
    pub name: String,
    /// uid and gid.
    pub id: u32,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Permission bits, e.g. 0o700.
    pub mode: u32,
    /// Owner, a user of the plan or `root`.
    pub owner: String,
}

/// Bytes of a file: hexadecimal in JSON, never shown in Debug.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        // The error must not quote the text: it may be a key.
        hex::decode(text).map(Self).map_err(|_| serde::de::Error::custom("a file's content is not hexadecimal"))
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    pub path: String,
    /// Permission bits, e.g. 0o600.
    pub mode: u32,
    /// Owner, a user of the plan or `root`.
    pub owner: String,
    /// The bytes, hexadecimal in JSON.
    pub content: Content,
}

/// A program or archive, known by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// File name, e.g. `kube-apiserver` or `pause.tar`. Found by units under `/opt/slipway/bin/<name>`.
    pub name: String,
    /// sha256 of the file, hex.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// Where it can be had, tried in order: `https://…` or `file:///…`.
    pub sources: Vec<String>,
}

/// What a unit shall be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnitState {
    /// Enabled and started.
    Running,
    /// Present, started only by others that want it (a timer's service, for example).
    Present,
}

/// A systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// `etcd.service`.
    pub name: String,
    /// The unit file's text.
    pub content: String,
    /// What it shall be doing.
    pub state: UnitState,
    /// Paths of [`MachinePlan::files`] whose change restarts it.
    pub files: Vec<String>,
    /// Names of [`MachinePlan::artifacts`] that are verified before it starts and whose change restarts it.
    pub artifacts: Vec<String>,
}

/// Whether a unit does its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Unique within the plan, e.g. `kube-apiserver`.
    pub name: String,
    /// The unit it speaks of.
    pub unit: String,
    /// How it asks.
    pub kind: ProbeKind,
}

/// How a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ProbeKind {
    /// GET answers 200. `https` without checking the server's certificate: the address is this machine's own.
    Http {
        /// The whole URL.
        url: String,
    },
    /// Somebody listens on this Unix socket.
    Socket {
        /// Absolute path.
        path: String,
    },
    /// The unit is active, no more.
    Active,
}

impl MachinePlan {
    /// The bytes that are sent, stored and hashed.
    ///
    /// Serialising plain structs to JSON cannot fail; an empty text would be refused by every agent.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The plan's identity.
    #[must_use]
    pub fn digest(&self) -> PlanDigest {
        PlanDigest(hex::encode(Sha256::digest(self.canonical())))
    }

    /// Puts the parts of another plan behind this one's.
    pub fn extend(&mut self, other: Self) {
        let Self { users, directories, files, artifacts, units, probes, gate } = other;
        self.users.extend(users);
        self.directories.extend(directories);
        self.files.extend(files);
        self.artifacts.extend(artifacts);
        self.units.extend(units);
        self.probes.extend(probes);
        self.gate = self.gate.take().or(gate);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plan_survives_its_own_json_and_keeps_its_digest() {
        let plan = MachinePlan {
            files: vec![File { path: "/etc/x".into(), mode: 0o600, owner: "root".into(), content: "secret".into() }],
            ..MachinePlan::default()
        };
        let again: MachinePlan = serde_json::from_slice(&plan.canonical()).unwrap();
        assert_eq!((again.digest(), again), (plan.digest(), plan));
    }

    #[test]
    fn contents_are_never_shown() {
        assert_eq!(format!("{:?}", Content::from("secret")), "[6 bytes]");
        let error = serde_json::from_str::<Content>("\"BEGIN KEY\"").unwrap_err().to_string();
        assert!(!error.contains("BEGIN"), "{error}");
    }
}
