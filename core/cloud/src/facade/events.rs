//! Events: what happened, written in the same commit as what it tells.

use skyloom_model::{Event, EventId, EventKind, FORMAT, Reason, Task, paths};
use skyloom_store::{Prefix, Txn};

use super::Cloud;
use super::list::PageOf;
use super::records::{create, prefix};
use super::tasks::listed_scopes;
use crate::{Caller, EventQuery, Listed, Result};

/// What an event tells.
pub(crate) struct Told {
    kind: EventKind,
    message: String,
    reason: Option<Reason>,
}

impl Told {
    pub(crate) fn new(kind: EventKind, message: String) -> Self {
        Self {
            kind,
            message,
            reason: None,
        }
    }
}

impl Cloud {
    /// The part of a commit that tells of it.
    pub(crate) fn event(&self, task: &Task, request_id: &str, told: Told) -> Result<Txn> {
        let event = Event {
            format: FORMAT,
            id: EventId::fresh(&*self.parts.ids),
            at: self.now(),
            scope: task.scope,
            kind: told.kind,
            subject: task.subject.clone(),
            task: Some(task.id),
            request_id: Some(request_id.to_owned()),
            message: told.message,
            reason: told.reason,
        };
        create(&paths::event(event.scope, event.id), &event)
    }

    /// A page of the project's events of the last week, or of those that are archived, oldest first; for who runs the cloud
    /// also the cloud's own.
    ///
    /// # Errors
    /// `cursor.invalid`, `limit.invalid`.
    pub async fn list_events(&self, caller: &Caller, query: &EventQuery) -> Result<Listed<Event>> {
        let scopes = listed_scopes(caller, "event:read")?;
        if query.archived {
            return self.archive.list_events(&scopes, query).await;
        }
        let prefixes: Vec<Prefix> = scopes
            .into_iter()
            .map(|s| prefix(&paths::events(s)))
            .collect::<Result<_>>()?;
        let page = PageOf {
            cursor: query.cursor.as_deref(),
            limit: query.limit,
        };
        self.page(&prefixes, page, |e: &Event| wanted_event(query, e))
            .await
    }
}

/// Whether an event is asked for.
pub(crate) fn wanted_event(query: &EventQuery, event: &Event) -> bool {
    query.kind.is_none_or(|k| event.kind == k)
        && query.task.is_none_or(|t| event.task == Some(t))
        && query.subject.is_none_or(|s| event.subject.id == s)
}
