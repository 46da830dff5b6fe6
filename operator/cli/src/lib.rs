//! `slipway`: what people type. Thin over the operator's objects; the embedded management plane of `up` and `down` is the only thing of its own.
//!
//! ```text
//! args ──► commands/* ──► Outcome (exit code)
//!             │  ├─ connect   the management cluster
//!             │  ├─ observe ──► view ──► tree, timeline     objects in, lines out
//!             │  └─ plane/*   the local cloud and the management plane on it
//!             └─ output       text, JSON, YAML
//! ```

pub mod args;
mod ask;
mod check;
mod commands;
mod connect;
mod docs;
mod duration;
mod file;
mod kubeconfig;
mod observe;
mod outcome;
mod output;
mod place;
mod plane;
mod screen;
mod timeline;
mod view;

pub use commands::run;
pub use outcome::Outcome;
