//! What a plan must look like before it is accepted. Whoever sends one is root on this machine anyway (units run what they like); this
//! catches mistakes before they are persisted, and keeps a plan from sawing off the agent's own branch.

use slipway_model::{ArtifactRef, MachinePlan, ProbeKind};
use std::collections::BTreeSet;

/// Where files and directories may be.
const PREFIXES: &[&str] = &["/etc/", "/var/", "/opt/slipway/", "/usr/local/", "/run/", "/srv/"];

/// What belongs to the machine or to the agent, whole trees.
const FORBIDDEN: &[&str] = &[
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/ssh",
    "/etc/pam.d",
    "/etc/ld.so.preload",
    "/etc/ld.so.conf",
    "/etc/machine-id",
    "/etc/slipway",
    "/etc/systemd",
    "/var/lib/slipway",
    "/run/slipway",
    "/run/systemd",
    "/run/dbus",
    "/opt/slipway/bin",
    "/opt/slipway/store",
];

/// The agent's own unit.
pub const AGENT_UNIT: &str = "slipway-agent.service";
/// The agent's own program.
pub const AGENT: &str = "slipway-agent";

const UNIT_KINDS: &[&str] = &["service", "socket", "timer", "path", "target", "slice", "mount"];

/// The first thing that is wrong with a plan, with the object it is wrong with.
pub fn check(plan: &MachinePlan) -> Result<(), String> {
    users(plan)?;
    paths(plan)?;
    artifacts(plan)?;
    units(plan)?;
    probes(plan)?;
    gate(plan)
}

fn gate(plan: &MachinePlan) -> Result<(), String> {
    let Some(gate) = &plan.gate else { return Ok(()) };
    if gate.port < 1024 || gate.port == slipway_agent_api::AGENT_PORT {
        return Err(format!("gate: port {} is not one for it: 1024 to 65535, but not the agent's own", gate.port));
    }
    match gate.units.iter().find(|name| !plan.units.iter().any(|unit| unit.name == **name)) {
        Some(name) => Err(format!("gate: its unit {name} is not in the plan")),
        None => Ok(()),
    }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("{what} {name:?} is named twice"));
        }
    }
    Ok(seen)
}

fn users(plan: &MachinePlan) -> Result<(), String> {
    unique("user", plan.users.iter().map(|user| user.name.as_str()))?;
    for user in &plan.users {
        let name = &user.name;
        let good = name.len() <= 32
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if !good || name == "root" {
            return Err(format!("user {name:?}: a name is lower-case letters, digits, '-' and '_', at most 32, and not root"));
        }
        if !(100..60_000).contains(&user.id) {
            return Err(format!("user {name}: id {} is not within 100 to 59999", user.id));
        }
    }
    let ids: BTreeSet<u32> = plan.users.iter().map(|user| user.id).collect();
    if ids.len() != plan.users.len() {
        return Err("two users have the same id".into());
    }
    Ok(())
}

