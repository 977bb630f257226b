//! The good answers' common forms.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use skyloom_model::TaskId;
use skyloom_store::Versioned;

use crate::problem::ApiError;

/// What handlers answer.
pub(crate) type Result<T = Response> = std::result::Result<T, ApiError>;

/// 200 with the record and its revision as `ETag`.
pub(crate) fn tagged<T: Serialize>(found: Versioned<T>) -> Response {
    let mut response = Json(found.value).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", found.modified)) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// 201 with the record and where it is.
pub(crate) fn created<T: Serialize>(path: &str, body: T) -> Response {
    located(StatusCode::CREATED, path, body)
}

/// 202 with the task to follow.
pub(crate) fn accepted<T: Serialize>(task: TaskId, body: T) -> Response {
    located(StatusCode::ACCEPTED, &format!("/v1/tasks/{task}"), body)
}

fn located<T: Serialize>(status: StatusCode, path: &str, body: T) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Ok(place) = HeaderValue::try_from(path) {
        response.headers_mut().insert(LOCATION, place);
    }
    response
}
