//! Where every binary and image archive of a cluster comes from, and the proof that it is the right one.
//!
//! ```text
//!              catalogue (data: versions, digests, recipes)
//!                  │
//! ensure ──► store ──► mirror ──► official release ──► build from Go modules ──► store
//!            found and            digest pinned here   go.mod + go.sum committed
//!            unaltered?                                under gomod/
//! ```
//! [`ensure`] is what everything else calls: it brings a Kubernetes version with all that belongs to it into a [`Store`]
//! addressed by sha256, and returns what is there. Nothing half-made, truncated or altered is ever returned; several
//! processes may call it at once, and one killed half-way is carried on from by the next.
//!
//! All of it is blocking: from async code call it through `tokio::task::spawn_blocking`.

pub mod bundle;
pub mod catalogue;
pub mod cli;
mod ensure;
mod gomod;
mod oci;
mod progress;
mod recipe;
mod release;
pub mod store;
mod toolchain;

pub use catalogue::{Component, VersionSet, image_reference};
pub use ensure::{EnsureOptions, Error, SourceChoice, ensure, ensure_component};
pub use progress::{Progress, Silent, Stderr};
pub use store::{Artifact, Store, StoreError};
pub use toolchain::BuildError;
