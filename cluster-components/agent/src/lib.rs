//! The agent on every machine. It writes files and units, checks programs by digest before they run, tells systemd what to run, and tells the
//! operator how that goes. systemd supervises.
//!
//! ```text
//!  operator ══TLS══► server ─► authorisation ─► service ──ApplyPlan──► accepted plan (durable) ──► apply ──► files, artifacts ─► systemd
//!                                                  └────Watch◄── board ◄── units (D-Bus signals), probes, apply
//! ```
//! It survives its own end at any point: what it was told is on disk before it is acknowledged, what it started is systemd's.

mod accepted;
mod apply;
mod artifacts;
mod authorise;
mod board;
mod check;
mod credentials;
mod fingerprint;
mod gate;
pub mod http;
mod identity;
mod ledger;
mod logs;
mod notify;
mod place;
mod probes;
pub mod release_lease;
mod reset;
mod root;
mod run;
mod server;
mod service;
mod snapshot;
mod systemd;
mod tunnel;
mod units;
mod update;
pub mod wait_for;

pub use run::run;
pub use update::trial;
