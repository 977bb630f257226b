//! The outer edge of every request: its id, its span, its metrics; panics and errors become problem documents here.

use std::panic::AssertUnwindSafe;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use skyloom_model::Ids;
use tracing::Instrument as _;

use crate::parts::AppState;
use crate::problem::ApiError;

/// Ties a client's request to logs, tasks and jobs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request under way.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// The client's own id if it is a plain one, else a fresh one.
    fn new(headers: &HeaderMap, ids: &dyn Ids) -> Self {
        let plain = |text: &&str| {
            (1..=64).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let given = headers
            .get(&REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .filter(plain);
        Self(given.map_or_else(|| format!("req-{}", ids.uuid()), str::to_owned))
    }

    pub(crate) fn of(extensions: &Extensions) -> String {
        extensions.get().map(|Self(id)| id.clone()).unwrap_or_default()
    }
}

pub(crate) async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = RequestId::new(request.headers(), &*state.parts.ids);
    request.extensions_mut().insert(id.clone());
    let method = request.method().as_str().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request_id = %id.0, method, path = request.uri().path());
    let start = state.parts.clock.monotonic();

    let answered = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let mut response = answered.unwrap_or_else(|_| {
        span.in_scope(|| tracing::error!("a handler panicked"));
        ApiError::internal().into_response()
    });
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let head = std::mem::take(response.headers_mut());
        response = error.render(&id.0);
        // What the router knew: the header Allow.
        for (name, value) in &head {
            response
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
    }
    finish(response.headers_mut(), &id.0);

    let took = state.parts.clock.monotonic().saturating_sub(start);
    let status = response.status().as_u16();
    span.in_scope(|| tracing::info!(status, micros = took.as_micros() as u64, "answered"));
    let labels = [
        ("method", known(&method).to_owned()),
        ("route", route),
        ("status", status.to_string()),
    ];
    metrics::counter!("skyloom_http_requests_total", &labels).increment(1);
    metrics::histogram!("skyloom_http_request_seconds", &labels[..2]).record(took.as_secs_f64());
    response
}

/// Methods as metric labels: a client cannot make new ones.
fn known(method: &str) -> &str {
    match method {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
        _ => "other",
    }
}

pub(crate) fn finish(headers: &mut HeaderMap, request_id: &str) {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Ends requests whose answer does not begin in time.
pub(crate) async fn limit_time(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(state.parts.limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::timeout().into_response(),
    }
}
