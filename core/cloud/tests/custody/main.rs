//! Clouds moved to another store, kept in files, put back, and checked.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod checking;
mod copying;
mod files;
mod holding;
mod stage;
#[allow(dead_code, reason = "another binary's helpers")]
#[path = "../it/world.rs"]
mod world;
