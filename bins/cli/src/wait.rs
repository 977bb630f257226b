//! Waiting for a task: its events until it ended, across lost connections.

use std::time::Duration;

use skyloom_model::{OrderVerb, Task, TaskId, TaskState};

use crate::app::App;
use crate::client::Client;
use crate::client::types::TaskDocument;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out;
use crate::resolve::task_target;
use crate::steps::{self, Show};
use crate::text::word;

/// How often in a row a lost connection is opened again, a second apart.
const RECONNECTS: u32 = 60;

/// Waits until the task is done. Anything else than done is an error with the task's own reason.
pub(crate) async fn done(
    app: &App,
    client: &Client,
    task: &Task,
    timeout: Option<Duration>,
) -> Result<TaskDocument> {
    let document = ended(app, client, task.id, timeout).await?;
    if document.task.state == TaskState::Done {
        Ok(document)
    } else {
        Err(failure(&document))
    }
}

/// Waits until the task ended, well or badly, or is stuck with nobody's order open.
pub(crate) async fn ended(
    app: &App,
    client: &Client,
    id: TaskId,
    timeout: Option<Duration>,
) -> Result<TaskDocument> {
    *app.waiting.lock() = Some(id);
    let follow = follow(app, client, id);
    let result = match timeout {
        Some(limit) => tokio::time::timeout(limit, follow).await.unwrap_or_else(|_| {
            Err(CliError::new(
                Exit::TimedOut,
                format!("still running as task {id}; waited {}s", limit.as_secs_f64()),
            )
            .hint(format!("wait again with `skyloom task wait {id}`")))
        }),
        None => follow.await,
    };
    *app.waiting.lock() = None;
    result
}

async fn follow(app: &App, client: &Client, id: TaskId) -> Result<TaskDocument> {
    let mut show = Show::new(app.interactive);
    let target = task_target(id.uuid()).then("events");
    let mut last: Option<String> = None;
    let mut lost = 0;
    loop {
        let why = match client.events(target.clone(), last.as_deref()).await {
            Ok(mut events) => {
                while let Some(event) = events.next().await? {
                    lost = 0;
                    if event.name != "task" {
                        continue;
                    }
                    let document: TaskDocument = serde_json::from_str(&event.data).map_err(|error| {
                        CliError::unexpected(format!("the task's event is not understood: {error}"))
                    })?;
                    show.update(&document);
                    if document.task.rests() {
                        return Ok(document);
                    }
                }
                last = events.last_id().or(last);
                CliError::unexpected("the cloud ended its report of the task")
            }
            // A refusal is an answer; only silence is tried again.
            Err(error) if error.exit != Exit::Unexpected => return Err(error),
            Err(error) => error,
        };
        lost += 1;
        if lost > RECONNECTS {
            return Err(why.detail(format!("task {id} may still be running")));
        }
        if lost == 2 {
            out::message(&format!(
                "lost the connection; task {id} keeps running, trying again"
            ));
        }
        let pause = if lost == 1 { 50 } else { 1000 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// A task that ended otherwise than done, as an error.
pub(crate) fn failure(document: &TaskDocument) -> CliError {
    let task = &document.task;
    let what = format!("{} of {}", task.flow, task.subject.name);
    let message = match task.state {
        TaskState::Cancelled => format!("{what} was cancelled"),
        TaskState::Stuck => format!("{what} is stuck and needs an operator"),
        TaskState::Failed if abandoned(task) => {
            format!("{what} failed: an operator abandoned it, and what was left is left")
        }
        TaskState::Failed => format!("{what} failed; everything is as before"),
        other => format!("{what} is {}", word(&other)),
    };
    let code = task.reason.as_ref().map_or("", |reason| reason.code.as_str());
    let mut error = CliError::new(Exit::of_task(code), message);
    if let Some(reason) = &task.reason {
        error = error
            .detail(reason.message.clone())
            .details(reason.detail.clone());
    }
    let advice = task.reason.as_ref().and_then(|reason| reason.hint.clone());
    if task.state == TaskState::Stuck {
        if let Some(step) = steps::stuck_at(document) {
            error = error.detail(step);
        }
        error = error.details(advice).details(steps::orders(task));
        error = error.hint("repair the cause and let an operator give one of these orders");
    } else if let Some(advice) = advice {
        error = error.hint(advice);
    }
    if !code.is_empty() {
        error = error.note("code", code);
    }
    error
        .note("request", task.request_id.clone())
        .note("task", task.id.to_string())
}

/// Whether an operator let it end as it was.
fn abandoned(task: &Task) -> bool {
    task.orders
        .last()
        .is_some_and(|order| order.verb == OrderVerb::Abandon)
}
