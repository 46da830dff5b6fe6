//! What is rendered for whole clusters: a new release changes it on purpose or not at all, and each part of a machine restarts alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clusters;
mod golden;
mod parts;
