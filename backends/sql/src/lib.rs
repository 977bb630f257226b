//! The [`skyloom_store::Backend`] on SQL databases, each a feature of this crate.
//!
//! * `sqlite`: `SqliteStore`, the embedded default: one process, one file.
//! * `postgres`: `PostgresStore`; `mysql`: `MySqlStore` for MySQL and MariaDB: any number of processes on one server.
//!
//! ```text
//!           ┌─ SQLite: a writer that decides in memory ────────> file
//! commit ───┤
//!           └─ servers: batches, decided inside the database ──> routine <── other processes
//!                  │ after COMMIT
//!                  └─> answers, and the feed of this process's watchers
//! ```
//!
//! All are durable before they answer, commit in groups, and create or upgrade their tables only when told to (`migrate`).
//! The tables are meant to be read by operators with the database's own tools; see the README for their meaning.

#[cfg(feature = "sqlite")]
mod config;
#[cfg(feature = "sqlite")]
mod error;
mod migrated;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "sqlite")]
pub use config::SqliteConfig;
pub use migrated::Migrated;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use server::{Engine, ServerConfig, ServerStats, ServerStore, TlsMode};
#[cfg(feature = "mysql")]
pub use server::{MySql, MySqlStore};
#[cfg(feature = "postgres")]
pub use server::{Postgres, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStats, SqliteStore, migrate};

#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
