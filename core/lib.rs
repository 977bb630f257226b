#![doc = include_str!("../README.md")]
//!
//! # Which crate do I need?
//!
//! | to … | module | feature |
//! | --- | --- | --- |
//! | run a whole cloud in my process | [`LocalCloud`] | - |
//! | call a cloud without HTTP | [`cloud::Cloud`] | - |
//! | mount the REST API in my server | [`api`] | - |
//! | keep records in SQLite, PostgreSQL, MySQL or MariaDB | [`sql`] | `sqlite`, `postgres`, `mysql` |
//! | keep records in etcd | [`etcd`] | `etcd` |
//! | keep records in MongoDB | [`mongo`] | `mongo` |
//! | share one store between processes | [`remote`] | `remote` |
//! | answer OpenStack's clients | [`openstack`] | `openstack` |
//! | run real guests | [`qmp`], [`pool`] | `qmp` |
//! | give them networks of their own | [`bridge`] | `bridge` |
//! | run real guests by libvirt | [`libvirt`], [`pool`] | `libvirt` |
//! | write my own store, hypervisor, flow | [`store`], [`hypervisor`], [`flow`] | - |
//!
//! This crate is the only semver promise; the crates behind it may change between minor versions.

mod local;
mod registry;

pub use local::{LocalCloud, LocalHost, LocalParts, Registered};
pub use registry::{Opened, SchemaChange, StoreOptions, migrate_store, open_store, schemes, shown};

pub use skyloom_agent as agent;
pub use skyloom_api as api;
#[cfg(feature = "bridge")]
pub use skyloom_bridge as bridge;
pub use skyloom_cloud as cloud;
pub use skyloom_engine as engine;
pub use skyloom_flow as flow;
pub use skyloom_hypervisor as hypervisor;
pub use skyloom_identity as identity;
pub use skyloom_image as image;
#[cfg(feature = "libvirt")]
pub use skyloom_libvirt as libvirt;
pub use skyloom_model as model;
#[cfg(feature = "openstack")]
pub use skyloom_openstack as openstack;
pub use skyloom_pki as pki;
#[cfg(any(feature = "qmp", feature = "libvirt"))]
pub use skyloom_pool as pool;
#[cfg(feature = "qmp")]
pub use skyloom_qmp as qmp;
pub use skyloom_scheduler as scheduler;
pub use skyloom_store as store;
#[cfg(feature = "etcd")]
pub use skyloom_store_etcd as etcd;
#[cfg(feature = "mongo")]
pub use skyloom_store_mongo as mongo;
#[cfg(feature = "remote")]
pub use skyloom_store_remote as remote;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use skyloom_store_sql as sql;
