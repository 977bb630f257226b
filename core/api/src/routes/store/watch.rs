//! `POST /v1/store/watch`: a watch as NDJSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use skyloom_store::feed::End;
use skyloom_store::feed::ring::{Reader, Turn};
use skyloom_store::wire::WatchRequest;
use skyloom_store::{DynBackend, Revision, WatchEvent, WatchOptions};

use super::schema;
use crate::auth::Identity;
use crate::extract::StoreJson;
use crate::fan::{Line, Member};
use crate::parts::AppState;
use crate::problem::ApiError;
use crate::stream::{Keeper, Next};
use skyloom_cloud::StoreScope;

/// Lines that are ready are sent together up to about this many bytes.
const CHUNK: usize = 16 << 10;
/// Shared lines taken at a time.
const AT_A_TIME: usize = 64;

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
    let scope = StoreScope::of(&identity.who).map_err(ApiError::denied)?;
    scope
        .below(&request.prefix, "watch")
        .map_err(|e| ApiError::store(&e))?;
    let keeper = Keeper::new(&state, identity)?;
    let options = request.options(state.parts.limits.watch_buffer);
    let member = state.fans.join(&request.prefix, &state.parts.backend);
    let lines = Lines {
        keeper,
        feed: Feed::new(member, state.parts.backend.clone(), options),
    };
    let body = stream::unfold(lines, |mut lines| async {
        let chunk = lines.next().await?;
        Some((Ok::<_, Infallible>(chunk), lines))
    });
    let mut response = Response::new(Body::from_stream(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

struct Lines {
    keeper: Keeper,
    feed: Feed,
}

impl Lines {
    /// The next line, and those that are ready after it.
    async fn next(&mut self) -> Option<Bytes> {
        let first = match self.keeper.next(&mut self.feed).await {
            Next::End => return None,
            Next::Tick => Line::heartbeat(self.feed.last)?,
            Next::Item(line) => line,
        };
        let mut cx = Context::from_waker(Waker::noop());
        if self.feed.drained() {
            return Some(first.bytes);
        }
        let mut chunk = BytesMut::new();
        let mut next = Some(first);
        while let Some(line) = next {
            if chunk.is_empty() && line.bytes.len() >= CHUNK {
                return Some(line.bytes);
            }
            chunk.extend_from_slice(&line.bytes);
            if chunk.len() >= CHUNK {
                break;
            }
            next = match self.feed.poll_next_unpin(&mut cx) {
                Poll::Ready(line) => line,
                Poll::Pending => None,
            };
        }
        Some(chunk.freeze())
    }
}

/// The lines of one watcher: from a watch of its own, or shared with others of its prefix.
struct Feed {
    member: Member,
    backend: DynBackend,
    options: WatchOptions,
    from: From,
    ready: VecDeque<Line>,
    /// Everything up to it has been delivered.
    last: Revision,
    ended: bool,
}

enum From {
    Own(BoxStream<'static, skyloom_store::Result<WatchEvent>>),
    Shared(Reader<Line>),
}

impl Feed {
    fn new(member: Member, backend: DynBackend, options: WatchOptions) -> Self {
        let from = match member.share_known(options.after, options.buffer) {
            Some(reader) => From::Shared(reader),
            None => From::Own(backend.watch(member.prefix(), options.clone())),
        };
        Self {
            member,
            backend,
            last: options.after,
            options,
            from,
            ready: VecDeque::new(),
            ended: false,
        }
    }

    /// What comes next of the watcher's own watch; with it, it may have caught up with the others.
    fn own(&mut self, item: Option<skyloom_store::Result<WatchEvent>>) -> Option<Line> {
        let line = item.and_then(|item| Line::of(&item, self.last));
        self.ended = line.as_ref().is_none_or(|line| line.last);
        let line = line?;
        if !self.ended
            && let Some(reader) = self.member.share(line.revision, self.options.buffer)
        {
            self.from = From::Shared(reader);
        }
        Some(line)
    }

    /// Whether no more shared lines are at hand: one line alone need not be copied.
    fn drained(&self) -> bool {
        self.ready.is_empty() && matches!(self.from, From::Shared(_))
    }

    /// Too slow for the others, or they are no more: the store is asked where this leads.
    fn alone(&mut self) {
        self.options.after = self.last;
        self.from = From::Own(self.backend.watch(self.member.prefix(), self.options.clone()));
    }
}

impl Stream for Feed {
    type Item = Line;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Line>> {
        let this = &mut *self;
        loop {
            if let Some(line) = this.ready.pop_front() {
                // The others may be behind this one.
                if line.revision <= this.last {
                    continue;
                }
                this.last = line.revision;
                this.ended = line.last;
                return Poll::Ready(Some(line));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match &mut this.from {
                From::Own(events) => {
                    let item = ready!(events.poll_next_unpin(cx));
                    let line = this.own(item);
                    if let Some(line) = &line {
                        this.last = line.revision;
                    }
                    return Poll::Ready(line);
                }
                From::Shared(reader) => match ready!(reader.poll_next(cx, AT_A_TIME, &mut this.ready)) {
                    Ok(Turn::Items) => {}
                    Ok(Turn::Progress(revision)) if revision > this.last => {
                        this.last = revision;
                        return Poll::Ready(Line::heartbeat(revision));
                    }
                    Ok(Turn::Progress(_)) => {}
                    Err(End::Lost | End::Closed) => this.alone(),
                },
            }
        }
    }
}
