//! What is promised in docs/rfd/0010-certificates.md, shown with whole handshakes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod authority;
mod handshake;
mod join;
mod keep;
mod parse;
mod reload;
mod renew;
mod revocation;
mod rotation;
mod wire;
