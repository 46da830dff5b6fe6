//! The way to a cluster's etcd: to every member on its own, through the agents' tunnels, so that neither API server nor load balancer stands in between.
//!
//! ```text
//! link ──► survey: every member's status, then the list of members from one that has a leader ──► the picture that passes read, and the bell
//!   ▲                                  │
//!   └── effects survey afresh, change, survey again          client: one member, TLS end to end over a tunnel
//! ```

mod client;
mod link;
mod survey;

pub use client::{EtcdIdentity, GrpcEtcd};
pub use link::{EtcdDoor, EtcdLink, Look, MemberHost, Pace};

use async_trait::async_trait;
use slipway_model::MachineName;
use slipway_plan::MemberId;

/// Port of etcd towards its clients.
pub const CLIENT_PORT: u16 = 2379;
/// Port of etcd towards its peers.
pub const PEER_PORT: u16 = 2380;

/// Why a call to a member failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// No answer: it may or may not have had its effect.
    #[error("etcd of {machine} does not answer: {why}")]
    Silent {
        /// Whose.
        machine: MachineName,
        /// What was seen.
        why: String,
    },
    /// It has no such member (any more).
    #[error("etcd of {machine} has no such member: {why}")]
    NoSuchMember {
        /// Whose.
        machine: MachineName,
        /// Its words.
        why: String,
    },
    /// It will not do that, now or ever.
    #[error("etcd of {machine} refuses: {why}")]
    Refused {
        /// Whose.
        machine: MachineName,
        /// Its words.
        why: String,
    },
    /// No member can be asked that knows a leader.
    #[error("no quorum of etcd answers: {0}")]
    NoQuorum(String),
    /// Keys that are not usable.
    #[error("the operator's certificate towards etcd: {0}")]
    Own(String),
}

/// A member as the list of members has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: MemberId,
    /// Its name; empty before it first started.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// It does not vote.
    pub learner: bool,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its id.
    pub id: MemberId,
    /// Whom it takes for the leader; `None`: it knows none.
    pub leader: Option<MemberId>,
    /// It does not vote.
    pub learner: bool,
    /// The term it is in: of two that disagree about the leader, the later one is right.
    pub term: u64,
    /// How far its log is committed.
    pub committed: u64,
    /// How much of that it has applied.
    pub applied: u64,
    /// `3.6.14`.
    pub version: String,
    /// Size of its database.
    pub db_bytes: u64,
    /// What it finds wrong, alarms among it: `memberID:1234 alarm:NOSPACE `.
    pub errors: Vec<String>,
}

/// One member of etcd.
#[async_trait]
pub trait Etcd: Send + Sync {
    /// What it says of itself. Answered by any member at any time.
    async fn report(&self) -> Result<Report, EtcdError>;
    /// All members, no older than this call. Voters of a quorum answer it.
    async fn members(&self) -> Result<Vec<Listed>, EtcdError>;
    /// Adds a learner, and gives its id.
    async fn add_learner(&self, peer_url: &str) -> Result<MemberId, EtcdError>;
    /// Gives a learner its vote.
    async fn promote(&self, member: MemberId) -> Result<(), EtcdError>;
    /// Takes a member out.
    async fn remove(&self, member: MemberId) -> Result<(), EtcdError>;
    /// Hands leadership over; asked of the leader.
    async fn move_leader(&self, to: MemberId) -> Result<(), EtcdError>;
}
