//! The [`skyloom_store::Backend`] on SQL databases. Today that is SQLite, the embedded default.
//!
//! ```text
//! commit, leases ─> queue (bounded) ─> writer: decides in memory, one SQL transaction per batch ─> file
//!                                        │ after COMMIT                                             │
//!                                        ├─> answers                                                │
//!                                        └─> hub ─> watchers (live)         get, list, replay <─ read pool
//! ```
//!
//! * [`SqliteStore`]: one process, one file, durable before it answers, with group commit.
//! * [`migrate`] creates or upgrades the schema; opening never does.
//!
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
