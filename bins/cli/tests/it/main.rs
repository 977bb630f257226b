//! The built binary against a stub of the API: what it prints where, and how it ends.

#![expect(clippy::unwrap_used, reason = "a broken helper should end its test")]

mod binary;
mod commands;
mod contexts;
mod dry_runs;
mod errors;
mod identity;
mod images;
mod lists;
mod orders;
mod records;
#[cfg(feature = "sim")]
mod sim;
mod stub;
mod terminal;
mod waiting;
