//! The cloud's tests over a memory store and fake hosts, in one binary.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod archive;
mod arena;
mod certificates;
mod chaos;
mod drain;
mod engine;
mod facade;
mod facade_events;
mod facade_images;
mod facade_servers;
mod facade_tasks;
mod facade_tokens;
mod fence;
mod flows;
mod golden;
mod image_save;
mod limits;
mod networked;
mod networks;
mod paging;
mod permissions;
mod plans;
mod port_plugs;
mod previews;
mod query;
mod quotas;
mod reconcile;
mod rescue;
mod reservations;
mod restart;
mod room;
mod server_access;
mod server_actions;
mod server_batches;
mod server_migrate;
mod server_resize;
mod settle;
mod shelves;
mod sweeps;
mod torture;
mod volumes;
mod world;
