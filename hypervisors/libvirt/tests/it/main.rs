//! The hypervisor against real session daemons: what they and QEMU do when they are killed, frozen or gone.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod daemon;
mod domain;
#[path = "../../../qmp/tests/it/guest.rs"]
mod guest;
mod host;
mod linux;
mod migration;
