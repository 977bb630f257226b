//! `/v1/tasks`: what was asked for and how far it is.

use std::collections::BTreeSet;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::sse::Event;
use futures::stream::{self, BoxStream, SelectAll};
use futures::{FutureExt as _, StreamExt as _};
use skyloom_cloud::{Caller, Listed, OrderTask, TaskAccepted, TaskDetail, TaskQuery};
use skyloom_model::{OrderVerb, Place, Task, TaskId, paths};
use skyloom_store::{Key, ListOptions, Prefix, Revision, WatchEvent, WatchOptions};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::{Result, accepted, tagged};
use crate::auth::{Identity, User};
use crate::extract::{Json, Query, RawId};
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::sse;
use crate::stream::{Keeper, Next};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(events))
        .routes(routes!(cancel))
        .routes(routes!(retry))
        .routes(routes!(skip))
        .routes(routes!(abandon))
}

/// List tasks
///
/// The project's tasks, oldest first; for who runs the cloud also the cloud's own. A while after their end, by default a day,
/// tasks move to the archive: with `archived=true` those are listed, by their ends.
#[utoipa::path(get, path = "/v1/tasks", operation_id = "list_tasks", tag = "tasks", params(TaskQuery),
    responses((status = 200, description = "One page.", body = Listed<Task>)))]
async fn list(
    State(state): State<AppState>,
    User(caller): User,
    Query(query): Query<TaskQuery>,
) -> Result<Answer<Listed<Task>>> {
    Ok(Answer(state.parts.cloud.list_tasks(&caller, &query).await?))
}

/// Show a task
///
/// One task with its plan and how far its jobs are, and its revision as `ETag`. One that has moved to the archive is
/// found too, and says so: `archived`.
#[utoipa::path(get, path = "/v1/tasks/{id}", operation_id = "get_task", tag = "tasks",
    responses((status = 200, description = "The task, its plan, its jobs.", body = TaskDetail)))]
async fn get(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    Ok(tagged(
        state.parts.cloud.task_detail(&caller, id.of("task")?).await?,
    ))
}

/// Cancel a task
///
/// Asks for the task's end: what has not begun is dropped, the rest is undone. Asking again changes nothing. A stuck task
/// cannot be cancelled; an operator can abandon it.
#[utoipa::path(post, path = "/v1/tasks/{id}/cancel", operation_id = "cancel_task", tag = "tasks",
    responses((status = 202, description = "The task as it is now.", body = TaskAccepted)))]
async fn cancel(State(state): State<AppState>, User(caller): User, id: RawId) -> Result {
    let asked = state.parts.cloud.cancel_task(&caller, id.of("task")?).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Retry a stuck task
///
/// Orders that the step at which the task got stuck is tried again, tries counted anew: when its cause is repaired. The
/// order is kept in the task with who gave it and why. Follow the task.
#[utoipa::path(post, path = "/v1/tasks/{id}/actions/retry", operation_id = "retry_task", tag = "tasks",
    request_body = OrderTask,
    responses((status = 202, description = "The task with the order.", body = TaskAccepted)))]
async fn retry(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(order): Json<OrderTask>,
) -> Result {
    self::order(&state, &caller, &id, OrderVerb::Retry, &order).await
}

/// Skip what a stuck task cannot undo
///
/// Orders that the undo at which the task got stuck is taken as done: when it was dealt with by hand. The rest is undone.
/// The order is kept in the task with who gave it and why. Follow the task.
#[utoipa::path(post, path = "/v1/tasks/{id}/actions/skip", operation_id = "skip_task", tag = "tasks",
    request_body = OrderTask,
    responses((status = 202, description = "The task with the order.", body = TaskAccepted)))]
async fn skip(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(order): Json<OrderTask>,
) -> Result {
    self::order(&state, &caller, &id, OrderVerb::Skip, &order).await
}

/// Abandon a stuck task
///
/// Orders that the task ends as failed and what is left is left as it is. The order is kept in the task with who gave it
/// and why. Follow the task.
#[utoipa::path(post, path = "/v1/tasks/{id}/actions/abandon", operation_id = "abandon_task", tag = "tasks",
    request_body = OrderTask,
    responses((status = 202, description = "The task with the order.", body = TaskAccepted)))]
async fn abandon(
    State(state): State<AppState>,
    User(caller): User,
    id: RawId,
    Json(order): Json<OrderTask>,
) -> Result {
    self::order(&state, &caller, &id, OrderVerb::Abandon, &order).await
}

async fn order(state: &AppState, caller: &Caller, id: &RawId, verb: OrderVerb, order: &OrderTask) -> Result {
    let cloud = &state.parts.cloud;
    let asked = cloud.order_task(caller, id.of("task")?, verb, &order.why).await?;
    Ok(accepted(asked.task.id, asked))
}

