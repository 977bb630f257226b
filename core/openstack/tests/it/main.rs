//! The Keystone face in this process: what its clients see.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod edge;
mod limits;
mod people;
mod powers;
mod projects;
mod roles;
mod secrets;
mod tokens;
mod world;
