#![doc = include_str!("../README.md")]

mod abilities;
mod argv;
pub mod client;
mod command;
mod config;
mod core;
mod devices;
mod dir;
mod errors;
mod facts;
mod hypervisor;
mod img;
mod jobs;
mod lifecycle;
mod monitor;
mod process;
mod record;
mod vm;
pub mod wire;

use skyloom_qemu::{accel, qcow2, tasks};

pub use command::power_of;
pub use config::{MigrationConfig, QmpConfig, RunAs, Timeouts};
pub use hypervisor::QmpHypervisor;
pub use skyloom_qemu::accel::{Accelerator, AcceleratorKind, choose, probe};
