//! The abilities: what is claimed is examined.

mod holding;
mod inside;
mod memory;
mod plugs;
mod snapshots;
mod suspending;

use super::harness::Case;

pub(super) fn cases() -> Vec<Case> {
    let all = [
        holding::cases(),
        suspending::cases(),
        snapshots::cases(),
        memory::cases(),
        plugs::cases(),
        inside::cases(),
    ];
    all.into_iter().flatten().collect()
}
