//! Who the management plane is: its keys, the token of its machine, and its user data, all on disk (0600 in a 0700 directory) before they are used.
//!
//! What is on disk is taken as it is; only what is missing is made. Losing this directory loses the plane: its machine trusts nothing else.

use crate::place::{Place, private_dir, write_private};
use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use slipway_agent_api::OperatorIdentity;
use slipway_model::{Content, Credential};
use slipway_pki::{AdminLeaves, ClusterPki, Identity, MachineFacts, MachineLeaves};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Named bytes, as a Secret has them.
type Data = BTreeMap<String, Vec<u8>>;

/// The plane's authorities, its people, and its machine's first contact.
pub struct PlaneIdentity {
    dir: PathBuf,
    /// Authorities.
    pub pki: ClusterPki,
    /// Kubeconfigs are made of these.
    pub admin: AdminLeaves,
    /// UID of its one machine.
    pub machine_uid: String,
    /// One-time token of that machine.
    pub token: SecretString,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bootstrap {
    machine_uid: String,
    token: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    credential: Credential,
    renew_at: Timestamp,
}

impl PlaneIdentity {
    /// Whether there is one.
    pub fn exists(place: &Place) -> bool {
        place.management().join("pki.json").exists()
    }

    /// Reads it, making what is missing.
    pub fn ensure(place: &Place, now: Timestamp) -> Result<Self> {
        let dir = place.management();
        private_dir(&dir)?;
        let (pki, admin) = match read_data(&dir.join("pki.json"))? {
            Some(data) => (ClusterPki::from_secret(&data)?, AdminLeaves::from_secret(&data)?),
            None => {
                let pki = ClusterPki::generate("management", now)?;
                let admin = AdminLeaves::issue(&pki, now)?;
                let mut data = pki.to_secret();
                data.extend(admin.to_secret());
                write_data(&dir.join("pki.json"), &data)?;
                (pki, admin)
            }
        };
        // People come and go with their certificates; authorities stay.
        let admin = if now < admin.renew_at() {
            admin
        } else {
            let fresh = AdminLeaves::issue(&pki, now)?;
            let mut data = pki.to_secret();
            data.extend(fresh.to_secret());
            write_data(&dir.join("pki.json"), &data)?;
            fresh
        };
        let Bootstrap { machine_uid, token } = bootstrap(&dir)?;
        Ok(Self { dir, pki, admin, machine_uid, token: SecretString::from(token) })
    }

    /// The machine's own certificates, made once for these facts.
    pub fn machine_leaves(&self, facts: &MachineFacts, now: Timestamp) -> Result<MachineLeaves> {
        let path = self.dir.join("machine-pki.json");
        if let Some(data) = read_data(&path)?
            && let Ok(leaves) = MachineLeaves::from_secret(&data, facts)
            && leaves.matches(&self.pki, facts)
            && now < leaves.renew_at()
        {
            return Ok(leaves);
        }
        let leaves = MachineLeaves::issue(&self.pki, facts, now)?;
        write_data(&path, &leaves.to_secret())?;
        Ok(leaves)
    }

    /// The operator's certificate towards this plane's apiserver. Made once, since the machine's plan carries it, and anew when it grows old.
    pub fn operator_credential(&self, now: Timestamp) -> Result<Credential> {
        let path = self.dir.join("operator-pki.json");
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(kept) = serde_json::from_slice::<Kept>(&bytes)
            && now < kept.renew_at
        {
            return Ok(kept.credential);
        }
        let leaf = self.pki.issue(&Identity::ManagementOperator, now)?;
        let kept = Kept { credential: leaf.credential(), renew_at: leaf.renew_at() };
        write_private(&path, &serde_json::to_vec(&kept).context("writing keys")?)?;
        Ok(kept.credential)
    }

    /// This process's certificate towards the machine's agent.
    pub fn agent_identity(&self, now: Timestamp) -> Result<OperatorIdentity> {
        agent_identity(&self.pki, now)
    }

