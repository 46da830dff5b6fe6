//! Tests of the definitions: against kube's own CEL engine, and against a real API server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod admission;
mod cases;
mod plane;
mod rules;
