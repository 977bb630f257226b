//! Identity, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod audit;
mod bearer;
mod change;
mod directory;
mod oidc;
mod password;
mod policy;
mod quota;
mod record;
mod secret;
mod service;
mod totp;
mod vault;
mod world;
