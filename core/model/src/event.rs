//! An event: something that happened, written in the same commit as what it tells.

use serde::{Deserialize, Serialize};

use crate::{EventId, Reason, Scope, Subject, TaskId, Timestamp};

/// Something that happened to a subject. Never changed; whoever is told of it twice knows it by its id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Version of this record's format.
    pub format: u16,
    /// Its id; ids of later events are mostly greater, revisions always are.
    pub id: EventId,
    /// When it happened.
    pub at: Timestamp,
    /// Whose it is.
    pub scope: Scope,
    /// What happened.
    pub kind: EventKind,
    /// To what.
    pub subject: Subject,
    /// In which task, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The request that began it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// For people.
    pub message: String,
    /// Why, where there is a reason to give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventKind {
    /// A task was asked for.
    TaskAccepted,
    /// A task has a plan, or another stage of it.
    TaskPlanned,
    /// A task is on its way back.
    TaskUnwinding,
    /// A task cannot go on without an operator.
    TaskStuck,
    /// An operator gave an order for a task.
    TaskOrdered,
    /// A task has ended.
    TaskEnded,
    /// A server's power state changed without a task.
    ServerPower,
    /// A host reports again.
    HostReachable,
    /// A host has ceased to report.
    HostUnreachable,
    /// The fleet is held: nothing is begun any more.
    FleetHeld,
    /// The fleet goes on.
    FleetReleased,
}
