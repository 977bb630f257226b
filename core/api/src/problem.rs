//! Errors as RFC 9457 problem documents.
//!
//! Whoever fails makes an [`ApiError`] and returns it. It travels through the middleware as a response extension and is
//! written at the outer edge ([`crate::observe`]), where the request id is known. So every error answer, from a handler,
//! a 404 of the router or a caught panic, has one shape.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use skyloom_cloud::{CloudError, FieldError, Preview};
use skyloom_model::Reason;
use skyloom_store::wire::WireError;
use utoipa::ToSchema;

/// An error answer (`application/problem+json`, RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:skyloom:problem:` and the code.
    #[schema(example = "urn:skyloom:problem:flavor.not_found")]
    pub r#type: String,
    /// What the status means.
    #[schema(example = "Unprocessable Entity")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What happened, in one sentence.
    #[schema(example = "flavor: there is no flavor \"m1.huge\"")]
    pub detail: String,
    /// Stable, dotted, for programs.
    #[schema(example = "flavor.not_found")]
    pub code: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The request, as it stands in logs and tasks.
    #[schema(example = "req-01980c2e-7b7a-7000-8000-000000000001")]
    pub request_id: String,
    /// Whether the same request may work later without a change.
    pub retryable: bool,
    /// The wrong fields, if that is why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The store's own error, from the store protocol only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub store: Option<WireError>,
}

