//! What effects of one pass need of what was observed: taken once, shared by all of them, never changed.

use super::EffectError;
use super::book::Page;
use crate::agents::Agent;
use crate::artifacts::Program;
use crate::context::{ClusterRef, Context};
use crate::etcd::EtcdDoor;
use crate::execute::secrets::{self, Data};
use crate::keys::Keys;
use crate::render::{self, Site, Subject};
use crate::workload::WorkloadDoor;
use slipway_cloud_api::ClusterKey;
use slipway_components as components;
use slipway_model::{ClusterSpec, MachineName, MachinePlan, MachineVersions, PlanDigest, PoolName};
use slipway_pki::MachineLeaves;
use slipway_plan::{Endpoint, JoinRecord, MachineRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A pass's world.
pub struct Scene {
    /// The Cluster object.
    pub cluster: ClusterRef,
    /// Its UID and name.
    pub key: ClusterKey,
    /// What is wanted.
    pub spec: Arc<ClusterSpec>,
    /// Its authorities, once made.
    pub keys: Option<Arc<Keys>>,
    /// Where its API is reached, once recorded.
    pub endpoint: Option<Endpoint>,
    /// Founders with their addresses, as recorded or, before that, as they are: all of them, or none.
    pub founders: BTreeMap<MachineName, Ipv4Addr>,
    /// Its machines.
    pub machines: BTreeMap<MachineName, SceneMachine>,
    /// Open connections to claimed agents, by the machine's UID.
    pub connections: BTreeMap<String, Arc<dyn Agent>>,
    /// The way into its API.
    pub workload: Option<WorkloadDoor>,
    /// The way to its etcd, from the founding on.
    pub etcd: Option<EtcdDoor>,
    /// What each machine's agent had accepted, of those that could be heard.
    pub accepted: BTreeMap<MachineName, PlanDigest>,
    /// Machines that ran exactly what their record said.
    pub settled: BTreeSet<MachineName>,
    /// The Cluster's record as it was last read or written; `None`: to be read anew.
    pub book: Mutex<Option<Page>>,
}

/// A recorded machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SceneMachine {
    /// `metadata.uid`.
    pub uid: String,
    /// Its pool.
    pub pool: PoolName,
    /// What it is told to run.
    pub versions: MachineVersions,
    /// How its etcd member joins, if it is no founder's.
    pub join: Option<JoinRecord>,
    /// Whether it is on its way out of the control plane.
    pub retiring: bool,
    /// Builds of our own programs that it was told to run.
    pub programs: Vec<Program>,
    /// Its instance's id and address, once recorded.
    pub instance: Option<(String, Ipv4Addr)>,
    /// `spec.providerID` of its Node.
    pub provider_id: String,
}

impl Scene {
    /// The cluster's keys.
    pub fn keys(&self) -> Result<&Arc<Keys>, EffectError> {
        self.keys.as_ref().ok_or_else(|| EffectError::Precondition(format!("the authorities of {} are not readable", self.key.name)))
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> Result<&Endpoint, EffectError> {
        self.endpoint.as_ref().ok_or_else(|| EffectError::Precondition(format!("{} has no endpoint yet", self.key.name)))
    }

    /// The way into its API.
    pub fn workload(&self) -> Result<&WorkloadDoor, EffectError> {
        self.workload.as_ref().ok_or_else(|| EffectError::Precondition(format!("the API of {} is not reachable yet", self.key.name)))
    }

    /// The way to its etcd.
    pub fn etcd(&self) -> Result<&EtcdDoor, EffectError> {
        self.etcd
            .as_ref()
            .ok_or_else(|| EffectError::Precondition(format!("etcd of {} is not founded yet, or not to be asked any more", self.key.name)))
    }

    /// Whether a machine, as it is recorded now, is known to run exactly that.
    pub fn is_settled(&self, machine: &MachineRecord) -> bool {
        let same =
            |known: &SceneMachine| known.uid == machine.uid && known.versions == machine.versions && known.retiring == machine.retiring;
        self.settled.contains(&machine.name) && self.machines.get(&machine.name).is_some_and(same)
    }

    /// A machine, by name and UID.
    pub fn machine(&self, name: &MachineName, uid: &str) -> Result<&SceneMachine, EffectError> {
        let found = self.machines.get(name).filter(|m| m.uid == uid);
        found.ok_or_else(|| EffectError::Precondition(format!("{name} is not the machine {uid} any more")))
    }

    /// A machine's address.
    pub fn address(&self, name: &MachineName, uid: &str) -> Result<Ipv4Addr, EffectError> {
        let instance = self.machine(name, uid)?.instance.as_ref();
        instance.map(|(_, address)| *address).ok_or_else(|| EffectError::Precondition(format!("{name} has no address yet")))
    }

    /// What a machine shall be, given its Secret's data.
    pub fn render(&self, context: &Context, name: &MachineName, data: &Data) -> Result<MachinePlan, EffectError> {
        let (keys, endpoint) = (self.keys()?, self.endpoint()?);
        let machine = self.machines.get(name).ok_or_else(|| EffectError::Precondition(format!("{name} has no record any more")))?;
        let address = self.address(name, &machine.uid)?;
        let facts = render::machine_facts(&self.spec, &endpoint.host, name, &machine.pool, address);
        let leaves = MachineLeaves::from_secret(data, &facts).map_err(EffectError::own)?;
        let site = Site {
            spec: &self.spec,
            uid: &self.key.uid,
            endpoint: components::Endpoint { host: endpoint.host.clone(), port: endpoint.port },
            founders: &self.founders,
            profile: &context.profile,
            index: &context.artifacts,
        };
        let subject = Subject {
            name,
            pool: &machine.pool,
            versions: machine.versions,
            join: machine.join.as_ref(),
            retiring: machine.retiring,
            programs: &machine.programs,
            address,
            provider_id: &machine.provider_id,
        };
        render::machine_plan(&site, &subject, &keys.pki, &leaves, secrets::take_cloud(data).as_ref()).map_err(EffectError::own)
    }
}
