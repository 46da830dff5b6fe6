//! One component's share of a machine's plan: its files, its unit, its probe.

use crate::unit::Service;
use crate::{Artifacts, RenderError};
use serde_json::Value;
use slipway_model::{Content, Credential, Directory, File, MachinePlan, Probe, ProbeKind, Unit, UnitState, User};

/// Certificates that everybody may read.
pub(crate) const PKI: &str = "/etc/kubernetes/pki";
/// The cluster CA's certificate.
pub(crate) const CLUSTER_CA: &str = "/etc/kubernetes/pki/ca.crt";

/// A share that is being put together. Files belong to its owner, and no other user may read their directory.
pub(crate) struct Part {
    name: &'static str,
    owner: &'static str,
    plan: MachinePlan,
    /// Files of others whose change restarts the unit too.
    shared: Vec<String>,
}

impl Part {
    /// A component that runs as root.
    pub fn root(name: &'static str) -> Self {
        Self { name, owner: "root", plan: MachinePlan::default(), shared: vec![] }
    }

    /// A component that runs as a user of its own name, or of another.
    pub fn user(name: &'static str, user: &'static str, id: u32) -> Self {
        let plan = MachinePlan { users: vec![User { name: user.to_owned(), id }], ..MachinePlan::default() };
        Self { name, owner: user, plan, shared: vec![] }
    }

    /// A directory of the owner's.
    pub fn directory(&mut self, path: impl Into<String>, mode: u32) {
        self.plan.directories.push(Directory { path: path.into(), mode, owner: self.owner.to_owned() });
    }

    /// A file of the owner's; its path.
    pub fn file(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Content>) -> String {
        let path = path.into();
        self.plan.files.push(File { path: path.clone(), mode, owner: self.owner.to_owned(), content: content.into() });
        path
    }

    /// The directory of the owner's certificates and keys, which nobody else may enter.
    pub fn secret_directory(&mut self) {
        self.directory(format!("{PKI}/{}", self.name), 0o700);
    }

    /// A certificate or a key in [`Part::secret_directory`]; its path.
    pub fn secret(&mut self, file: &str, content: impl Into<Content>) -> String {
        self.file(format!("{PKI}/{}/{file}", self.name), 0o600, content)
    }

    /// `<name>.crt` and `<name>.key`; their paths.
    pub fn pair(&mut self, name: &str, credential: &Credential) -> (String, String) {
        (self.secret(&format!("{name}.crt"), credential.certificate.clone()), self.secret(&format!("{name}.key"), credential.key.clone()))
    }

    /// Restarts the unit when a file of another part changes.
    pub fn shares(&mut self, path: &str) {
        self.shared.push(path.to_owned());
    }

    /// Takes files as they are, owner and mode included.
    pub fn adopt(&mut self, files: &[File]) {
        self.plan.files.extend(files.iter().cloned());
    }

    /// Programs that no unit runs.
    pub fn tools(&mut self, names: &[&str], artifacts: &Artifacts) -> Result<(), RenderError> {
        for name in names {
            let missing = || RenderError::MissingArtifact { name: (*name).to_owned(), unit: format!("{}.service", self.name) };
            let artifact = artifacts.get(*name).ok_or_else(missing)?.clone();
            self.plan.artifacts.push(artifact);
        }
        Ok(())
    }

    /// Closes the part: the unit `<name>.service` is restarted by every file named here and by every artifact it uses.
    pub fn finish(mut self, service: &Service, uses: &[&str], artifacts: &Artifacts, probe: ProbeKind) -> Result<MachinePlan, RenderError> {
        let unit = format!("{}.service", self.name);
        for name in uses {
            let artifact = artifacts.get(*name);
            let missing = || RenderError::MissingArtifact { name: (*name).to_owned(), unit: unit.clone() };
            self.plan.artifacts.push(artifact.ok_or_else(missing)?.clone());
        }
        let files = self.plan.files.iter().map(|file| file.path.clone()).chain(self.shared).collect();
        self.plan.units.push(Unit {
            name: unit.clone(),
            content: service.render(),
            state: UnitState::Running,
            files,
            artifacts: uses.iter().map(|&name| name.to_owned()).collect(),
        });
        self.plan.probes.push(Probe { name: self.name.to_owned(), unit, kind: probe });
        Ok(self.plan)
    }
}

/// A probe that asks for 200.
pub(crate) fn http(url: &str) -> ProbeKind {
    ProbeKind::Http { url: url.to_owned() }
}

/// JSON as components read it, which is YAML too. Keys are sorted whatever serde_json's features are, so that digests and golden files stay the same.
pub(crate) fn json(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(&sorted(value)).unwrap_or_default();
    text.push('\n');
    text
}

/// The same value with all its keys sorted.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| key.as_str());
            Value::Object(keys.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
