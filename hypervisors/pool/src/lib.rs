#![doc = include_str!("../README.md")]

mod beneath;
mod locks;
mod overlay;
mod pool;
mod qcow2;
mod tool;
mod volumes;
mod writing;

pub use pool::{DirPool, Owner, PoolConfig};
