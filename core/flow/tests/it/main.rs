//! The flow engine's tests, in one binary.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod calls;
mod decide;
mod drive;
mod host;
mod journal;
mod keeper;
mod stages;
mod worker;
mod world;