/// A failure on its way to becoming a [`Problem`]; or the preview that a dry run ends with instead of its answer.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    reason: Reason,
    fields: Vec<FieldError>,
    store: Option<WireError>,
    retry_after: Option<Duration>,
    /// Of a dry run: no failure at all, but it comes the same way.
    preview: Option<Box<Preview>>,
    /// For want of which permission, if that is why.
    missing: Option<&'static str>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, reason: Reason) -> Self {
        Self(Box::new(Inner {
            status,
            reason,
            fields: Vec::new(),
            store: None,
            retry_after: None,
            preview: None,
            missing: None,
        }))
    }

    fn of(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, Reason::new(code, message.into()))
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, code, message)
    }

    /// One text for every way of not being let in, so that none of them can be told from the others.
    pub(crate) fn unauthenticated() -> Self {
        let reason = Reason::new("auth.required", "a valid bearer token is needed")
            .hint("send the header `Authorization: Bearer …`");
        Self::new(StatusCode::UNAUTHORIZED, reason)
    }

    /// Too many wrong ones came from there.
    pub(crate) fn throttled(wait: Duration) -> Self {
        let reason = Reason::new("auth.throttled", "too many wrong credentials came from there").retryable();
        Self::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(wait)
    }

    /// Nobody can be let in now.
    pub(crate) fn auth_unavailable(why: &str) -> Self {
        let reason = Reason::new(
            "auth.unavailable",
            format!("credentials cannot be checked now: {why}"),
        );
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason.retryable())
    }

    /// What was shown of a host counts for nothing now.
    pub(crate) fn uncertified(reason: Reason) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, reason)
    }

    pub(crate) fn denied(reason: Reason) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }

    /// As [`CloudError::not_found`], for ids that are none.
    pub(crate) fn not_found(what: &str) -> Self {
        CloudError::not_found(what).into()
    }

    pub(crate) fn no_route() -> Self {
        Self::of(
            StatusCode::NOT_FOUND,
            "route.not_found",
            "there is nothing at this path",
        )
    }

    pub(crate) fn method() -> Self {
        let message = "this path does not take this method; see the header Allow";
        Self::of(StatusCode::METHOD_NOT_ALLOWED, "method.not_allowed", message)
    }

    pub(crate) fn media_type(want: &'static str) -> Self {
        let message = format!("the body must be {want}");
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body.media_type", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("the body is longer than {limit} bytes");
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "body.too_large", message)
    }

    pub(crate) fn body_too_slow() -> Self {
        Self::of(
            StatusCode::REQUEST_TIMEOUT,
            "body.too_slow",
            "the body did not arrive in time",
        )
    }

    pub(crate) fn timeout() -> Self {
        let reason = Reason::new("request.timeout", "the request took too long")
            .hint("nobody can tell whether it happened: look, or repeat it with the same Idempotency-Key")
            .retryable();
        Self::new(StatusCode::GATEWAY_TIMEOUT, reason)
    }

    /// This caller has too much under way.
    pub(crate) fn too_many() -> Self {
        let reason = Reason::new("caller.too_many", "this token has too many requests under way").retryable();
        Self::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(Duration::from_secs(1))
    }

    /// All callers together have too much under way.
    pub(crate) fn overloaded() -> Self {
        let reason = Reason::new("server.overloaded", "too many requests are under way").retryable();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(Duration::from_secs(1))
    }

    /// This caller has too many connections.
    pub(crate) fn too_many_connections() -> Self {
        let reason = Reason::new(
            "caller.too_many_connections",
            "this token has too many connections open",
        );
        let reason = reason
            .hint("one HTTP/2 connection carries many requests")
            .retryable();
        Self::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(Duration::from_secs(5))
    }

    /// There are too many connections of all callers.
    pub(crate) fn crowded() -> Self {
        let reason = Reason::new(
            "server.too_many_connections",
            "the server has as many connections as it takes",
        )
        .retryable();
        Self::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(Duration::from_secs(5))
    }

    pub(crate) fn internal() -> Self {
        Self::of(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the server made a mistake",
        )
    }

    /// A wrong field that serde found.
    pub(crate) fn field(field: FieldError) -> Self {
        CloudError::field(field).into()
    }

    /// A failure of the store protocol: the store's error goes along for the far end.
    pub(crate) fn store(error: &skyloom_store::Error) -> Self {
        use skyloom_store::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Invalid | Kind::Compacted | Kind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Kind::Timeout | Kind::Unknown => StatusCode::GATEWAY_TIMEOUT,
            Kind::Unavailable | Kind::Full => StatusCode::SERVICE_UNAVAILABLE,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let store = WireError::from(error);
        let mut reason = Reason::new(
            format!("store.{}", kind_code(error.kind())),
            store.message.clone(),
        );
        reason.retryable = error.class() == skyloom_store::Class::Transient;
        let mut this = Self::new(status, reason);
        this.0.store = Some(store);
        this
    }

    /// For want of which permission, if that is why.
    pub(crate) fn missing_permission(&self) -> Option<&'static str> {
        self.0.missing
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The finished answer.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let Inner {
            status,
            reason,
            fields,
            store,
            retry_after,
            preview,
            missing: _,
        } = *self.0;
        if let Some(preview) = preview {
            return (status, Json(preview)).into_response();
        }
        let problem = Problem {
            r#type: format!("urn:skyloom:problem:{}", reason.code),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: reason.message,
            code: reason.code,
            hint: reason.hint,
            request_id: request_id.to_owned(),
            retryable: reason.retryable,
            errors: fields,
            store,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"skyloom\""),
            );
        }
        let wait =
            retry_after.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1)));
        if let Some(wait) = wait {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

/// The kind as it is written on the wire.
fn kind_code(kind: skyloom_store::ErrorKind) -> String {
    serde_json::to_value(kind)
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

impl From<CloudError> for ApiError {
    fn from(error: CloudError) -> Self {
        use skyloom_cloud::ErrorKind as Kind;
        let status = match error.kind() {
            Kind::Previewed => StatusCode::OK,
            Kind::BadRequest => StatusCode::BAD_REQUEST,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            // What broke is for the log; the caller gets the request id to point at it.
            tracing::error!(error = %error, "internal error");
            return Self::internal();
        }
        let mut this = Self::new(status, error.reason().clone());
        this.0.fields = error.wrong_fields().to_vec();
        this.0.retry_after = error.wait();
        this.0.missing = error.missing_permission();
        this.0.preview = error.preview().cloned().map(Box::new);
        this
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
