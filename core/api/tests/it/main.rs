//! The API over a memory store: every error of the contract, who may do what, streams, the store protocol's scopes, the
//! OpenAPI document, and the server on a real socket.

#![allow(clippy::unwrap_used, reason = "tests")]

mod agent_scoped;
mod audit;
mod auth;
mod certificates;
mod dry_runs;
mod edge;
mod errors;
mod fields;
mod follow;
mod harness;
mod hold;
mod hosts;
mod identity;
mod limits;
mod matrix;
mod oidc;
mod openapi;
mod projects;
mod resources;
mod scopes;
mod server;
mod store;
mod tasks;
mod tenancy;
mod watch;
