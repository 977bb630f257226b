#![doc = include_str!("../README.md")]

mod command;
mod config;
mod dhcp;
mod directory;
mod links;
mod metadata;
mod names;
mod namespace;
mod network;
mod records;
mod rules;

pub use config::BridgeConfig;
pub use network::BridgeNetwork;
