//! What the binaries share, and the only place that looks at the process around them.
//!
//! Libraries take plain values. A binary reads its configuration here ([`config::Layers`]), sets up logs and metrics
//! ([`telemetry`]), installs the TLS provider ([`tls`]), runs its work until it ends or a signal comes
//! ([`signals::run`]) and turns the outcome into an exit code ([`exit::main_result`]).

pub mod config;
pub mod environment;
pub mod exit;
pub mod health;
pub mod nearest;
pub mod signals;
pub mod store;
pub mod telemetry;
pub mod tls;
