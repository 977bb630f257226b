//! Identity, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod audit;
mod bearer;
mod password;
mod policy;
mod quota;
mod secret;
mod totp;
mod vault;
