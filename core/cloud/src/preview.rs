//! What a mutation would do, as data.

use serde::{Deserialize, Serialize};
use skyloom_model::{Actor, JobId, Name, Resources, RetryPolicy, Subject, TaskId, Timestamp};
use skyloom_scheduler::fleet::Report;
use uuid::Uuid;

/// What a mutation would do. Nothing of it has happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preview {
    /// The operation that was asked for, such as `servers.create`.
    #[cfg_attr(feature = "openapi", schema(example = "servers.create"))]
    pub operation: String,
    /// Under which id this very plan can be applied within a day; none when there is no task, or when the request
    /// carried what is not kept: a password, user data, an image's content.
    pub plan: Option<Uuid>,
    /// The flow of the task that would do it; none when everything would be done at once.
    #[cfg_attr(feature = "openapi", schema(example = "server.create"))]
    pub flow: Option<String>,
    /// What the task would change.
    pub subject: Option<Subject>,
    /// The steps of the first stage, each after those that it names in `after`.
    pub steps: Vec<PreviewStep>,
    /// Why this host and not another, where one is chosen. Who may see hosts sees them, others counts.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub placement: Option<serde_json::Value>,
    /// What would be taken on a host.
    pub reservation: Option<Reservation>,
    /// Records that would be made, then those that would be changed, then removed, at once.
    pub changes: Vec<RecordChange>,
    /// What may come after the first stage.
    pub later: Vec<String>,
    /// What should be known before.
    pub risks: Vec<String>,
    /// The records that it was made from.
    pub made_from: Vec<MadeFrom>,
    /// What would be taken of the project's quota.
    #[serde(default)]
    pub quota: Vec<QuotaUse>,
}

/// What would be taken of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaUse {
    /// Of what.
    #[cfg_attr(feature = "openapi", schema(example = "memory_mib"))]
    pub resource: String,
    /// What is used now.
    pub used: u64,
    /// What would be taken.
    pub asked: u64,
    /// How much there may be; `null`: any amount.
    pub limit: Option<u64>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PreviewStep {
    /// Its name in the plan.
    pub id: JobId,
    /// What it is for people.
    #[cfg_attr(feature = "openapi", schema(example = "make the root disk"))]
    pub title: String,
    /// The code that does it.
    #[cfg_attr(feature = "openapi", schema(example = "disk.overlay"))]
    pub kind: String,
    /// `engine`, or the host's name; `host` for who may not see hosts.
    #[cfg_attr(feature = "openapi", schema(example = "rack1-07"))]
    pub place: String,
    /// Steps that must have succeeded before.
    pub after: Vec<JobId>,
    /// Its share of the progress.
    pub weight: u32,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// How long one try may take in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// What would be taken on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reservation {
    /// How much.
    pub resources: Resources,
    /// Where, and what is left there. For who may see hosts.
    pub host: Option<HostRoom>,
}

/// A host's room before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostRoom {
    /// Which host.
    pub name: Name,
    /// What servers may take there in all.
    pub capacity: Resources,
    /// What they have taken.
    pub used_before: Resources,
    /// What they would have taken.
    pub used_after: Resources,
    /// In what it would be nearly full.
    pub nearly_full: Vec<String>,
}

/// What would become of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordChange {
    /// What.
    pub change: ChangeKind,
    /// Plural kind, such as `servers`.
    #[cfg_attr(feature = "openapi", schema(example = "servers"))]
    pub kind: String,
    /// Which one; none when it would be made, for it gets its id then.
    pub id: Option<Uuid>,
    /// Its name, where it has one.
    pub name: Option<String>,
}

/// What would become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ChangeKind {
    /// Made.
    Created,
    /// Written anew.
    Changed,
    /// Removed.
    Deleted,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MadeFrom {
    /// Plural kind, such as `images`.
    #[cfg_attr(feature = "openapi", schema(example = "images"))]
    pub kind: String,
    /// Which one.
    pub id: Uuid,
    /// The commit that last wrote it.
    pub revision: u64,
}

/// A plan that was shown and can be applied as long as the world has not moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ShownPlan {
    /// Its id.
    pub id: Uuid,
    /// When it was shown.
    pub at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Timestamp,
    /// To whom.
    pub actor: Actor,
    /// The task that carries it out, once it was applied.
    pub applied: Option<TaskId>,
    /// What it is.
    pub preview: Preview,
}

/// Records that only operators may know of.
const HIDDEN: [&str; 2] = ["claims", "ledgers"];

impl Preview {
    /// What a tenant may know: nothing of single hosts.
    #[must_use]
    pub fn for_tenant(mut self) -> Self {
        for step in &mut self.steps {
            if step.place != ENGINE {
                step.place = "host".to_owned();
            }
        }
        self.placement = for_tenant(self.placement);
        if let Some(reservation) = &mut self.reservation {
            reservation.host = None;
        }
        self.changes.retain(|c| !HIDDEN.contains(&c.kind.as_str()));
        self.made_from.retain(|m| !HIDDEN.contains(&m.kind.as_str()));
        self
    }
}

/// Where steps without a host run.
pub(crate) const ENGINE: &str = "engine";

/// A placement's explanation without anything of single hosts. One that cannot be read is not shown.
pub(crate) fn for_tenant(placement: Option<serde_json::Value>) -> Option<serde_json::Value> {
    let report: Report = serde_json::from_value(placement?).ok()?;
    serde_json::to_value(report.for_tenants()).ok()
}
