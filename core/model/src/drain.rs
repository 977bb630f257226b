//! Hosts that are closed, and hosts that are emptied: the mark of a drain, and what is said of each server.
//!
//! ```text
//!  disable, drain ──> spec.closed of the host (why, by whom)
//!  drain ── same commit ──> drains/{host} (who was asked to go) ── + the servers there ──> one step for each server, as it is shown
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{HostId, Name, Reason, ServerId, TaskId, Timestamp};

/// That a host takes no new servers, as an operator wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostClosed {
    /// Why; may be empty.
    #[cfg_attr(feature = "openapi", schema(example = "a fan is broken"))]
    pub why: String,
    /// Who says so.
    #[cfg_attr(feature = "openapi", schema(example = "anna"))]
    pub by: String,
    /// Since when.
    pub since: Timestamp,
    /// Whether its servers were to leave it too.
    #[serde(default)]
    pub drain: bool,
}

/// "Empty this host": a mark beside the host's record. It goes when the host is enabled, or only closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Of this asking: in the keys under which servers are asked to go, so that asking again asks anew.
    pub id: Uuid,
    /// Which host.
    pub host: HostId,
    /// How many servers are on their way at the same time.
    pub at_once: u32,
    /// What came of those that were asked so far.
    #[serde(default)]
    pub asked: BTreeMap<ServerId, AskedToGo>,
    /// When nobody was left who could go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// What came of asking a server to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedToGo {
    /// This task moves it.
    Task(TaskId),
    /// It may not go.
    Refused(Reason),
}

/// How it stands with a server on a host that is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DrainState {
    /// On its way.
    Moves,
    /// Something else is done to it, or it is about to arrive; it goes after that.
    Busy,
    /// It goes when it is its turn.
    Waits,
    /// Its move has not been done.
    Failed,
    /// It cannot go.
    Stays,
}

/// How a server goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DrainWay {
    /// Its guest runs on meanwhile.
    Live,
    /// Its guest is off meanwhile.
    Cold,
}

/// A server on a host that is emptied, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainStep {
    /// Which server.
    pub server: ServerId,
    /// Its name.
    pub name: Name,
    /// How it stands with it.
    pub state: DrainState,
    /// How it goes, if it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<DrainWay>,
    /// Where: as it is chosen already, or would be now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Name>,
    /// MiB of memory that are copied at least; nothing of one that is off.
    #[serde(default)]
    pub memory_mib: u64,
    /// The task that works on it, or did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Why there, why it waits, or why it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
