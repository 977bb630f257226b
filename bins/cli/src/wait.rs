//! Waiting for a task: its events until it ended, across lost connections.

use std::time::Duration;

use skyloom_model::{Task, TaskId, TaskState};

use crate::app::App;
use crate::client::Client;
use crate::client::types::TaskDocument;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::out;
use crate::resolve::task_target;
use crate::steps::Show;
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
        Err(failure(&document.task))
    }
}

/// Waits until the task ended, well or badly.
async fn ended(app: &App, client: &Client, id: TaskId, timeout: Option<Duration>) -> Result<TaskDocument> {
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
                    if document.task.state.ended() {
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
pub(crate) fn failure(task: &Task) -> CliError {
    let what = format!("{} of {}", task.flow, task.subject.name);
    let (message, hint) = match task.state {
        TaskState::Cancelled => (format!("{what} was cancelled"), None),
        TaskState::Stuck => (
            format!("{what} is stuck and needs an operator"),
            Some(format!("see `skyloom task show {}`", task.id)),
        ),
        TaskState::Failed => (format!("{what} failed; everything is as before"), None),
        other => (format!("{what} is {}", word(&other)), None),
    };
    let code = task.reason.as_ref().map_or("", |reason| reason.code.as_str());
    let mut error = CliError::new(Exit::of_task(code), message);
    if let Some(reason) = &task.reason {
        error = error.detail(reason.message.clone());
    }
    if let Some(hint) = task
        .reason
        .as_ref()
        .and_then(|reason| reason.hint.clone())
        .or(hint)
    {
        error = error.hint(hint);
    }
    if !code.is_empty() {
        error = error.note("code", code);
    }
    error
        .note("request", task.request_id.clone())
        .note("task", task.id.to_string())
}
