#![doc = include_str!("../README.md")]

mod accel;
mod argv;
pub mod client;
mod command;
mod config;
mod dir;
mod errors;
mod facts;
mod hypervisor;
mod lifecycle;
mod monitor;
mod process;
mod qcow2;
mod record;
mod tasks;
mod vm;
pub mod wire;

pub use accel::{Accelerator, AcceleratorKind, choose, probe};
pub use command::power_of;
pub use config::{QmpConfig, RunAs, Timeouts};
pub use hypervisor::QmpHypervisor;
