//! What an operator wants: further conditions, and which of the hosts that fit is the best.

use std::fmt::Debug;
use std::sync::Arc;

use super::choose::View;
use super::demand::Demand;
use super::machine::Class;

/// A further condition on hosts.
pub trait HostFilter: Send + Sync + Debug + 'static {
    /// Its name: stable, lower-case, such as `burn_in`.
    fn name(&self) -> &'static str;
    /// Whether the host fulfils it.
    ///
    /// # Errors
    /// What is wrong, for operators.
    fn check(&self, demand: &Demand, host: &View<'_>) -> Result<(), String>;
}

/// A preference.
pub trait HostWeigher: Send + Sync + Debug + 'static {
    /// Its name: stable, lower-case, such as `free`.
    fn name(&self) -> &'static str;
    /// How good the host is: 0 (bad) to 1 (good). What is no number counts as 0.
    fn weigh(&self, demand: &Demand, host: &View<'_>) -> f64;
}

/// The weighers that come with the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weigh {
    /// Spread: the share of a class that stays free with the server.
    Free(Class),
    /// Pack: the share of a class that is used with the server.
    Used(Class),
    /// The groups' rules: few members where they should be apart, some where they should be together.
    Groups,
}

impl HostWeigher for Weigh {
    fn name(&self) -> &'static str {
        match self {
            Self::Free(_) => "free",
            Self::Used(_) => "used",
            Self::Groups => "groups",
        }
    }
    fn weigh(&self, demand: &Demand, host: &View<'_>) -> f64 {
        let free = |class: Class| match host.offered(class) {
            0 => 0.0,
            all => f64::from(host.free(class).saturating_sub(demand.amounts.of(class))) / f64::from(all),
        };
        match self {
            Self::Free(class) => free(*class),
            Self::Used(class) => 1.0 - free(*class),
            Self::Groups => host.group_fit(),
        }
    }
}

/// Filters and weighers, and how far to look.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(super) filters: Vec<Arc<dyn HostFilter>>,
    pub(super) weighers: Vec<(Arc<dyn HostWeigher>, f64)>,
    pub(super) candidates: usize,
    pub(super) window: usize,
}

impl Policy {
    /// No filter and no weigher but that of the groups: the first host that fits, from a start that depends on the server.
    #[must_use]
    pub fn any() -> Self {
        Self {
            filters: Vec::new(),
            weighers: Vec::new(),
            candidates: 16,
            window: 1_024,
        }
        .with_weigher(Weigh::Groups, 4.0)
    }
    /// Prefers hosts with much free memory.
    #[must_use]
    pub fn spread() -> Self {
        Self::any().with_weigher(Weigh::Free(Class::MEMORY), 1.0)
    }
    /// Prefers hosts that are used already, so that others stay empty.
    #[must_use]
    pub fn pack() -> Self {
        Self::any().with_weigher(Weigh::Used(Class::MEMORY), 1.0)
    }
    /// Adds a filter; it is asked after those that are there.
    #[must_use]
    pub fn with_filter(mut self, filter: impl HostFilter) -> Self {
        self.filters.push(Arc::new(filter));
        self
    }
    /// Adds a weigher that counts `weight` times; a negative weight turns it round.
    #[must_use]
    pub fn with_weigher(mut self, weigher: impl HostWeigher, weight: f64) -> Self {
        self.weighers.push((Arc::new(weigher), weight));
        self
    }
    /// How many hosts that fit are compared (16 unless told).
    #[must_use]
    pub fn candidates(mut self, hosts: usize) -> Self {
        self.candidates = hosts.max(1);
        self
    }
    /// How many hosts are looked at after the first that fits (1,024 unless told).
    #[must_use]
    pub fn window(mut self, hosts: usize) -> Self {
        self.window = hosts;
        self
    }
    /// Compares all hosts: the best of the whole fleet, at the price of looking at each that fits.
    #[must_use]
    pub fn whole(self) -> Self {
        self.candidates(usize::MAX).window(usize::MAX)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::spread()
    }
}
