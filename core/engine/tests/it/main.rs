//! The real engine, with real agents on fake hosts, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod golden;
mod hosts;
mod observe;
mod site;
