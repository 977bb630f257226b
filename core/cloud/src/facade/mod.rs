//! The API without HTTP.
//!
//! Every mutation is one commit: resource, task, mark of the unfinished task, secrets and idempotency record together,
//! each write guarded by what was read. Scope is by construction: keys hold the caller's project, so what belongs to
//! somebody else is simply not there.

mod bootstrap;
mod console;
mod flavors;
mod hosts;
mod images;
mod keypairs;
mod list;
mod once;
mod placement;
mod ports;
mod projects;
mod records;
mod server_actions;
mod servers;
mod sweep;
mod tasks;
mod tokens;
mod wait;

use std::sync::Arc;

use skyloom_model::{Clock, Ids};
use skyloom_store::DynBackend;

use crate::ImageRepo;

/// What a cloud is made of.
#[derive(Debug, Clone)]
pub struct CloudParts {
    /// Where all records are.
    pub backend: DynBackend,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids and secrets.
    pub ids: Arc<dyn Ids>,
    /// Where image content is.
    pub images: Arc<dyn ImageRepo>,
}

/// The API without HTTP. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cloud {
    parts: CloudParts,
}

impl Cloud {
    /// A cloud of these parts.
    #[must_use]
    pub fn new(parts: CloudParts) -> Self {
        Self { parts }
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &CloudParts {
        &self.parts
    }
}