    /// What [`PlaneIdentity::frozen`] froze under that name.
    pub fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Something that must be the same bytes at every run, e.g. rendered user data. Made once, then read.
    pub fn frozen(&self, name: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        if let Some(bytes) = self.kept(name)? {
            return Ok(bytes);
        }
        let bytes = make()?;
        write_private(&self.dir.join(name), &bytes)?;
        Ok(bytes)
    }
}

/// A day's certificate as the operator, towards the agents of one cluster.
pub fn agent_identity(pki: &ClusterPki, now: Timestamp) -> Result<OperatorIdentity> {
    use secrecy::ExposeSecret;
    let leaf = pki.issue_for_days(&Identity::Operator, now, 1)?;
    Ok(OperatorIdentity::from_pem(leaf.certificate(), leaf.key().expose_secret(), pki.agent.certificate())?)
}

fn bootstrap(dir: &Path) -> Result<Bootstrap> {
    let path = dir.join("bootstrap.json");
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
            anyhow::anyhow!("{} is not what `slipway up` wrote: restore it, or `slipway down --force` and start anew", path.display())
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let fresh = Bootstrap { machine_uid: format!("management-{}", random_hex(8)?), token: random_hex(32)? };
            write_private(&path, &serde_json::to_vec(&fresh).context("writing the token")?)?;
            Ok(fresh)
        }
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// `n` random bytes from the kernel, hexadecimal.
fn random_hex(n: usize) -> Result<String> {
    use std::io::Read;
    let mut bytes = vec![0u8; n];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).context("reading /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn read_data(path: &Path) -> Result<Option<Data>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    // The parser's error would quote the file.
    let Ok(data) = serde_json::from_slice::<BTreeMap<String, Content>>(&bytes) else {
        bail!("{} is not what `slipway up` wrote: restore it, or `slipway down --force` and start anew", path.display());
    };
    Ok(Some(data.into_iter().map(|(k, v)| (k, v.0)).collect()))
}

fn write_data(path: &Path, data: &Data) -> Result<()> {
    let data: BTreeMap<&str, Content> = data.iter().map(|(k, v)| (k.as_str(), Content(v.clone()))).collect();
    write_private(path, &serde_json::to_vec(&data).context("writing keys")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use slipway_pki::MachineRole;

    #[test]
    fn an_identity_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path())).unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let first = PlaneIdentity::ensure(&place, now).unwrap();
        let second = PlaneIdentity::ensure(&place, now).unwrap();
        assert_eq!(first.pki.to_secret(), second.pki.to_secret());
        assert_eq!(first.admin.to_secret(), second.admin.to_secret());
        assert_eq!(first.machine_uid, second.machine_uid);
        let role =
            MachineRole::ControlPlane { endpoint: "198.18.1.10".into(), service_ip: "10.96.0.1".parse().unwrap(), extra_names: vec![] };
        let facts = MachineFacts { node: "management-cp-0".into(), address: "198.18.1.10".parse().unwrap(), role };
        let leaves = first.machine_leaves(&facts, now).unwrap().to_secret();
        assert_eq!(leaves, second.machine_leaves(&facts, now).unwrap().to_secret());
        let moved = MachineFacts { address: "198.18.1.11".parse().unwrap(), ..facts };
        assert_ne!(leaves, second.machine_leaves(&moved, now).unwrap().to_secret(), "a new address, new certificates");
    }

    #[test]
    fn a_damaged_key_file_is_named_and_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(Some(dir.path())).unwrap();
        private_dir(&place.management()).unwrap();
        std::fs::write(place.management().join("pki.json"), "SECRET").unwrap();
        let error = PlaneIdentity::ensure(&place, Timestamp::UNIX_EPOCH).err().unwrap().to_string();
        assert!(error.contains("pki.json") && !error.contains("SECRET"), "{error}");
    }
}
