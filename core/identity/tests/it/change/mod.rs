//! Changes: what they make, what they refuse, and that nothing stale passes.

mod bootstrap;
mod credentials;
mod keystone;
mod races;
mod refusals;
mod removal;
mod sequences;
mod stale;
mod unknown;
