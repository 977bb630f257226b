//! The QMP client against a fake monitor, and the hypervisor against real QEMU.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod abilities;
mod adoption;
mod client;
mod domain;
mod guest;
mod host;
mod linux;
mod logs;
mod memory;
mod migration;
mod pair;
mod proxy;
