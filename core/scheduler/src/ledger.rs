//! A host's ledger, with and without a claim.

use skyloom_model::{Claim, HostLedger};

/// The ledger with `claim`.
#[must_use]
pub fn claim(ledger: &HostLedger, claim: &Claim) -> HostLedger {
    let mut after = ledger.clone();
    after.used = after.used.plus(claim.resources);
    after.servers = after.servers.saturating_add(1);
    if let Some(group) = &claim.group {
        let members = after.groups.entry(group.clone()).or_default();
        *members = members.saturating_add(1);
    }
    after
}

/// The ledger without `claim`, which must have been in it.
#[must_use]
pub fn release(ledger: &HostLedger, claim: &Claim) -> HostLedger {
    let mut after = ledger.clone();
    after.used = after.used.minus(claim.resources);
    after.servers = after.servers.saturating_sub(1);
    if let Some(group) = &claim.group {
        let left = after
            .groups
            .get(group)
            .copied()
            .unwrap_or_default()
            .saturating_sub(1);
        if left == 0 {
            after.groups.remove(group);
        } else {
            after.groups.insert(group.clone(), left);
        }
    }
    after
}
