//! How agents are reached: over the network, or, in tests, in memory.

use crate::etcd::{Etcd, EtcdError, EtcdIdentity, GrpcEtcd};
use async_trait::async_trait;
use futures::stream::BoxStream;
use secrecy::SecretString;
use slipway_agent_api::{AgentClient, AgentError, OperatorIdentity, v1};
use slipway_model::{ArtifactRef, MachineName, MachinePlan, PlanDigest};
use std::net::SocketAddr;
use std::sync::Arc;

/// How long one knock at a booting machine waits for its answer.
const KNOCK: std::time::Duration = std::time::Duration::from_millis(300);

/// Signs a certificate request: certificate and authority, both PEM, or why not.
pub type SignCertificate<'a> = &'a (dyn Fn(&str) -> Result<(String, String), String> + Send + Sync);

/// Ways to agents.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Whether an unclaimed agent answers, and who it says it is.
    async fn greet(&self, address: SocketAddr) -> Result<v1::Info, AgentError>;

    /// Both halves of the claim. Safe to repeat until the first call over mTLS.
    async fn claim(
        &self,
        address: SocketAddr,
        token: &SecretString,
        machine_uid: &str,
        sign: SignCertificate<'_>,
    ) -> Result<(), AgentError>;

    /// A connection to a claimed agent.
    async fn connect(&self, address: SocketAddr, machine_uid: &str, identity: &OperatorIdentity) -> Result<Arc<dyn Agent>, AgentError>;
}

/// A connection to a claimed agent.
#[async_trait]
pub trait Agent: Send + Sync {
    /// Who it is. The first such call burns the token.
    async fn get_info(&self) -> Result<v1::Info, AgentError>;
    /// Replaces the machine's desired state.
    async fn apply_plan(&self, expected: Option<&PlanDigest>, epoch: u64, plan: &MachinePlan) -> Result<PlanDigest, AgentError>;
    /// Its state now and after each change.
    async fn watch(&self) -> Result<BoxStream<'static, Result<v1::MachineState, AgentError>>, AgentError>;
    /// A certificate request for the agent's key.
    async fn renewal_request(&self, epoch: u64) -> Result<String, AgentError>;
    /// Installs a renewed certificate and the authority to trust from now on.
    async fn install_renewed(&self, epoch: u64, certificate: &str, authority: &str) -> Result<(), AgentError>;
    /// Tries another build of itself in place of the one of this digest.
    async fn update(&self, epoch: u64, expected: &str, build: &ArtifactRef) -> Result<(), AgentError>;
    /// Stops everything and forgets.
    async fn reset(&self, epoch: u64, machine_name: &str) -> Result<(), AgentError>;
    /// A verified snapshot of its etcd member: data, and in the last message what it was.
    async fn etcd_snapshot(&self, epoch: u64) -> Result<BoxStream<'static, Result<v1::EtcdSnapshotPiece, AgentError>>, AgentError>;
    /// The way to a machine's etcd member at `target` (address:port): this machine's own, or one beside it.
    async fn etcd(&self, target: &str, machine: &MachineName, identity: &EtcdIdentity) -> Result<Arc<dyn Etcd>, EtcdError>;
}

/// Over TCP, TLS and gRPC.
#[derive(Debug, Default, Clone, Copy)]
pub struct GrpcAgents;

#[async_trait]
impl Agents for GrpcAgents {
    async fn greet(&self, address: SocketAddr) -> Result<v1::Info, AgentError> {
        // A machine that is being made swallows packets: a fresh try finds it sooner than TCP's own repetitions, which come after 1, 3 and 7 s.
        let silent = |why: String| AgentError::Unreachable { peer: address.to_string(), why };
        let stream = tokio::time::timeout(KNOCK, tokio::net::TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| silent(format!("no connection within {KNOCK:?}")))?.map_err(|e| silent(e.to_string()))?;
        AgentClient::connect_unclaimed_over(stream, &address.to_string()).await?.get_info().await
    }

    async fn claim(
        &self,
        address: SocketAddr,
        token: &SecretString,
        machine_uid: &str,
        sign: SignCertificate<'_>,
    ) -> Result<(), AgentError> {
        let agent = AgentClient::connect_unclaimed(address).await?;
        let request = agent.claim(token, machine_uid).await?;
        let (certificate, authority) = sign(&request).map_err(AgentError::Own)?;
        agent.install(token, machine_uid, &certificate, &authority).await
    }

    async fn connect(&self, address: SocketAddr, machine_uid: &str, identity: &OperatorIdentity) -> Result<Arc<dyn Agent>, AgentError> {
        Ok(Arc::new(AgentClient::connect(address, machine_uid, identity).await?))
    }
}

#[async_trait]
impl Agent for AgentClient {
    async fn get_info(&self) -> Result<v1::Info, AgentError> {
        self.get_info().await
    }

    async fn apply_plan(&self, expected: Option<&PlanDigest>, epoch: u64, plan: &MachinePlan) -> Result<PlanDigest, AgentError> {
        self.apply_plan(expected, epoch, plan).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<v1::MachineState, AgentError>>, AgentError> {
        self.watch().await
    }

    async fn renewal_request(&self, epoch: u64) -> Result<String, AgentError> {
        self.renewal_request(epoch).await
    }

    async fn install_renewed(&self, epoch: u64, certificate: &str, authority: &str) -> Result<(), AgentError> {
        self.install_renewed(epoch, certificate, authority).await
    }

    async fn update(&self, epoch: u64, expected: &str, build: &ArtifactRef) -> Result<(), AgentError> {
        self.update(epoch, expected, build).await
    }

    async fn reset(&self, epoch: u64, machine_name: &str) -> Result<(), AgentError> {
        self.reset(epoch, machine_name).await
    }

    async fn etcd_snapshot(&self, epoch: u64) -> Result<BoxStream<'static, Result<v1::EtcdSnapshotPiece, AgentError>>, AgentError> {
        self.etcd_snapshot(epoch).await
    }

    async fn etcd(&self, target: &str, machine: &MachineName, identity: &EtcdIdentity) -> Result<Arc<dyn Etcd>, EtcdError> {
        let silent = |e: AgentError| EtcdError::Silent { machine: machine.clone(), why: format!("through an agent: {e}") };
        let stream = self.tunnel(target).await.map_err(silent)?;
        Ok(Arc::new(GrpcEtcd::connect(stream, machine, identity).await?))
    }
}
