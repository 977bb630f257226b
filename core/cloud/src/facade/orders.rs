//! Operators' orders for stuck tasks.

use futures::FutureExt as _;
use serde_json::json;
use skyloom_model::{
    ActiveTask, EventKind, Order, OrderVerb, Priority, Reason, Task, TaskId, TaskState, paths,
};
use skyloom_store::Value;

use super::Cloud;
use super::events::Told;
use super::once::Change;
use super::records::{key, precondition};
use crate::{Caller, CloudError, FieldError, Result, TaskAccepted};

/// Orders that a task keeps; the oldest go first.
const MOST_ORDERS: usize = 100;
/// Longest reason of an order in characters.
const MOST_WHY: usize = 500;

impl Cloud {
    /// Orders what is to become of a stuck task; its engine carries it out. One order at a time.
    ///
    /// # Errors
    /// `task.not_found`, `task.not_stuck`, `task.order_open`, `why.invalid`, `precondition.failed`, `auth.forbidden`.
    pub async fn order_task(
        &self,
        caller: &Caller,
        id: TaskId,
        verb: OrderVerb,
        why: &str,
    ) -> Result<TaskAccepted> {
        let why = why.trim();
        if why.is_empty() || why.chars().count() > MOST_WHY {
            let message = format!("say why in 1 to {MOST_WHY} characters");
            return Err(CloudError::field(FieldError::new("why", "why.invalid", message)));
        }
        let done = self
            .once(caller, "tasks.order", json!([id, verb, why]), || {
                async move {
                    let found = self.task_for(caller, permission(verb), id).await?;
                    precondition(caller, found.modified)?;
                    orderable(&found.value)?;
                    let mut task = found.value.clone();
                    task.orders.push(Order {
                        verb,
                        by: caller.actor.clone(),
                        at: self.now(),
                        request_id: caller.request_id.clone(),
                        why: why.to_owned(),
                        carried_out: false,
                    });
                    let too_many = task.orders.len().saturating_sub(MOST_ORDERS);
                    task.orders.drain(..too_many);
                    // Somebody waits at a desk for it.
                    task.priority = Priority::High;
                    let message = format!("{} was ordered by {}: {why}", word(verb), caller.actor.name);
                    let told = Told::new(EventKind::TaskOrdered, message);
                    // Engines follow the marks of open tasks: touching this one's makes its engine look at once.
                    let mark = ActiveTask::of(&task);
                    let txn = found
                        .replace(&task)?
                        .put(key(&paths::active(id))?, Value::json(&mark)?)
                        .and(self.event(&task, &caller.request_id, told)?);
                    let (id, scope) = (task.id.uuid(), task.scope);
                    Ok(Change::new(txn, TaskAccepted { task }).told_of(permission(verb), Some(id), scope))
                }
                .boxed()
            })
            .await?;
        Ok(done.answer)
    }
}

/// Whether the task waits for an order.
fn orderable(task: &Task) -> Result<()> {
    if task.state != TaskState::Stuck {
        let reason = Reason::new("task.not_stuck", "the task is not stuck, so it takes no orders");
        return Err(CloudError::conflict(
            reason.hint("to end a task that is under way, cancel it"),
        ));
    }
    if let Some(open) = task.open_order() {
        let message = format!(
            "{} was ordered by {} and is being carried out",
            word(open.verb),
            open.by.name
        );
        let reason = Reason::new("task.order_open", message).hint("wait for what becomes of it");
        return Err(CloudError::conflict(reason.retryable()));
    }
    Ok(())
}

/// What an order takes.
const fn permission(verb: OrderVerb) -> &'static str {
    match verb {
        OrderVerb::Retry => "task:retry",
        OrderVerb::Skip => "task:skip",
        OrderVerb::Abandon => "task:abandon",
    }
}

fn word(verb: OrderVerb) -> &'static str {
    match verb {
        OrderVerb::Retry => "retry",
        OrderVerb::Skip => "skip",
        OrderVerb::Abandon => "abandon",
    }
}
