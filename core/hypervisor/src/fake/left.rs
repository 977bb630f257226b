//! What there is on a fake host, server by server: what a sweep of orphans must find.

use std::collections::{BTreeMap, BTreeSet};

use skyloom_model::{PowerState, ServerId};

use super::FakeWorld;
use super::storage::SEED;
use crate::Result;

/// What a host holds of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Generation and power of its domain, if there is one.
    pub domain: Option<(u64, PowerState)>,
    /// Its disks by name, without the config drive.
    pub disks: Vec<String>,
    /// Whether there is a config drive.
    pub seed: bool,
}

impl FakeWorld {
    /// All that there is, by server.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn holdings(&self) -> Result<BTreeMap<ServerId, Holding>> {
        let mut all = BTreeMap::new();
        self.0.ledger.each(|id, book| {
            if !book.is_empty() {
                let domain = book.domain.as_ref().map(|d| (d.spec.generation, d.power));
                let disks = book.disks.keys().filter(|d| *d != SEED).cloned().collect();
                let seed = book.disks.contains_key(SEED);
                all.insert(id, Holding { domain, disks, seed });
            }
        })?;
        Ok(all)
    }

    /// What belongs to none of the `known` servers. While an operation is [under way](Self::under_way) more may come.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn leftovers(&self, known: &BTreeSet<ServerId>) -> Result<BTreeMap<ServerId, Holding>> {
        let mut left = self.holdings()?;
        left.retain(|id, _| !known.contains(id));
        Ok(left)
    }
}
