//! The API without HTTP.
//!
//! Every mutation is one commit: resource, task, mark of the unfinished task, secrets and idempotency record together,
//! each write guarded by what was read. Scope is by construction: keys hold the caller's project, so what belongs to
//! somebody else is simply not there.

mod admission;
mod bootstrap;
mod console;
mod events;
mod flavors;
mod host_actions;
mod hosts;
mod images;
mod keypairs;
mod list;
mod once;
mod orders;
mod placement;
mod ports;
mod projects;
mod records;
mod server_actions;
mod servers;
mod submit;
mod sweep;
mod tasks;
mod tokens;
mod wait;

use std::sync::Arc;

use skyloom_model::{Clock, Ids};
use skyloom_store::DynBackend;

use self::admission::Admission;
use crate::ImageRepo;

pub use self::admission::TaskLimits;

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
    admission: Arc<Admission>,
}

impl Cloud {
    /// A cloud of these parts, with the usual [`TaskLimits`].
    #[must_use]
    pub fn new(parts: CloudParts) -> Self {
        let admission = Admission::new(TaskLimits::default(), parts.clock.clone());
        Self { parts, admission }
    }

    /// With other bounds on unfinished tasks. To be called before the cloud is shared; they hold while
    /// [`Cloud::keep_tidy`] runs.
    #[must_use]
    pub fn with_limits(mut self, limits: TaskLimits) -> Self {
        self.admission = Admission::new(limits, self.parts.clock.clone());
        self
    }

    /// How many tasks are unfinished; nothing while [`Cloud::keep_tidy`] does not count them.
    #[must_use]
    pub fn unfinished_tasks(&self) -> Option<usize> {
        self.admission.open()
    }

    /// What it is made of.
    #[must_use]
    pub fn parts(&self) -> &CloudParts {
        &self.parts
    }
}