fn path(what: &str, path: &str) -> Result<(), String> {
    let normal = path.starts_with('/')
        && path.len() <= 1024
        && path.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..")
        && !path.bytes().any(|b| b.is_ascii_control());
    if !normal {
        return Err(format!("{what} {path:?}: a path is absolute and has no empty part, '.' or '..'"));
    }
    if !PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
        return Err(format!("{what} {path}: allowed are paths below {}", PREFIXES.join(", ")));
    }
    if let Some(tree) = FORBIDDEN.iter().find(|tree| path.strip_prefix(**tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    {
        return Err(format!("{what} {path}: {tree} is not a plan's to write"));
    }
    Ok(())
}

fn paths(plan: &MachinePlan) -> Result<(), String> {
    let owners: BTreeSet<&str> = plan.users.iter().map(|user| user.name.as_str()).chain(["root"]).collect();
    let directories = unique("directory", plan.directories.iter().map(|directory| directory.path.as_str()))?;
    unique("file", plan.files.iter().map(|file| file.path.as_str()))?;
    let all = plan.directories.iter().map(|d| ("directory", &d.path, d.mode, &d.owner));
    for (what, name, mode, owner) in all.chain(plan.files.iter().map(|f| ("file", &f.path, f.mode, &f.owner))) {
        path(what, name)?;
        if mode & !0o1777 != 0 {
            return Err(format!("{what} {name}: mode {mode:o} has bits beside permissions (set-uid and set-gid are not allowed)"));
        }
        if !owners.contains(owner.as_str()) {
            return Err(format!("{what} {name}: its owner {owner:?} is neither root nor a user of the plan"));
        }
    }
    match plan.files.iter().find(|file| directories.contains(file.path.as_str())) {
        Some(file) => Err(format!("{} is both a file and a directory", file.path)),
        None => Ok(()),
    }
}

fn artifacts(plan: &MachinePlan) -> Result<(), String> {
    unique("artifact", plan.artifacts.iter().map(|artifact| artifact.name.as_str()))?;
    plan.artifacts.iter().try_for_each(|artifact| {
        let name = &artifact.name;
        let good = (1..=128).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
        if !good || name == AGENT {
            return Err(format!("artifact {name:?}: a name is letters, digits and '._+-', begins with no dot, and is not {AGENT}"));
        }
        content(artifact)
    })
}

/// What is wrong with a build of the agent itself.
pub fn build(artifact: &ArtifactRef) -> Result<(), String> {
    if artifact.name == AGENT {
        content(artifact)
    } else {
        Err(format!("artifact {:?}: a build of the agent is named {AGENT}", artifact.name))
    }
}

/// Whether this is a sha256 as it is written everywhere.
pub fn sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn content(artifact: &ArtifactRef) -> Result<(), String> {
    let name = &artifact.name;
    if !sha256(&artifact.sha256) {
        return Err(format!("artifact {name}: its sha256 is not 64 lower-case hexadecimal digits"));
    }
    if artifact.sources.is_empty() {
        return Err(format!("artifact {name}: it has no source"));
    }
    for source in &artifact.sources {
        let good = source.strip_prefix("file://").is_some_and(|path| path.starts_with('/') && !path.contains("/../"))
            || source.starts_with("https://")
            || source.starts_with("http://");
        if !good {
            return Err(format!("artifact {name}: source {source:?} is none of file:///…, https://…, http://…"));
        }
    }
    Ok(())
}

/// Whether this is the name of a unit file.
pub fn unit_name(name: &str) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    let good = |b: u8| b.is_ascii_alphanumeric() || b":_.-".contains(&b);
    (1..=200).contains(&stem.len()) && !stem.starts_with(['.', '-']) && stem.bytes().all(good) && UNIT_KINDS.contains(&kind)
}

fn units(plan: &MachinePlan) -> Result<(), String> {
    unique("unit", plan.units.iter().map(|unit| unit.name.as_str()))?;
    let files: BTreeSet<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    let artifacts: BTreeSet<&str> = plan.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    for unit in &plan.units {
        let name = &unit.name;
        if !unit_name(name) {
            return Err(format!("unit {name:?}: a name is letters, digits and ':_.-' and ends in one of .{}", UNIT_KINDS.join(", .")));
        }
        if name == AGENT_UNIT || ["systemd-", "dbus"].iter().any(|prefix| name.starts_with(prefix)) {
            return Err(format!("unit {name}: this one belongs to the machine"));
        }
        if unit.content.len() > 256 * 1024 || unit.content.contains('\0') {
            return Err(format!("unit {name}: its text is longer than 256 KiB or not text"));
        }
        if let Some(file) = unit.files.iter().find(|file| !files.contains(file.as_str())) {
            return Err(format!("unit {name}: its file {file} is not in the plan"));
        }
        if let Some(artifact) = unit.artifacts.iter().find(|artifact| !artifacts.contains(artifact.as_str())) {
            return Err(format!("unit {name}: its artifact {artifact} is not in the plan"));
        }
    }
    Ok(())
}

