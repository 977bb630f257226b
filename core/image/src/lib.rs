//! Disk images and what goes into a guest: four parts that know nothing of servers, stores or tasks.
//!
//! * [`inspect()`] decides, before any other tool opens a file, whether it is the disk that its owner claims. It reads
//!   the file's tables, bounded, and refuses everything that could make a tool open something else.
//! * [`HashingWriter`] says the SHA-256 of what passes through it.
//! * [`SeedSpec`] renders a NoCloud config drive: files as JSON, then a reproducible [`iso9660`] volume.
//! * `fetch` (feature `fetch`) downloads from URLs that users name, without reaching into the own network.
//!
//! Every refusal ends as a [`skyloom_model::Reason`] with a stable code (`image.…`, `seed.…`, `url.…`).

#[cfg(feature = "fetch")]
pub mod fetch;
mod hash;
mod inspect;
pub mod iso9660;
mod seed;

pub use hash::{Digest, HashingWriter, sha256_of};
pub use inspect::{ImageFacts, Limits, Refusal, inspect};
pub use seed::{MAX_USER_DATA, SeedFiles, SeedNic, SeedSpec};
