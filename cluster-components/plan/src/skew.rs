//! Version skew: which versions may meet. A pure function, asked before every change of versions: by the planner, and by the executor at its target.
//!
//! The rules are upstream's (<https://kubernetes.io/releases/version-skew-policy/>, <https://etcd.io/docs/v3.6/upgrades/>), all of them about minors:
//!
//! | component | rule |
//! |---|---|
//! | API servers | at most one minor apart |
//! | controller-manager, scheduler, cloud-controller-manager | never newer than an API server they reach, at most one minor older. They reach their own machine's only |
//! | kubelet and kube-proxy of a control plane | never newer than an API server they reach, at most three minors older. They reach their own machine's only |
//! | kubelet and kube-proxy of a worker | the same, and they reach every API server |
//! | etcd members | at most one minor apart |
//!
//! A machine that was told new versions and has not made them real yet may be running the old ones, the new ones, or some of each: it counts as both.
//! So does one that followed long ago and is silent now, because nothing tells the two apart. Others may have gone by what it followed to, so that it may
//! still be running the old ones is a reason to hold others back, and never one to tell it the old ones again.

use crate::MachineRecord;
use slipway_model::{ComponentVersion, KubernetesVersion, MachineName, MachineVersions};
use std::collections::BTreeSet;

/// How many minors a kubelet may be older than its API server.
pub(crate) const KUBELET_OLDER: u32 = 3;

/// What a machine may be running at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which.
    pub machine: MachineName,
    /// What it was told.
    pub versions: BTreeSet<MachineVersions>,
    /// What it was told before, where it is not known to have followed. Parts of all of them may be mixed.
    pub before: Option<MachineVersions>,
}

impl Running {
    /// Of a record. `settled`: the machine is known to run exactly what its record says.
    #[must_use]
    pub fn of(record: &MachineRecord, settled: bool) -> Self {
        let before = record.changed.as_ref().filter(|_| !settled).map(|c| c.from);
        Self { machine: record.name.clone(), versions: BTreeSet::from([record.versions]), before }
    }

    /// One that runs only this.
    #[must_use]
    pub fn only(machine: MachineName, versions: MachineVersions) -> Self {
        Self { machine, versions: BTreeSet::from([versions]), before: None }
    }

    /// Everything that it may be running.
    pub(crate) fn all(&self) -> impl Iterator<Item = &MachineVersions> {
        self.before.iter().chain(&self.versions)
    }

    fn kubelets(&self) -> impl Iterator<Item = KubernetesVersion> + '_ {
        self.all().map(|v| v.node.kubelet)
    }

    fn api_servers(&self) -> impl Iterator<Item = KubernetesVersion> + '_ {
        self.all().filter_map(|v| v.control_plane).map(|v| v.api_server)
    }

    fn controllers(&self) -> impl Iterator<Item = KubernetesVersion> + '_ {
        self.all().filter_map(|v| v.control_plane).map(|v| v.controllers)
    }

    fn etcds(&self) -> impl Iterator<Item = ComponentVersion> + '_ {
        self.all().filter_map(|v| v.control_plane).map(|v| v.etcd)
    }
}

/// Two components that would meet and must not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum SkewViolation {
    /// API servers too far apart.
    #[error("kube-apiserver {newest} of {newer} and {oldest} of {older} would be more than one minor apart")]
    ApiServers {
        /// Where the older one is.
        older: MachineName,
        /// Its version.
        oldest: KubernetesVersion,
        /// Where the newer one is.
        newer: MachineName,
        /// Its version.
        newest: KubernetesVersion,
    },
    /// Controllers newer than their API server, or too old for it.
    #[error(
        "the controllers {controllers} of {machine} would meet its kube-apiserver {api_server}: they may be the same minor or one older"
    )]
    Controllers {
        /// Where.
        machine: MachineName,
        /// Their version.
        controllers: KubernetesVersion,
        /// Its version.
        api_server: KubernetesVersion,
    },
    /// A kubelet newer than an API server it reaches, or too old for it.
    #[error(
        "the kubelet {kubelet} of {machine} would meet kube-apiserver {api_server} of {server}: it may be the same minor or up to three older"
    )]
    Kubelet {
        /// Where the kubelet is.
        machine: MachineName,
        /// Its version.
        kubelet: KubernetesVersion,
        /// Where the API server is.
        server: MachineName,
        /// Its version.
        api_server: KubernetesVersion,
    },
    /// etcd members too far apart.
    #[error("etcd {newest} of {newer} and {oldest} of {older} would be more than one minor apart")]
    Etcd {
        /// Where the older one is.
        older: MachineName,
        /// Its version.
        oldest: ComponentVersion,
        /// Where the newer one is.
        newer: MachineName,
        /// Its version.
        newest: ComponentVersion,
    },
}

