//! What the exam does not see: QEMU's opinion of our overlays, modes, owners, sweeping, full file systems.

mod disks;
mod files;
