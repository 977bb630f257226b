//! The [`skyloom_store::Backend`] on MongoDB, for clouds whose processes share one replica set.
//!
//! ```text
//! commit ─> queue (bounded) ─> writer: one database transaction per batch ─> head, docs, log, past
//!                                │ after commitTransaction (majority)          │
//!                                ├─> answers                                   │ change stream on the head: a wake-up
//!                                └─> follower <─ log after the last revision <─┘
//!                                       └─> hub ─> watchers                   get, list, replay, leases: straight
//! ```
//!
//! * [`MongoStore`]: any number of processes on one database; every promise holds between them.
//! * [`migrate`] makes the collections; opening never does.
//!
//! The collections are meant to be read by operators in the shell; see the README for their meaning.

mod batch;
mod check;
mod config;
mod error;
mod follow;
mod jitter;
mod json;
mod leases;
mod migrate;
mod plan;
mod queue;
mod read;
mod record;
mod retain;
mod space;
mod store;
mod writer;

pub use config::MongoConfig;
pub use migrate::{Migrated, migrate};
pub use store::{MongoStats, MongoStore};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
