//! The operator against a management API, a cloud and agents that live in memory: the whole way from a Cluster to Ready and back to nothing, with crashes
//! after every effect and lost answers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::cast_possible_wrap)]

mod agents;
mod events;
mod fake_agents;
mod fake_api;
mod fake_cloud;
mod house;
mod json_patch_lite;
mod leader;
mod life;
mod plane;
mod real_etcd;
mod snapshots;
mod validating_etcd;
