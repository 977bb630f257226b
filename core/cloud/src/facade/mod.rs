//! The API without HTTP.
//!
//! Every mutation is one commit: resource, task, mark of the unfinished task, secrets and idempotency record together,
//! each write guarded by what was read. Scope is by construction: keys hold the caller's project, so what belongs to
//! somebody else is simply not there.

mod admission;
mod adopt;
mod advice;
mod audit;
mod bootstrap;
mod console;
mod draft;
mod drain;
mod events;
mod fence;
mod flavors;
mod hold;
mod host_actions;
mod hosts;
mod image_save;
mod images;
mod join;
mod keypairs;
mod list;
mod networks;
mod once;
mod orders;
mod placement;
mod placement_questions;
mod plans;
mod plugging;
mod port_plugs;
mod ports;
mod projects;
mod quotas;
mod reconcile;
mod records;
mod rescue;
mod reservations;
mod rewiring;
mod risks;
mod security_groups;
mod server_access;
mod server_actions;
mod server_batch;
mod server_clone;
mod server_edits;
mod server_lists;
mod server_migrate;
mod server_order;
mod server_rebuild;
mod server_resize;
mod server_shelve;
mod server_volumes;
mod servers;
mod snapshots;
mod submit;
mod subnets;
mod sweep;
mod tasks;
mod timers;
mod tokens;
mod volume_create;
mod volumes;
mod wait;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use skyloom_flow::FlowRegistry;
use skyloom_identity::{AuditSink, Directory, Limits, Rights, Snapshot};
use skyloom_model::{Clock, Ids};
use skyloom_scheduler::{FleetScheduler, Scheduler};
use skyloom_store::DynBackend;

use self::admission::Admission;
use self::draft::Planner;
use self::plans::Applying;
use self::quotas::Turns;
use crate::{Archive, CloudError, HostAuthority, ImageRepo, Result, cloud_flows};

pub use self::admission::TaskLimits;
pub(crate) use self::events::wanted_event;
pub use self::join::{CertificatesRevoked, JoinTokenAccepted, RevokeCertificates};
pub(crate) use self::list::{PageOf, Range, Source};
pub(crate) use self::placement::makes;
pub use self::reconcile::{Reconciled, Suspects};
pub use self::server_lists::TimelineEntry;
pub(crate) use self::tasks::wanted_task;
pub(crate) use self::timers::timer;

/// How long a call waits for the directory of identity.
const CATCH_UP: Duration = Duration::from_secs(5);

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
    planner: Arc<Planner>,
    archive: Archive,
    /// What holds where neither a project nor its domain has limits.
    limits: Limits,
    /// How long deleted servers are kept where the request says nothing.
    recycle_hours: u32,
    turns: Arc<Turns>,
    /// Where it is told what was done.
    audit: Option<Arc<dyn AuditSink>>,
    /// Of this process: what is asked of it right after a change of identity finds the change.
    directory: Option<Directory>,
    /// Gives out certificates, if this cloud has any.
    authority: Option<Arc<HostAuthority>>,
    /// What the cloud itself may do, once somebody has asked.
    own_rights: Arc<OnceLock<Rights>>,
    /// The shown plan that mutations of this value carry out.
    applying: Option<Applying>,
}

impl Cloud {
    /// A cloud of these parts, with the usual [`TaskLimits`], and with its archive in its own store.
    #[must_use]
    pub fn new(parts: CloudParts) -> Self {
        let admission = Admission::new(TaskLimits::default(), parts.clock.clone());
        let planner = Planner {
            flows: cloud_flows(),
            scheduler: Arc::new(FleetScheduler::default()),
        };
        let archive = Archive::within(parts.backend.clone(), parts.clock.clone());
        Self {
            parts,
            archive,
            admission,
            planner: Arc::new(planner),
            audit: None,
            limits: Limits::new(),
            recycle_hours: 0,
            turns: Arc::default(),
            directory: None,
            authority: None,
            own_rights: Arc::default(),
            applying: None,
        }
    }

    /// With the flows and the scheduler of the cloud's engines, where those are not the usual ones: for previews.
    #[must_use]
    pub fn with_planner(mut self, flows: FlowRegistry, scheduler: Arc<dyn Scheduler>) -> Self {
        self.planner = Arc::new(Planner { flows, scheduler });
        self
    }

    /// With other bounds on unfinished tasks. To be called before the cloud is shared; they hold while
    /// [`Cloud::keep_tidy`] runs.
    #[must_use]
    pub fn with_limits(mut self, limits: TaskLimits) -> Self {
        self.admission = Admission::new(limits, self.parts.clock.clone());
        self
    }

    /// With a recycle bin: deleted servers are kept in it for so many hours where the request says nothing else. Without it
    /// they are removed at once.
    #[must_use]
    pub fn with_recycle_bin(mut self, hours: u32) -> Self {
        self.recycle_hours = hours;
        self
    }

    /// With another archive. All processes of a cloud need the same one.
    #[must_use]
    pub fn with_archive(mut self, archive: Archive) -> Self {
        self.archive = archive;
        self
    }

    /// With the directory of identity that the door of this process asks: calls that change what it shows end when it does.
    #[must_use]
    pub fn with_directory(mut self, directory: Directory) -> Self {
        self.directory = Some(directory);
        self
    }

    /// Waits until the directory shows that a record is there, or is not. What it does not show in time it shows later.
    async fn wait_for_identity(&self, path: &str, there: bool) {
        if let Ok(key) = records::key(path) {
            self.wait_for_directory(|now| now.modified(&key).is_some() == there)
                .await;
        }
    }

    async fn wait_for_directory(&self, condition: impl Fn(&Snapshot) -> bool) {
        if let Some(directory) = &self.directory {
            directory.until(CATCH_UP, condition).await;
        }
    }

    /// What the cloud itself may do.
    fn own_rights(&self) -> Result<Rights> {
        if let Some(rights) = self.own_rights.get() {
            return Ok(rights.clone());
        }
        let rights = Rights::of_the_cloud().map_err(|e| CloudError::internal(e.to_string()))?;
        Ok(self.own_rights.get_or_init(|| rights).clone())
    }

    /// Where finished tasks and old events go while [`Cloud::keep_tidy`] runs.
    #[must_use]
    pub fn archive(&self) -> &Archive {
        &self.archive
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
