//! A cluster as people look at it, and the tree it is drawn as. Pure: objects become a [`ClusterView`] in `observe.rs`, lines come out here.
//!
//! ```text
//! demo  v1.36.4  https://198.18.1.2:6443  waiting for 2 of 5 machines (6.1 s)
//! ├─ cp 3/3
//! │  ├─ demo-cp-0  198.18.1.10  ready after 5.4 s
//! │  └─ …
//! └─ workers 1/2
//!    └─ demo-workers-0  198.18.1.20  waiting for kubelet: /readyz of the load balancer does not answer (2.0 s)
//! ```

use jiff::Timestamp;
use serde::Serialize;
use slipway_crds::Decision;

/// A cluster with everything below it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Kubernetes version.
    pub version: String,
    /// Where its API is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether `conditions` speak of the newest spec.
    pub current: bool,
    /// Its conditions.
    pub conditions: Vec<ConditionView>,
    /// Control plane first.
    pub pools: Vec<PoolView>,
    /// Why things were done, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
}

/// A condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// `Ready`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// A pool; the control plane is one.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolView {
    /// `cp`, or as the user calls it.
    pub name: String,
    /// How many there shall be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<i64>,
    /// Its machines, by name.
    pub machines: Vec<MachineView>,
}

/// A machine.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineView {
    /// Its name.
    pub name: String,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it runs: its kubelet's version, and the API server's where that is another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What its etcd member is, in lower case, where it has one: leader, follower, learner, silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd: Option<String>,
    /// Which build its agent is, shortened, and what it tries or has refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Its Node is Ready and every unit does its work.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When its record was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// Since when it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Timestamp>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitView>,
    /// What it went through.
    pub stages: Vec<StageView>,
    /// Its units.
    pub units: Vec<UnitView>,
}

/// What something waits for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitView {
    /// What for, and the last error.
    pub what: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Something that was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageView {
    /// What.
    pub name: String,
    /// When.
    pub at: Timestamp,
}

/// A systemd unit of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitView {
    /// Without `.service`.
    pub name: String,
    /// systemd's word: `active`, `activating`, …
    pub state: String,
    /// Whether its probe is content, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// How often systemd restarted it.
    pub restarts: i64,
    /// Since when it is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl ClusterView {
    /// The condition of that type.
    pub fn condition(&self, kind: &str) -> Option<&ConditionView> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Ready, and said of the newest spec.
    pub fn is_ready(&self) -> bool {
        self.current && self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// Whether any pool beside the control plane has machines.
    pub fn has_workers(&self) -> bool {
        self.pools.iter().any(|p| p.name != "cp" && !p.machines.is_empty())
    }

    /// Every machine.
    pub fn machines(&self) -> impl Iterator<Item = &MachineView> {
        self.pools.iter().flat_map(|p| &p.machines)
    }

    /// [`ClusterView::headline`] without what is said of single machines, for where those have lines of their own.
    pub fn summary(&self) -> String {
        let headline = self.headline();
        let ends =
            self.machines().filter_map(|m| headline.find(&format!("{}:", m.name))).chain(headline.find("waiting for the load balancer"));
        match ends.min() {
            Some(end) if end > 0 => headline.get(..end).unwrap_or_default().trim_end_matches([' ', ':', ';', ',']).to_owned(),
            _ => headline,
        }
    }

    /// What it waits for, in a line: its Ready condition's message.
    pub fn headline(&self) -> String {
        if self.deleting {
            return match self.condition("Ready") {
                Some(c) if !c.message.is_empty() => format!("being deleted: {}", c.message),
                _ => "being deleted".to_owned(),
            };
        }
        match self.condition("Ready") {
            _ if self.is_ready() => "ready".to_owned(),
            Some(c) if !c.message.is_empty() => c.message.clone(),
            Some(c) if !c.reason.is_empty() => c.reason.clone(),
            _ => "waiting for the operator to look at it".to_owned(),
        }
    }
}

impl MachineView {
    /// Its state in a line, without times: what is compared to tell a change.
    pub fn state(&self) -> String {
        match &self.wait {
            _ if self.deleting => match &self.wait {
                Some(wait) => format!("being deleted: {}", wait.what),
                None => "being deleted".to_owned(),
            },
            Some(wait) if !self.ready => wait.what.clone(),
            _ if self.ready => "ready".to_owned(),
            _ => "waiting for the operator to look at it".to_owned(),
        }
    }
}

/// How long between two moments, as `3.2 s`; ages beyond two minutes as kubectl shows them.
pub fn span(from: Timestamp, to: Timestamp) -> String {
    let ms = to.as_millisecond().saturating_sub(from.as_millisecond()).max(0);
    if ms >= 120_000 { crate::output::age(ms / 1000) } else { format!("{}.{} s", ms / 1000, ms % 1000 / 100) }
}

/// How much a tree shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Cluster, pools, machines: progress.
    Machines,
    /// Units and conditions, too: describe.
    Units,
}