/// Every rule that is broken by what may be running.
#[must_use]
pub fn skew_violations(machines: &[Running]) -> BTreeSet<SkewViolation> {
    let mut broken = BTreeSet::new();
    api_servers(machines, &mut broken);
    etcds(machines, &mut broken);
    for machine in machines {
        let own: Vec<_> = machine.api_servers().map(|v| (&machine.machine, v)).collect();
        controllers(machine, &own, &mut broken);
        if own.is_empty() {
            let every = machines.iter().flat_map(|m| m.api_servers().map(move |v| (&m.machine, v)));
            kubelets(machine, every, &mut broken);
        } else {
            kubelets(machine, own.into_iter(), &mut broken);
        }
    }
    broken
}

/// Whether a machine may be told `to`, or be made with it: no rule may be broken by that which is not broken already, whatever the machine itself may be
/// running besides what it was told last.
pub fn skew_allows(machines: &[Running], machine: &MachineName, to: MachineVersions) -> Result<(), SkewViolation> {
    let mut told = machines.to_vec();
    told.iter_mut().filter(|m| m.machine == *machine).for_each(|m| m.before = None);
    let already = skew_violations(&told);
    let mut after = machines.to_vec();
    match after.iter_mut().find(|m| m.machine == *machine) {
        Some(told) => {
            told.versions.insert(to);
        }
        None => after.push(Running::only(machine.clone(), to)),
    }
    let broken = skew_violations(&after).into_iter().find(|v| !already.contains(v));
    broken.map_or(Ok(()), Err)
}

/// Whether a machine may begin to run what it was told last: whoever told it looked before, but a call that was late may have come through since others
/// went back. `begun`: it runs something already, which is what it was told before.
pub fn skew_lets_follow(machines: &[Running], machine: &MachineName, begun: bool) -> Result<(), SkewViolation> {
    let with = |versions: Option<BTreeSet<MachineVersions>>| {
        let others = machines.iter().filter(|m| m.machine != *machine).cloned();
        let it = versions.map(|versions| Running { machine: machine.clone(), versions, before: None });
        skew_violations(&others.chain(it).collect::<Vec<_>>())
    };
    let Some(told) = machines.iter().find(|m| m.machine == *machine) else { return Ok(()) };
    // What was never changed is only rendered anew.
    let now = match (begun, told.before) {
        (true, None) => return Ok(()),
        (true, Some(before)) => Some(BTreeSet::from([before])),
        (false, _) => None,
    };
    let already = with(now);
    with(Some(told.versions.clone())).into_iter().find(|v| !already.contains(v)).map_or(Ok(()), Err)
}

fn api_servers(machines: &[Running], broken: &mut BTreeSet<SkewViolation>) {
    let all = || machines.iter().flat_map(|m| m.api_servers().map(move |v| (v, &m.machine)));
    // Each pair by itself: one that is broken already hides no other.
    for (oldest, older) in all() {
        for (newest, newer) in all().filter(|(newest, _)| newest.minor > oldest.minor.saturating_add(1)) {
            broken.insert(SkewViolation::ApiServers { older: older.clone(), oldest, newer: newer.clone(), newest });
        }
    }
}

fn etcds(machines: &[Running], broken: &mut BTreeSet<SkewViolation>) {
    let all = || machines.iter().flat_map(|m| m.etcds().map(move |v| (v, &m.machine)));
    for (oldest, older) in all() {
        let far = |newest: ComponentVersion| newest.major != oldest.major || newest.minor > oldest.minor.saturating_add(1);
        for (newest, newer) in all().filter(|(newest, _)| *newest > oldest && far(*newest)) {
            broken.insert(SkewViolation::Etcd { older: older.clone(), oldest, newer: newer.clone(), newest });
        }
    }
}

fn controllers(machine: &Running, own: &[(&MachineName, KubernetesVersion)], broken: &mut BTreeSet<SkewViolation>) {
    for controllers in machine.controllers() {
        for (_, api_server) in own {
            if controllers.minor > api_server.minor || controllers.minor.saturating_add(1) < api_server.minor {
                broken.insert(SkewViolation::Controllers { machine: machine.machine.clone(), controllers, api_server: *api_server });
            }
        }
    }
}

fn kubelets<'m>(
    machine: &Running,
    servers: impl Iterator<Item = (&'m MachineName, KubernetesVersion)>,
    broken: &mut BTreeSet<SkewViolation>,
) {
    let servers: Vec<_> = servers.collect();
    for kubelet in machine.kubelets() {
        for (server, api_server) in &servers {
            if kubelet.minor > api_server.minor || kubelet.minor.saturating_add(KUBELET_OLDER) < api_server.minor {
                broken.insert(SkewViolation::Kubelet {
                    machine: machine.machine.clone(),
                    kubelet,
                    server: (*server).clone(),
                    api_server: *api_server,
                });
            }
        }
    }
}
