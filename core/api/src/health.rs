//! Health routes for processes that serve no API: engines and agents.

use std::sync::Arc;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::Readiness;

/// `/healthz`, `/readyz` and `/metrics`, without a token: bind it where only operators can reach it.
pub fn health_router(
    readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
) -> Router {
    let readyz = move || {
        let readiness = readiness();
        let status = if readiness.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        std::future::ready((status, axum::Json(readiness)).into_response())
    };
    let metrics = move || {
        let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        std::future::ready((text, metrics()).into_response())
    };
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok")))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
