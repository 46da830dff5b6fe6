//! The planner's proofs: tables of single decisions, forecasts, exhaustive exploration, and long random lives.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod agents;
mod ahead;
mod asked_snapshots;
mod build;
mod explore;
mod faults;
mod forecasts;
mod halfway;
mod harms;
mod healing;
mod invariants;
mod joining;
mod life;
mod maintenance;
mod membership;
mod readiness;
mod rollout;
mod skew;
mod stories;
mod tables;
mod time;
mod traces;
mod volumes;
mod votes;
