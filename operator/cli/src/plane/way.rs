//! The way to the management machine's agent: for its units' journals, and through it to the operator.

use super::identity::PlaneIdentity;
use super::{daemon, key};
use crate::outcome::refused;
use crate::place::Place;
use anyhow::Result;
use jiff::Timestamp;
use slipway_agent_api::{AGENT_PORT, AgentClient, AgentError, OperatorIdentity};
use slipway_cloud_api::Cloud;
use std::net::{Ipv4Addr, SocketAddr};

/// A machine's agent: where it is, who it is, and who asks.
pub struct Way {
    /// Its address.
    pub address: Ipv4Addr,
    /// The machine's UID.
    pub uid: String,
    /// What the agent believes.
    pub identity: OperatorIdentity,
}

impl Way {
    /// To the management machine of the local cloud.
    pub async fn to_management(place: &Place) -> Result<Self> {
        if !PlaneIdentity::exists(place) {
            return Err(refused(format!(
                "there is no management plane in {}: `slipway up` starts one, --state names another place",
                place.root().display()
            )));
        }
        let now = Timestamp::now();
        let identity = PlaneIdentity::ensure(place, now)?;
        let cloud =
            daemon::find(place).await.ok_or_else(|| refused("the local cloud's daemon does not answer: `slipway up` starts it again"))?;
        let inventory = cloud.inventory(&key()?).await?;
        let instance = inventory.instances.into_iter().find(|i| i.machine_uid == identity.machine_uid);
        let instance = instance.ok_or_else(|| refused("the management machine has not been made yet: `slipway up` makes it"))?;
        Ok(Self { address: instance.address, uid: identity.machine_uid.clone(), identity: identity.agent_identity(now)? })
    }

    /// Connects.
    pub async fn open(&self) -> Result<AgentClient, AgentError> {
        AgentClient::connect(SocketAddr::from((self.address, AGENT_PORT)), &self.uid, &self.identity).await
    }
}
