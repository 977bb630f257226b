//! What the binaries share, and the only place that looks at the process around them.
//!
//! Libraries take plain values. [`process`] reads a binary's configuration ([`config::Layers`]), sets up logs and metrics
//! ([`telemetry`]), installs the TLS provider ([`tls`]) and runs its work until it ends or a signal comes
//! ([`signals::run`]); [`exit::main_result`] turns the outcome into an exit code.

pub mod archive;
pub mod config;
pub mod environment;
pub mod exit;
pub mod health;
pub mod identity;
pub mod nearest;
pub mod oidc;
pub mod openstack;
pub mod process;
pub mod signals;
pub mod store;
pub mod telemetry;
pub mod tls;
