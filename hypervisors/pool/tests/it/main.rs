//! What the exam does not see: QEMU's opinion of our overlays, modes, owners, sweeping, full file systems.
#![allow(clippy::unwrap_used, reason = "a test program")]

mod cache;
mod disks;
mod files;
mod shared;
