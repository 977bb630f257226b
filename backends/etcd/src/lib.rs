//! The [`skyloom_store::Backend`] on etcd 3.4 and later.
//!
//! ```text
//! commit ─────────────> one etcd transaction                      get, list ─> one read
//! leases ─────────────> etcd leases: granted, kept alive, run out by the server's time
//! etcd's watch ─> Feed ─> Hub ─> watchers                          (one stream for all watchers of a handle)
//! ```
//!
//! * [`EtcdStore::open`] with an [`EtcdConfig`], or [`EtcdConfig::from_uri`] of an `etcd://` address.
//! * Revisions are etcd's own, so they grow by at least one per commit and are not dense.
//! * Several clouds share a cluster: each stands below a prefix of its own.
//!
//! The keys are meant to be read by operators with `etcdctl`; see the README for their meaning.

mod commit;
mod config;
mod error;
mod feed;
mod keys;
mod leases;
mod link;
mod read;
mod ring;
mod safety;
mod store;
mod uri;

pub use config::{EtcdConfig, EtcdTls};
pub use store::EtcdStore;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
