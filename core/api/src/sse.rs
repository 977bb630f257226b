//! Server-sent events.

use std::convert::Infallible;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use http::{HeaderMap, HeaderName};
use skyloom_store::Revision;

use crate::answer::Result;
use crate::problem::ApiError;

/// Where a client that lost its connection was.
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    Sse::new(events.map(Ok::<_, Infallible>)).into_response()
}

/// What shows the client that this end lives. With a position it also moves the client's last event id, unseen.
pub(crate) fn heartbeat(position: Option<Revision>) -> Event {
    let event = Event::default().comment("heartbeat");
    match position {
        Some(revision) => event.id(revision.to_string()),
        None => event,
    }
}

/// The revision in `Last-Event-ID`; an empty one is none.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<Revision>> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else {
        return Ok(None);
    };
    let wrong = || {
        ApiError::bad_request(
            "last_event_id.invalid",
            "Last-Event-ID takes an id as it was given: a number",
        )
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(|r| Some(Revision(r))).map_err(|_| wrong())
}
