//! Server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use http::{HeaderMap, HeaderName};
use skyloom_model::{Custody, paths};
use skyloom_store::{Key, Revision, Store};
use uuid::Uuid;

use crate::answer::Result;
use crate::problem::ApiError;

/// Where a client that lost its connection was.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    Sse::new(events.map(Ok::<_, Infallible>)).into_response()
}

/// What shows the client that this end lives. With an id it also moves the client's last event id, unseen.
pub(crate) fn heartbeat(id: Option<String>) -> Event {
    let event = Event::default().comment("heartbeat");
    match id {
        Some(id) => event.id(id),
        None => event,
    }
}

/// Which telling of the cloud's history revisions are of: after a restore the same numbers mean other commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History(u32);

impl History {
    /// That of the store as it is now.
    pub(crate) async fn of<S: Store + ?Sized>(store: &S) -> skyloom_store::Result<Self> {
        let Ok(key) = Key::parse(paths::INCARNATION) else {
            return Ok(Self(0));
        };
        let found = store.get(&key).await?;
        let custody = found.map(|kv| kv.value.parse::<Custody>()).transpose()?;
        Ok(Self::from(custody.map(|c| c.incarnation.id).unwrap_or_default()))
    }

    /// The id of an event of `revision`: `42-9f03a1c7`.
    pub(crate) fn id(self, revision: Revision) -> String {
        format!("{revision}-{:08x}", self.0)
    }
}

impl From<Uuid> for History {
    /// Its last digits: the first are the time.
    fn from(incarnation: Uuid) -> Self {
        Self(incarnation.as_u128() as u32)
    }
}

/// Where a client was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) revision: Revision,
    /// Not said by who gives a bare number: then it is that of now.
    history: Option<History>,
}

impl Last {
    /// Whether what follows it can be told.
    pub(crate) fn is_of(&self, now: History) -> bool {
        self.history.is_none_or(|then| then == now)
    }
}

/// The position in `Last-Event-ID`; an empty one is none.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<Last>> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let wrong = || {
        ApiError::bad_request(
            "last_event_id.invalid",
            "Last-Event-ID takes an id as it was given, such as 42-9f03a1c7",
        )
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let (revision, history) = match text.split_once('-') {
        None => (text, None),
        Some((revision, tag)) if tag.len() == 8 => {
            let tag = u32::from_str_radix(tag, 16).map_err(|_| wrong())?;
            (revision, Some(History(tag)))
        }
        Some(_) => return Err(wrong()),
    };
    let revision = Revision(revision.parse().map_err(|_| wrong())?);
    Ok(Some(Last { revision, history }))
}