/// Follow a task
///
/// Server-sent events: `task` with the same document as `GET /v1/tasks/{id}`, at once and at each change, until the
/// task has ended, or is stuck and waits for an operator's order. Whoever comes back gets the newest document first, so nothing is lost in between.
#[utoipa::path(get, path = "/v1/tasks/{id}/events", operation_id = "follow_task", tag = "tasks",
    responses((status = 200, description = "Events until the task has ended or is stuck.",
        body = String, content_type = "text/event-stream")))]
async fn events(State(state): State<AppState>, identity: Identity, User(caller): User, id: RawId) -> Result {
    let id = id.of("task")?;
    let task = state.parts.cloud.get_task(&caller, id).await?.value;
    let keeper = Keeper::new(&state, identity)?;
    let follower = Follower::new(&state, caller, &task)?;
    let events = stream::unfold((keeper, follower), |(mut keeper, mut follower)| async {
        let event = follower.next(&mut keeper).await?;
        Some((event, (keeper, follower)))
    });
    Ok(sse::respond(events))
}

type Events = BoxStream<'static, skyloom_store::Result<WatchEvent>>;

/// Reads a task anew whenever something of it changes.
struct Follower {
    state: AppState,
    caller: Caller,
    id: TaskId,
    record: Key,
    siblings: Prefix,
    /// Watches on the task's record and on its jobs' places; empty means that all must be opened.
    watches: SelectAll<Events>,
    places: BTreeSet<Place>,
    shown: Option<TaskDetail>,
    changed: bool,
    ended: bool,
}

impl Follower {
    fn new(state: &AppState, caller: Caller, task: &Task) -> Result<Self> {
        let internal = |_| ApiError::internal();
        Ok(Self {
            state: state.clone(),
            caller,
            id: task.id,
            record: Key::parse(&paths::task(task.scope, task.id)).map_err(internal)?,
            siblings: Prefix::parse(&paths::tasks(task.scope)).map_err(internal)?,
            watches: SelectAll::new(),
            places: BTreeSet::new(),
            shown: None,
            changed: true,
            ended: false,
        })
    }

    async fn next(&mut self, keeper: &mut Keeper) -> Option<Event> {
        loop {
            if self.ended {
                return None;
            }
            if std::mem::take(&mut self.changed)
                && let Some(event) = self.look().await?
            {
                return Some(event);
            }
            match keeper.next(&mut self.watches).await {
                Next::End | Next::Item(Err(_)) => return None,
                Next::Tick => return Some(sse::heartbeat(None)),
                Next::Item(Ok(event)) => self.take(&event),
            }
            while let Some(Some(item)) = self.watches.next().now_or_never() {
                self.take(&item.ok()?);
            }
        }
    }

    fn take(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Progress(_) => {}
            WatchEvent::Gap { .. } => {
                self.watches.clear();
                self.places.clear();
                self.changed = true;
            }
            WatchEvent::Commit { changes, .. } => {
                // Below the siblings only the task itself counts, below the places everything does.
                let mine = |key: &Key| *key == self.record || !self.siblings.covers(key);
                self.changed |= changes.iter().any(|change| mine(change.key()));
            }
        }
    }

    /// The task as it is, if that is news. `None` outside ends the stream.
    async fn look(&mut self) -> Option<Option<Event>> {
        // The position is older than what is read after it: a watch from there misses nothing of what changes later.
        let options = ListOptions::default().with_limit(1);
        let position = self
            .state
            .parts
            .backend
            .list(&self.siblings, options)
            .await
            .ok()?
            .revision;
        let cloud = &self.state.parts.cloud;
        let detail = cloud.task_detail(&self.caller, self.id).await.ok()?.value;
        if self.watches.is_empty() {
            self.watch(self.siblings.clone(), position);
        }
        for place in detail
            .plan
            .iter()
            .flat_map(|plan| &plan.jobs)
            .map(|job| job.place)
        {
            if self.places.insert(place) {
                let jobs = Prefix::parse(&paths::task_jobs(place, self.id)).ok()?;
                self.watch(jobs, position);
            }
        }
        self.ended = detail.task.rests();
        if self.shown.as_ref() == Some(&detail) {
            return Some(None);
        }
        let mut shown = serde_json::to_value(&detail).ok()?;
        self.state
            .fields
            .hide(&self.caller.rights, "TaskDetail", &mut shown);
        let event = Event::default()
            .event("task")
            .id(position.to_string())
            .json_data(&shown)
            .ok()?;
        self.shown = Some(detail);
        Some(Some(event))
    }

    fn watch(&mut self, prefix: Prefix, after: Revision) {
        self.watches.push(
            self.state
                .parts
                .backend
                .watch(&prefix, WatchOptions::after(after)),
        );
    }
}