/// The tree, a line each.
pub fn tree(cluster: &ClusterView, now: Timestamp, detail: Detail) -> Vec<String> {
    let mut head = vec![cluster.name.clone(), cluster.version.clone()];
    head.extend(cluster.endpoint.clone());
    let since = cluster
        .condition("Ready")
        .and_then(|c| c.since)
        .filter(|_| !cluster.is_ready())
        .or(cluster.created.filter(|_| !cluster.is_ready()));
    head.push(with_time(cluster.summary(), since, now));
    let mut lines = vec![join(&head)];
    if detail == Detail::Units {
        let told = cluster.conditions.iter().filter(|c| c.kind != "Ready");
        lines.extend(told.map(|c| format!("│  {:<22} {:<8} {}", c.kind, c.status, reason(cluster, c, now))));
    }
    let last = cluster.pools.len().saturating_sub(1);
    let width = cluster.machines().map(|m| m.name.len()).max().unwrap_or(0);
    for (i, pool) in cluster.pools.iter().enumerate() {
        let (branch, stem) = if i == last { ("└─", "   ") } else { ("├─", "│  ") };
        let ready = pool.machines.iter().filter(|m| m.ready).count();
        let wanted = pool.wanted.map_or_else(|| pool.machines.len().to_string(), |n| n.to_string());
        lines.push(format!("{branch} {} {ready}/{wanted}", pool.name));
        machines(&mut lines, pool, stem, width, now, detail);
    }
    lines
}

fn machines(lines: &mut Vec<String>, pool: &PoolView, stem: &str, width: usize, now: Timestamp, detail: Detail) {
    let last = pool.machines.len().saturating_sub(1);
    for (i, machine) in pool.machines.iter().enumerate() {
        let (branch, below) = if i == last { ("└─", "   ") } else { ("├─", "│  ") };
        let state = if machine.ready && !machine.deleting {
            match (machine.created, machine.ready_since) {
                (Some(from), Some(to)) if detail == Detail::Machines => format!("ready after {}", span(from, to)),
                (_, Some(since)) => format!("ready for {}", span(since, now)),
                _ => "ready".to_owned(),
            }
        } else {
            with_time(machine.state(), machine.wait.as_ref().and_then(|w| w.since).or(machine.created), now)
        };
        // Progress has no room for what changes seldom.
        let more = if detail == Detail::Units { about(machine) } else { String::new() };
        let parts = [format!("{:<width$}", machine.name), machine.address.clone().unwrap_or_default(), more, state];
        lines.push(format!("{stem}{branch} {}", join(&parts)));
        if detail == Detail::Units {
            let name_width = machine.units.iter().map(|u| u.name.len()).max().unwrap_or(0);
            for (j, unit) in machine.units.iter().enumerate() {
                let branch = if j + 1 == machine.units.len() { "└─" } else { "├─" };
                lines.push(format!("{stem}{below}{branch} {:<name_width$}  {}", unit.name, unit_state(unit, now)));
            }
        }
    }
}

/// Versions, and the role in etcd.
fn about(machine: &MachineView) -> String {
    let role = machine.etcd.as_ref().map(|role| format!("etcd {role}")).unwrap_or_default();
    join(&[machine.version.clone(), role])
}

fn unit_state(unit: &UnitView, now: Timestamp) -> String {
    let mut state = unit.state.clone();
    match unit.healthy {
        Some(true) => state.push_str(", healthy"),
        Some(false) => state.push_str(", not healthy"),
        None => {}
    }
    if !unit.message.is_empty() {
        state = format!("{state}: {}", unit.message);
    }
    if unit.restarts > 0 {
        state = format!("{state}, restarted {}×", unit.restarts);
    }
    with_time(state, unit.since, now)
}

fn reason(cluster: &ClusterView, condition: &ConditionView, now: Timestamp) -> String {
    // What waits on machines stands at the machines.
    let first = cluster.machines().filter_map(|m| condition.message.find(&format!("{}:", m.name))).min();
    let message = first.and_then(|end| condition.message.get(..end)).unwrap_or(&condition.message).trim_end_matches([' ', ':', ';', ',']);
    let text = match (condition.reason.as_str(), message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    with_time(text, condition.since, now)
}

fn with_time(text: String, since: Option<Timestamp>, now: Timestamp) -> String {
    match since {
        Some(since) => format!("{text} ({})", span(since, now)),
        None => text,
    }
}

fn join(parts: &[String]) -> String {
    parts.iter().filter(|p| !p.is_empty()).cloned().collect::<Vec<_>>().join("  ")
}

/// What changed between two looks, a line each, without times: for output that is no terminal.
pub fn changes(before: Option<&ClusterView>, after: &ClusterView) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(before) = before {
        // A step tells itself; its reason is `slipway explain`'s.
        lines.extend(after.decisions.iter().filter(|d| !before.decisions.contains(d)).map(|d| format!("{}: {}", after.name, d.what)));
    }
    if before.is_none_or(|b| b.summary() != after.summary() || b.name != after.name) {
        lines.push(format!("{}: {}", after.name, after.summary()));
    }
    for machine in after.machines() {
        let was = before.and_then(|b| b.machines().find(|m| m.name == machine.name));
        // At the first look those that are ready are no news.
        let news = was.map_or(!machine.ready, |w| w.state() != machine.state());
        if news {
            lines.push(format!("{}: {}", machine.name, machine.state()));
        }
    }
    if let Some(before) = before {
        let gone = before.machines().filter(|b| !after.machines().any(|m| m.name == b.name));
        lines.extend(gone.map(|m| format!("{}: gone", m.name)));
    }
    lines
}

#[cfg(test)]
#[path = "view_tests.rs"]
pub(crate) mod tests;
