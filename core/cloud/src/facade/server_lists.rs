//! Looking for servers, and at what has become of one.

use serde::{Deserialize, Serialize};
use skyloom_model::{
    Event, Flavor, Host, HostId, JobRecord, JobWant, Resource as _, Scope, Server, ServerId, Task, TaskId,
    Timestamp,
};
use skyloom_store::Versioned;

use super::Cloud;
use crate::{Caller, CloudError, EventQuery, ListQuery, Listed, Result, ServerQuery, TaskQuery};

/// Most tasks and events of a timeline.
const MOST: u32 = 200;

/// Something that happened to a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineEntry {
    /// When it began, or happened.
    pub at: Timestamp,
    /// When it ended, of what lasts.
    pub until: Option<Timestamp>,
    /// What it is: `task`, `step` or `event`.
    #[cfg_attr(feature = "openapi", schema(example = "step"))]
    pub what: String,
    /// Its name: the task's flow, the step's job, the event's kind.
    #[cfg_attr(feature = "openapi", schema(example = "vm.start"))]
    pub name: String,
    /// For people.
    pub text: String,
    /// The task that it belongs to.
    pub task: Option<TaskId>,
    /// How it ended, or how far it is.
    #[cfg_attr(feature = "openapi", schema(example = "succeeded"))]
    pub state: Option<String>,
}

impl Cloud {
    /// A page of the project's servers that fit, oldest first or in the order that is asked for.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`, `label.invalid`, `host.not_found`, `flavor.not_found`, `image.not_found`, `auth.forbidden`.
    pub async fn find_servers(&self, caller: &Caller, query: &ServerQuery) -> Result<Listed<Server>> {
        let host = match &query.host {
            Some(host) => Some(self.host_of_query(caller, host).await?),
            None => None,
        };
        let flavor = match &query.flavor {
            Some(flavor) => Some(self.flavor_of(caller, flavor).await?.value.id()),
            None => None,
        };
        let image = query.image.as_deref();
        let list = ListQuery {
            limit: query.limit,
            cursor: query.cursor.clone(),
            name: query.name.clone(),
            label: query.label.clone(),
        };
        let fits = |server: &Server| {
            let (spec, status) = (&server.spec, &server.status);
            query.lifecycle.is_none_or(|wanted| status.lifecycle == wanted)
                && query.power.is_none_or(|wanted| status.power == wanted)
                && host.is_none_or(|host| status.placement.as_ref().is_some_and(|p| p.host == host))
                && flavor.is_none_or(|flavor| spec.flavor.id == flavor)
                // By what it was called then, too: the image may be gone.
                && image.is_none_or(|image| {
                    spec.image.id.to_string() == image || spec.image.name.as_str() == image
                })
        };
        if let Some(sort) = query.sort {
            return self.servers_in_order(caller, sort, &list, fits).await;
        }
        self.list_resources_where(caller, "server:read", &[caller.scope()], &list, fits)
            .await
    }

    async fn host_of_query(&self, caller: &Caller, asked: &str) -> Result<HostId> {
        caller.may_in_cloud("host:read")?;
        let found = self.by_id_or_name::<Host>(Scope::System, asked).await?;
        let found = found.ok_or_else(|| CloudError::not_found("host"))?;
        Ok(found.value.id())
    }

    /// The flavor of that id or name, if the caller may see it.
    pub(super) async fn flavor_of(&self, caller: &Caller, asked: &str) -> Result<Versioned<Flavor>> {
        let found = self.by_id_or_name::<Flavor>(Scope::System, asked).await?;
        found
            .filter(|f| caller.may_to("flavor:read", &f.value.meta).is_ok())
            .ok_or_else(|| CloudError::not_found("flavor"))
    }

    /// Every task, step and event of a server that is in the store, oldest first; at most the newest two hundred tasks and events.
    ///
    /// # Errors
    /// `server.not_found`, `auth.forbidden`.
    pub async fn server_timeline(&self, caller: &Caller, id: ServerId) -> Result<Listed<TimelineEntry>> {
        let server = self.own::<Server>(caller, "server:read", id.uuid()).await?;
        caller.may_to("task:read", &server.value.meta)?;
        caller.may_to("event:read", &server.value.meta)?;
        let mut items: Vec<TimelineEntry> = Vec::new();
        let mut tasks = TaskQuery {
            limit: Some(MOST),
            subject: Some(id.uuid()),
            ..TaskQuery::default()
        };
        let mut found: Vec<Task> = Vec::new();
        loop {
            let page = self.list_tasks(caller, &tasks).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => tasks.cursor = Some(next),
                None => break,
            }
        }
        let newest = found.len().saturating_sub(MOST as usize);
        for task in found.split_off(newest) {
            let detail = self.task_detail(caller, task.id).await?.value;
            items.extend(detail.jobs.iter().filter_map(of_step));
            items.push(of_task(&detail.task));
        }
        let mut events = EventQuery {
            limit: Some(MOST),
            subject: Some(id.uuid()),
            ..EventQuery::default()
        };
        let mut told: Vec<Event> = Vec::new();
        loop {
            let page = self.list_events(caller, &events).await?;
            told.extend(page.items);
            match page.next {
                Some(next) => events.cursor = Some(next),
                None => break,
            }
        }
        let newest = told.len().saturating_sub(MOST as usize);
        items.extend(told.split_off(newest).into_iter().map(of_event));
        items.sort_by_key(|entry| (entry.at, rank(entry)));
        Ok(Listed { items, next: None })
    }
}

/// Of what happened at the same moment, events come first: they tell what begins.
fn rank(entry: &TimelineEntry) -> u8 {
    match entry.what.as_str() {
        "event" => 0,
        "task" => 1,
        _ => 2,
    }
}

fn word(value: impl Serialize) -> Option<String> {
    let value = serde_json::to_value(value).ok()?;
    value.as_str().map(str::to_owned)
}

fn of_task(task: &Task) -> TimelineEntry {
    let asked = format!("asked for by {}", task.actor.name);
    TimelineEntry {
        at: task.created_at,
        until: task.ended_at,
        what: "task".to_owned(),
        name: task.flow.clone(),
        text: match &task.reason {
            Some(reason) => format!("{asked}: {reason}"),
            None => asked,
        },
        task: Some(task.id),
        state: word(task.state),
    }
}

fn of_step(job: &JobRecord) -> Option<TimelineEntry> {
    let title = &job.spec.title;
    let text = match job.want {
        JobWant::Run => title.clone(),
        JobWant::Undo => format!("take back: {title}"),
    };
    Some(TimelineEntry {
        at: job.started_at?,
        until: job.ended_at,
        what: "step".to_owned(),
        name: job.spec.id.to_string(),
        text: match &job.error {
            Some(error) => format!("{text}: {error}"),
            None => text,
        },
        task: Some(job.task),
        state: word(job.state),
    })
}

fn of_event(event: Event) -> TimelineEntry {
    TimelineEntry {
        at: event.at,
        until: None,
        what: "event".to_owned(),
        name: word(event.kind).unwrap_or_default(),
        text: event.message,
        task: event.task,
        state: None,
    }
}
