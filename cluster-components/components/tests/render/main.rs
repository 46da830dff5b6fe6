//! What is rendered: as reviewed, and sound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fixtures;
mod flags;
mod golden;
mod pki;
mod rules;
