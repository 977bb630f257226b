//! A task: one asked-for change.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Name, Reason, Scope, TaskId, Timestamp};

/// One asked-for change, from request to end. The record is immutable once [`TaskState::ended`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// Version of this record's format.
    pub format: u16,
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub scope: Scope,
    /// The flow that does it, such as `server.create`.
    pub flow: String,
    /// What it changes.
    pub subject: Subject,
    /// What the flow needs to know beyond the subject. Never secrets.
    pub params: serde_json::Value,
    /// Who asked.
    pub actor: Actor,
    /// The request that asked.
    pub request_id: String,
    /// The client's key for this request, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Where it stands.
    pub state: TaskState,
    /// Why it waits, failed or is stuck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// How far it is.
    #[serde(default)]
    pub progress: Progress,
    /// The engine that works on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Whether its end was asked for: jobs not started are dropped, the rest is undone.
    #[serde(default)]
    pub cancel: bool,
    /// Its turn among others.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// After this moment it is given up as if it were cancelled, and counts as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Changes of its plan so far: 1 with its first stage.
    #[serde(default)]
    pub plan_version: u32,
    /// While it is stuck: the state in which it goes on after an operator's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<TaskState>,
    /// What operators have ordered, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<Order>,
    /// What it gave, once done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

impl Task {
    /// The operator's order that no engine has carried out yet.
    #[must_use]
    pub fn open_order(&self) -> Option<&Order> {
        self.orders.iter().rev().find(|order| !order.carried_out)
    }

    /// Whether waiting for it is no use: it has ended, or is stuck and no order for it is open.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.state.ended() || (self.state.rests() && self.open_order().is_none())
    }
}

/// The mark of an unfinished task: engines watch these few, not the history of all tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveTask {
    /// Whose task it is: with the id, the address of its record.
    pub scope: Scope,
    /// Its id.
    pub task: TaskId,
    /// Its turn among others.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
}

impl ActiveTask {
    /// The mark of `task`.
    #[must_use]
    pub const fn of(task: &Task) -> Self {
        Self {
            scope: task.scope,
            task: task.id,
            priority: task.priority,
        }
    }
}

/// Whose turn it is when there is more to do than can be done at once. Within a priority, projects take turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Priority {
    /// What can wait: reconcilers, sweeps.
    Low,
    /// What people asked for.
    #[default]
    Normal,
    /// What must go first: operators in need.
    High,
}

impl Priority {
    /// Whether it is the usual one.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal)
    }
}

/// An operator's order for a stuck task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Order {
    /// What is to be done.
    pub verb: OrderVerb,
    /// Who ordered it.
    pub by: Actor,
    /// When.
    pub at: Timestamp,
    /// The request that ordered it.
    pub request_id: String,
    /// Why, in the operator's words.
    pub why: String,
    /// Whether an engine has carried it out.
    #[serde(default)]
    pub carried_out: bool,
}

/// What an operator can order for a stuck task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OrderVerb {
    /// The cause is repaired: try again, tries count anew.
    Retry,
    /// What could not be undone was dealt with by hand: take it as undone.
    Skip,
    /// Leave what is left; the task ends as failed.
    Abandon,
}

/// What became of each job of a finished task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Run {
    /// Version of this record's format.
    pub format: u16,
    /// The jobs as they were at the end, in plan order.
    pub jobs: Vec<crate::StepRecord>,
}

/// The resource that a task changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Subject {
    /// Plural kind, such as `servers`.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// Its name when the task was made.
    pub name: Name,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Actor {
    /// Id of the token or user.
    pub id: String,
    /// Display name.
    pub name: String,
}

/// How far a task is, in weighted steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Weight done.
    pub done: u32,
    /// Weight in all; 0 before there is a plan.
    pub total: u32,
}

