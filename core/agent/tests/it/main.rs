//! The agent's tests, in one binary.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod agent;
mod journal;
