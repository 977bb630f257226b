//! `POST /v1/store/watch`: a watch as NDJSON.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use skyloom_store::wire::{WatchLine, WatchRequest};
use skyloom_store::{Revision, WatchEvent};

use super::schema;
use crate::auth::Identity;
use crate::extract::StoreJson;
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::stream::{Keeper, Next};
use skyloom_cloud::StoreScope;

/// Watch a prefix
///
/// A stream of JSON lines: each commit after a revision that touches the prefix, in order, whole; `progress` every few
/// seconds, also as a heartbeat; `gap` and the end when the position is lost; `error` and the end when the store fails.
#[utoipa::path(post, path = "/v1/store/watch", operation_id = "store_watch", tag = "store",
    request_body = schema::WatchRequest,
    responses((status = 200, description = "JSON lines until one side closes.",
        body = schema::WatchLine, content_type = "application/x-ndjson")))]
pub(super) async fn watch(
    State(state): State<AppState>,
    identity: Identity,
    StoreJson(request): StoreJson<WatchRequest>,
) -> Result<Response, ApiError> {
    let scope = StoreScope::of(&identity.role).map_err(ApiError::denied)?;
    scope
        .below(&request.prefix, "watch")
        .map_err(|e| ApiError::store(&e))?;
    let keeper = Keeper::new(&state, identity)?;
    let options = request.options(state.parts.limits.watch_buffer);
    let lines = Lines {
        keeper,
        last: options.after,
        events: state.parts.backend.watch(&request.prefix, options),
        ended: false,
    };
    let body = stream::unfold(lines, |mut lines| async {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(line), lines))
    });
    let mut response = Response::new(Body::from_stream(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

struct Lines {
    keeper: Keeper,
    events: BoxStream<'static, skyloom_store::Result<WatchEvent>>,
    /// Everything up to it has been delivered.
    last: Revision,
    ended: bool,
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let line = match self.keeper.next(&mut self.events).await {
            Next::End => return None,
            Next::Tick => WatchLine::Progress { revision: self.last },
            Next::Item(item) => {
                if let Ok(WatchEvent::Commit { revision, .. } | WatchEvent::Progress(revision)) = &item {
                    self.last = self.last.max(*revision);
                }
                WatchLine::from_item(&item)
            }
        };
        match line.encode() {
            Ok((bytes, last)) => {
                self.ended = last;
                Some(bytes)
            }
            Err(e) => {
                tracing::error!(error = %skyloom_model::report(&e), "a watch line cannot be written");
                None
            }
        }
    }
}
