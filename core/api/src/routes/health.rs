//! What needs no token: health, readiness, metrics, the OpenAPI document, the version.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::Serialize;
use skyloom_identity::{Effect, Identified, Object, Place};
use skyloom_model::Reason;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::answer::Result;
use crate::auth::identify;
use crate::health::ReadinessReport;
use crate::parts::AppState;
use crate::problem::ApiError;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(document))
        .routes(routes!(version))
}

/// Tell whether the process lives
///
/// Answers `ok` as long as the process can answer at all.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "health", security(()),
    responses((status = 200, description = "It lives.", body = String, content_type = "text/plain")))]
async fn healthz() -> Response {
    ([(CONTENT_TYPE, "text/plain; charset=utf-8")], "ok").into_response()
}

/// Tell whether the process is ready
///
/// The phases of the start (configuration, health, caches, watch) and whether the process does its work.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", security(()),
    responses(
        (status = 200, description = "Ready.", body = ReadinessReport),
        (status = 503, description = "Not ready, or no more.", body = ReadinessReport)))]
async fn readyz(State(state): State<AppState>) -> Response {
    ReadinessReport::of(&state.parts.readiness).answer()
}

/// Show metrics
///
/// Counters and timings in Prometheus' text form. Where the server is set up so, the permission `metrics:read` is needed.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")))]
async fn metrics(State(state): State<AppState>, parts: Parts) -> Result {
    if !state.parts.open_metrics {
        let identity = identify(&state, &parts.headers, &parts.extensions).await?;
        if !sees_metrics(&identity.who) {
            let message = "this takes the permission metrics:read";
            return Err(ApiError::denied(Reason::new("auth.forbidden", message)));
        }
    }
    let text = (state.parts.metrics)();
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn sees_metrics(who: &Identified) -> bool {
    let Identified::Person(rights) = who else {
        return false;
    };
    let object = Object::all("metrics", Place::System);
    let permission = rights.permission("metrics:read");
    permission.is_some_and(|p| rights.decide(p, &object).effect == Effect::Allow)
}

/// Show this document
///
/// The OpenAPI 3.1 document of this server.
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "health", security(()),
    responses((status = 200, description = "The document.", body = Object, content_type = "application/json")))]
async fn document(State(state): State<AppState>) -> Response {
    ([(CONTENT_TYPE, "application/json")], state.document.clone()).into_response()
}

/// What answers here.
#[derive(Debug, Serialize, ToSchema)]
struct Version {
    /// Always `skyloom`.
    #[schema(example = "skyloom")]
    name: &'static str,
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The interface's version.
    #[schema(example = "v1")]
    api: &'static str,
}

/// Show the version
///
/// What answers here, in which version.
#[utoipa::path(get, path = "/v1", operation_id = "version", tag = "health", security(()),
    responses((status = 200, description = "Name and versions.", body = Version)))]
async fn version() -> Answer<Version> {
    Answer(Version {
        name: "skyloom",
        version: env!("CARGO_PKG_VERSION"),
        api: "v1",
    })
}