/// An engine's claim on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Owner {
    /// The engine's name.
    pub engine: String,
    /// Its lease's epoch: commits for this task carry it as a guard.
    pub lease_epoch: u64,
    /// Claims of this task by anybody that nobody is known to have survived. Counted before anything is tried.
    pub claims: u32,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TaskState {
    /// Asked for, no plan yet.
    Queued,
    /// Cannot be planned now; the reason says what it waits for.
    Waiting,
    /// Its plan is being carried out.
    Running,
    /// It failed or was cancelled; what was started is being undone.
    Unwinding,
    /// Done.
    Done,
    /// Failed, and the world is as before.
    Failed,
    /// Cancelled, and the world is as before.
    Cancelled,
    /// Cannot go on by itself; the reason says why. Operators decide.
    Stuck,
}

/// How a task's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskEnd {
    /// All jobs succeeded.
    Done,
    /// Refused at planning, or a job failed and everything started is undone.
    Failed,
    /// Cancelled and everything started is undone.
    Cancelled,
    /// It was stuck and an operator gave it up: what is left is left.
    Abandoned,
}

impl TaskState {
    /// All values.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Waiting,
        Self::Running,
        Self::Unwinding,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Stuck,
    ];

    /// Whether nothing changes any more.
    #[must_use]
    pub const fn ended(self) -> bool {
        match self {
            Self::Done | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Waiting | Self::Running | Self::Unwinding | Self::Stuck => false,
        }
    }

    /// Whether nothing changes any more without an operator.
    #[must_use]
    pub const fn rests(self) -> bool {
        self.ended() || matches!(self, Self::Stuck)
    }

    /// Whether a task may go from `self` to `to` in one commit.
    #[must_use]
    pub const fn may_become(self, to: Self) -> bool {
        match (self, to) {
            (Self::Queued, Self::Waiting | Self::Running | Self::Failed | Self::Cancelled | Self::Stuck) => {
                true
            }
            // Planned at once, or with nothing to do.
            (Self::Queued | Self::Waiting, Self::Done) => true,
            (Self::Waiting, Self::Queued | Self::Running | Self::Failed | Self::Cancelled | Self::Stuck) => {
                true
            }
            (Self::Running, Self::Unwinding | Self::Done | Self::Failed | Self::Cancelled | Self::Stuck) => {
                true
            }
            // Back to running when the flow plans another stage after one that was undone.
            (Self::Unwinding, Self::Running | Self::Failed | Self::Cancelled | Self::Stuck) => true,
            // An operator's order (retry, skip, abandon) is the only way out of `stuck`.
            (
                Self::Stuck,
                // What follows from the order may be the end, in the same commit.
                Self::Queued | Self::Running | Self::Unwinding | Self::Done | Self::Failed | Self::Cancelled,
            ) => true,
            (Self::Queued, Self::Queued | Self::Unwinding) => false,
            (Self::Waiting, Self::Waiting | Self::Unwinding) => false,
            (Self::Running, Self::Queued | Self::Waiting | Self::Running) => false,
            (Self::Unwinding, Self::Queued | Self::Waiting | Self::Unwinding | Self::Done) => false,
            (Self::Stuck, Self::Waiting | Self::Stuck) => false,
            (Self::Done | Self::Failed | Self::Cancelled, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TaskState;

    #[test]
    fn a_finished_task_never_changes() {
        for end in [TaskState::Done, TaskState::Failed, TaskState::Cancelled] {
            assert!(TaskState::ALL.iter().all(|to| !end.may_become(*to)));
        }
    }

    #[test]
    fn every_state_can_reach_an_end() {
        for from in TaskState::ALL {
            let mut seen = vec![from];
            let mut i = 0;
            while i < seen.len() {
                for to in TaskState::ALL {
                    if seen[i].may_become(to) && !seen.contains(&to) {
                        seen.push(to);
                    }
                }
                i += 1;
            }
            assert!(seen.iter().any(|s| s.ended()), "{from:?}");
        }
    }
}
