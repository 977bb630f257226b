//! What calls answer beyond the records themselves.

use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::{
    DrainStep, Hold, Host, HostClosed, HostId, Image, Incarnation, JobId, JobRecord, Name, Plan, Port,
    PowerState, Project, Server, ServerId, Task, TaskId, Token,
};
use skyloom_scheduler::fleet::{Forecast, Report};
use uuid::Uuid;

use crate::custody::{Difference, SilentHost};

/// Whether the fleet is held, and what is known of the hosts meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoldStatus {
    /// Which cloud this is, in which telling of its history.
    pub incarnation: Option<Incarnation>,
    /// The hold; nothing when work goes on.
    pub hold: Option<Hold>,
    /// Hosts that have not reported their guests under the hold.
    pub silent_hosts: Vec<SilentHost>,
    /// Guests that are not as recorded.
    pub differences: Vec<Difference>,
    /// There are more than these.
    pub more: bool,
}

/// What records took over from the hosts' reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Adopted {
    /// Servers whose records are now as their guests.
    pub servers: Vec<AdoptedServer>,
    /// There are more: ask again.
    pub more: bool,
}

/// A server whose record is now as its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdoptedServer {
    /// Which.
    pub server: ServerId,
    /// Its name.
    pub name: String,
    /// What its guest is, and what is wanted of it from now on.
    pub power: PowerState,
}

/// A secret on its only way out: serialises as text, never shows in debug prints, is kept nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct ShownOnce(String);

impl ShownOnce {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }
    /// The secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}
impl fmt::Debug for ShownOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownOnce(…)")
    }
}

/// A new server, the task that builds it, and its password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerAccepted {
    /// The server as it is now.
    pub server: Server,
    /// The task.
    pub task: Task,
    /// The first user's password, only when the cloud made it, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub password: Option<ShownOnce>,
}

/// A server and the task that changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerTask {
    /// The server as it is now.
    pub server: Server,
    /// The task.
    pub task: Task,
}

/// A port and the task that plugs it in or out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortTask {
    /// The port as it is now.
    pub port: Port,
    /// The task.
    pub task: Task,
}

/// An image and the task that works on it; no task while it waits for its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageAccepted {
    /// The image as it is now.
    pub image: Image,
    /// The task, if any.
    pub task: Option<Task>,
}

/// A new host and its agent's token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostAccepted {
    /// The host.
    pub host: Host,
    /// Its agent's token, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<ShownOnce>,
}

/// A new token and its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenAccepted {
    /// The record.
    pub token: Token,
    /// The secret, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub secret: Option<ShownOnce>,
}

/// What a first start made, or found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bootstrapped {
    /// The default project.
    pub project: Project,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Listed<T> {
    /// The items, oldest first.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; `null` on the last one.
    pub next: Option<String>,
}

/// A task with its plan and how far its jobs are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskDetail {
    /// The task.
    pub task: Task,
    /// Its plan, once there is one.
    pub plan: Option<Plan>,
    /// Its jobs that were begun, in plan order.
    pub jobs: Vec<JobRecord>,
    /// Jobs of the engine that run now: they have a record only when they have ended.
    #[serde(default)]
    pub running: Vec<JobId>,
    /// Whether it has left the store for the archive. Nothing of it changes any more.
    #[serde(default)]
    pub archived: bool,
}

/// A task to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskAccepted {
    /// The task as it is now.
    pub task: Task,
}

/// A shown plan that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanApplied {
    /// Which plan.
    pub plan: Uuid,
    /// The task that carries it out.
    pub task: Task,
    /// The first user's password of a new server, only when the cloud made it, only this once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub password: Option<ShownOnce>,
}

/// Why a server is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlacementAnswer {
    /// The task that placed it, if its record is still there.
    pub task: Option<TaskId>,
    /// The explanation, once there is one.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub placement: Option<serde_json::Value>,
}

/// Whether a server that is asked about fits now, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlacementExplained {
    /// Its flavor.
    pub flavor: Name,
    /// Whether a host can take it.
    pub fits: bool,
    /// Why. Who may see hosts sees them, others counts and what to change.
    pub report: Report,
    /// When it does not fit: the flavors with which it would.
    pub fitting_flavors: Vec<Name>,
}

/// How many more servers of a flavor fit, each reckoned as if nothing else were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlavorForecast {
    /// The flavor.
    pub flavor: Name,
    /// How many, and where.
    #[serde(flatten)]
    pub forecast: Forecast,
}

/// A host's ledger that was not what is claimed of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LedgerCorrection {
    /// The host.
    pub host: HostId,
    /// Its name, unless it is gone.
    pub name: Option<Name>,
    /// Of what.
    #[cfg_attr(feature = "openapi", schema(example = "memory_mib"))]
    pub resource: String,
    /// What was written.
    #[cfg_attr(feature = "openapi", schema(example = 8192))]
    pub was: u64,
    /// What is claimed, and is written now.
    #[cfg_attr(feature = "openapi", schema(example = 4096))]
    pub is: u64,
}

/// A host that is emptied, or would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainPlan {
    /// The host.
    pub host: Name,
    /// Why it takes no new servers, if it takes none.
    pub closed: Option<HostClosed>,
    /// Whether servers are being sent away now: not yet, not any more, or never otherwise.
    pub under_way: bool,
    /// All servers on it, in the order in which they go.
    pub servers: Vec<DrainStep>,
    /// MiB of memory that are still to be copied at least.
    pub memory_mib: u64,
}

/// Where several servers would go, one after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlacementTested {
    /// Their flavor.
    pub flavor: Name,
    /// How many were asked for.
    pub servers: u32,
    /// How many of them fit.
    pub placed: u32,
    /// The hosts, those with most of them first.
    pub hosts: Vec<HostShare>,
    /// Why not one more, when not all fit.
    pub report: Option<Report>,
}

/// How many of the servers a host would get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostShare {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// How many.
    pub servers: u32,
}
