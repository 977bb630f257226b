//! OpenStack's APIs over Skyloom, as routers for whoever serves HTTP.
//!
//! ```text
//! openstack, Terraform, Tempest ──HTTP──> identity::router ──> skyloom_identity (directory, changes, policy)
//!                                          `/identity/v3`
//! ```
//!
//! A face holds nothing: what it shows are records of the core, what it allows the core's policy decides. How to use it with
//! OpenStack's own tools: `docs/howto/openstack.md`.

pub mod identity;
