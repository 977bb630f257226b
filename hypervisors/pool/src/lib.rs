#![doc = include_str!("../README.md")]

mod beneath;
mod cache;
mod folder;
mod locks;
mod overlay;
mod pool;
mod qcow2;
mod tool;
mod volumes;
mod writing;

pub use cache::CacheLimit;
pub use folder::SharedDisks;
pub use pool::{DirPool, Owner, PoolConfig};
