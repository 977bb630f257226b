#![doc = include_str!("../README.md")]

mod abilities;
mod chain;
mod config;
mod console;
mod domain;
mod errors;
mod facts;
mod hub;
mod hypervisor;
mod img;
mod kept;
mod lane;
mod lifecycle;
mod live;
mod r#loop;
mod monitor;
mod moving;
mod order;
mod raw;
mod state;
mod threads;
mod xml;

pub use config::{DaemonUser, LibvirtConfig, Moving, Timeouts};
pub use hypervisor::LibvirtHypervisor;