fn probes(plan: &MachinePlan) -> Result<(), String> {
    unique("probe", plan.probes.iter().map(|probe| probe.name.as_str()))?;
    for probe in &plan.probes {
        let name = &probe.name;
        if !plan.units.iter().any(|unit| unit.name == probe.unit) {
            return Err(format!("probe {name}: its unit {} is not in the plan", probe.unit));
        }
        match &probe.kind {
            ProbeKind::Active => {}
            ProbeKind::Socket { path } if path.starts_with('/') => {}
            ProbeKind::Socket { path } => return Err(format!("probe {name}: {path:?} is not an absolute path")),
            ProbeKind::Http { url } => crate::http::Target::parse(url).map(|_| ()).map_err(|e| format!("probe {name}: {e}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use slipway_model::{Directory, File, Gate, Probe, Unit, UnitState, User};

    fn good() -> MachinePlan {
        MachinePlan {
            users: vec![User { name: "etcd".into(), id: 2379 }],
            directories: vec![Directory { path: "/var/lib/etcd".into(), mode: 0o700, owner: "etcd".into() }],
            files: vec![File { path: "/etc/kubernetes/ca.crt".into(), mode: 0o644, owner: "root".into(), content: "x".into() }],
            artifacts: vec![ArtifactRef { name: "etcd".into(), sha256: "ab".repeat(32), size: 1, sources: vec!["file:///s/etcd".into()] }],
            units: vec![Unit {
                name: "etcd.service".into(),
                content: "[Service]\n".into(),
                state: UnitState::Running,
                files: vec!["/etc/kubernetes/ca.crt".into()],
                artifacts: vec!["etcd".into()],
            }],
            probes: vec![Probe {
                name: "etcd".into(),
                unit: "etcd.service".into(),
                kind: ProbeKind::Http { url: "http://127.0.0.1:2381/readyz".into() },
            }],
            gate: Some(Gate { port: 7444, units: vec!["etcd.service".into()] }),
        }
    }

    #[test]
    fn a_good_plan_is_taken() {
        check(&good()).unwrap();
        check(&MachinePlan::default()).unwrap();
    }

    #[test]
    fn each_mistake_is_named() {
        type Mistake = (&'static str, fn(&mut MachinePlan));
        let mistakes: &[Mistake] = &[
            ("'..'", |p| p.files[0].path = "/etc/kubernetes/../passwd".into()),
            ("absolute", |p| p.files[0].path = "etc/x".into()),
            ("absolute", |p| p.directories[0].path = "/var/lib/".into()),
            ("allowed are", |p| p.files[0].path = "/usr/bin/sh".into()),
            ("/etc/passwd", |p| p.files[0].path = "/etc/passwd".into()),
            ("/etc/slipway", |p| p.files[0].path = "/etc/slipway/identity.json".into()),
            ("/var/lib/slipway", |p| p.directories[0].path = "/var/lib/slipway/agent".into()),
            ("set-uid", |p| p.files[0].mode = 0o4755),
            ("owner", |p| p.files[0].owner = "nobody".into()),
            ("twice", |p| p.files.push(p.files[0].clone())),
            ("both a file", |p| p.directories.push(Directory { path: p.files[0].path.clone(), mode: 0o755, owner: "root".into() })),
            ("not root", |p| p.users[0].name = "root".into()),
            ("not within", |p| p.users[0].id = 0),
            ("sha256", |p| p.artifacts[0].sha256 = "AB".repeat(32)),
            ("no source", |p| p.artifacts[0].sources.clear()),
            ("none of", |p| p.artifacts[0].sources = vec!["ftp://x/y".into()]),
            ("slipway-agent", |p| p.artifacts[0].name = "slipway-agent".into()),
            ("name is", |p| p.units[0].name = "../etcd.service".into()),
            ("name is", |p| p.units[0].name = "etcd".into()),
            ("belongs to the machine", |p| p.units[0].name = AGENT_UNIT.into()),
            ("not in the plan", |p| p.units[0].files.push("/etc/other".into())),
            ("not in the plan", |p| p.units[0].artifacts.push("other".into())),
            ("not in the plan", |p| p.probes[0].unit = "other.service".into()),
            ("not in the plan", |p| p.gate.as_mut().unwrap().units.push("other.service".into())),
            ("the agent's own", |p| p.gate.as_mut().unwrap().port = 7443),
            ("probe etcd", |p| p.probes[0].kind = ProbeKind::Http { url: "gopher://x".into() }),
        ];
        for (words, make) in mistakes {
            let mut plan = good();
            make(&mut plan);
            let error = check(&plan).unwrap_err();
            assert!(error.contains(words), "{error:?} does not say {words:?}");
        }
    }
}
