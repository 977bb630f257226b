//! What the exam does not ask: the file, its owner, its damage, its bounds, and long random histories.

#![allow(clippy::unwrap_used, reason = "tests")]

mod corrupt;
mod leases;
mod model;
mod owner;
mod support;
mod watch;
mod writer;
