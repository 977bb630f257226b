//! The QMP client against a fake monitor, and the hypervisor against real QEMU.

mod adoption;
mod client;
mod domain;
mod guest;
mod host;
mod linux;
mod logs;
