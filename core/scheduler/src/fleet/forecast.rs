//! How many more servers of a kind fit, and where.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choose::View;
use super::demand::Demand;
use super::machine::Amounts;
use super::policy::Policy;
use super::state::Fleet;

/// How many more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PlacementForecast))]
pub struct Forecast {
    /// Servers in all.
    pub servers: u64,
    /// Hosts that take at least one.
    pub hosts: u64,
    /// Servers by the value of a label; hosts without it are not here.
    pub by_label: BTreeMap<String, u64>,
}

impl Fleet {
    /// How many servers like this one fit when rules of groups are left aside, by the values of the label `key`. A filter of the policy is
    /// asked once for each host, as it is now. A server that asks for nothing counts [`u32::MAX`] times for a host.
    #[must_use]
    pub fn forecast(&self, policy: &Policy, demand: &Demand, key: &str) -> Forecast {
        let mut forecast = Forecast::default();
        for at in 0..self.len() {
            let view = View {
                fleet: self,
                at,
                places: &[],
            };
            let fits = self.misses(demand, &[], at).is_empty();
            if !fits
                || policy
                    .filters
                    .iter()
                    .any(|filter| filter.check(demand, &view).is_err())
            {
                continue;
            }
            let servers = times(&Amounts(self.tree.leaf(at).free), &demand.amounts);
            forecast.servers += servers;
            forecast.hosts += 1;
            if let Some(value) = view.machine().labels.get(key) {
                *forecast.by_label.entry(value.clone()).or_default() += servers;
            }
        }
        forecast
    }
}

/// How often `need` goes into `free`.
fn times(free: &Amounts, need: &Amounts) -> u64 {
    let each = free
        .0
        .iter()
        .zip(&need.0)
        .filter_map(|(free, need)| free.checked_div(*need));
    each.min().unwrap_or(u32::MAX).into()
}
