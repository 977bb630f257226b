//! Which of the hosts that can take a server is the best.

use std::fmt::Debug;

use crate::{HostView, Request};

/// One preference.
pub trait Weigher: Send + Sync + Debug + 'static {
    /// Its name: stable, lower-case, such as `free_memory`.
    fn name(&self) -> &'static str;
    /// How good `host` is for `request`: 0 (bad) to 1 (good). What is no number counts as 0.
    fn weigh(&self, request: &Request, host: &HostView) -> f64;
}

/// The weighers that come with the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltinWeigher {
    /// Spread: the share of memory that stays free with the server.
    FreeMemory,
    /// Pack: the share of memory that is used with the server.
    UsedMemory,
    /// Spread: the share of virtual CPUs that stays free with the server.
    FreeCpu,
}

/// The share of `all` that is left of `free` when `need` is taken.
fn share(free: u64, need: u64, all: u64) -> f64 {
    if all == 0 {
        0.0
    } else {
        free.saturating_sub(need) as f64 / all as f64
    }
}

impl Weigher for BuiltinWeigher {
    fn name(&self) -> &'static str {
        match self {
            Self::FreeMemory => "free_memory",
            Self::UsedMemory => "used_memory",
            Self::FreeCpu => "free_cpu",
        }
    }

    fn weigh(&self, request: &Request, host: &HostView) -> f64 {
        let (free, all, need) = (host.free(), host.effective(), request.resources);
        match self {
            Self::FreeMemory => share(free.memory_mib, need.memory_mib, all.memory_mib),
            Self::UsedMemory => 1.0 - share(free.memory_mib, need.memory_mib, all.memory_mib),
            Self::FreeCpu => share(free.vcpus.into(), need.vcpus.into(), all.vcpus.into()),
        }
    }
}
