//! The cloud's tests over a memory store and fake hosts, in one binary.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chaos;
mod engine;
mod facade;
mod facade_images;
mod facade_servers;
mod golden;
mod paging;
mod query;
mod torture;
mod world;
