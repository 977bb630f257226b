//! How tasks come into the world: record, mark and event in one commit, and once for each key.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use skyloom_model::{
    ActiveTask, Actor, EventKind, Priority, Resource, Scope, Task, TaskId, Timestamp, paths,
};
use skyloom_store::Txn;

use super::Cloud;
use super::admission::Seat;
use super::events::Told;
use super::records::create;
use crate::{CloudError, Result, hash};

/// Tries of one submission before it gives up against others.
const TRIES: usize = 8;

/// Which task was submitted under a key. Lies at [`paths::submitted`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Submitted {
    scope: Scope,
    task: TaskId,
    at: Timestamp,
}

impl Cloud {
    /// The part of a commit that submits a task.
    pub(crate) fn submission(&self, task: &Task) -> Result<Txn> {
        let told = Told::new(
            EventKind::TaskAccepted,
            format!(
                "{} of {} was asked for by {}",
                task.flow, task.subject.name, task.actor.name
            ),
        );
        Ok(create(&paths::task(task.scope, task.id), task)?
            .and(create(&paths::active(task.id), &ActiveTask::of(task))?)
            .and(self.event(task, &task.request_id, told)?))
    }

    /// Commits what a task has a seat for. The seat is given up when it did not happen for sure.
    pub(crate) async fn commit_seated(&self, txn: Txn, seat: Option<Seat>) -> Result<bool> {
        let done = self.commit(txn).await;
        let unsure = matches!(&done, Err(error) if error.code() == "store.outcome_unknown");
        if unsure || matches!(done, Ok(true)) {
            seat.into_iter().for_each(Seat::keep);
        }
        done
    }

    /// A task that the cloud itself asks for, such as a reconciler's: of low priority, with the flow's deadline.
    #[must_use]
    pub fn own_task<R: Resource>(&self, who: &str, flow: &str, subject: &R, params: Json) -> Task {
        let actor = Actor {
            id: who.to_owned(),
            name: who.to_owned(),
        };
        let request = format!("{who}-{}", self.parts.ids.uuid());
        Task {
            priority: Priority::Low,
            ..self.task_of(&actor, &request, flow, subject, params)
        }
    }

    /// Submits a task unless one was submitted under `key` within the last day: then nothing is done and that one is
    /// answered, whoever submitted it. For reconcilers and schedules, of which several may find the same at once.
    ///
    /// # Errors
    /// `tasks.too_many`, and those of the store.
    pub async fn submit_once(&self, key: &str, task: Task) -> Result<Task> {
        let at = paths::submitted(&hash::sha256(key.as_bytes()));
        for _ in 0..TRIES {
            let known = self.read::<Submitted>(&at).await?;
            if let Some(known) = &known
                && let Some(before) = self.task_in(&[known.value.scope], known.value.task).await?
            {
                return Ok(before.value);
            }
            let record = Submitted {
                scope: task.scope,
                task: task.id,
                at: self.now(),
            };
            let noted = match known {
                Some(known) => known.replace(&record)?,
                None => create(&at, &record)?,
            };
            let seat = self.admission.admit(&task)?;
            let txn = noted
                .and(self.submission(&task)?)
                .guard(skyloom_flow::not_held()?);
            if self.commit_seated(txn, Some(seat)).await? {
                return Ok(task);
            }
            self.refuse_held().await?;
        }
        Err(CloudError::contended())
    }
}
