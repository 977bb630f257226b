//! How a process shows how far it is; and health routes for processes that serve no API: engines and agents.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use skyloom_model::{PhaseReport, Readiness};
use utoipa::ToSchema;

/// How far a process is with its start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReadinessReport {
    /// Whether it does its work.
    ready: bool,
    /// The phases of all its parts, in boot order.
    phases: Vec<PhaseReport>,
}

impl ReadinessReport {
    pub(crate) fn of(readiness: &Readiness) -> Self {
        Self {
            ready: readiness.is_ready(),
            phases: readiness.report(),
        }
    }

    pub(crate) fn answer(self) -> Response {
        let status = if self.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (status, axum::Json(self)).into_response()
    }
}

/// `/healthz`, `/readyz` and `/metrics`, without a token: bind it where only operators can reach it.
pub fn health_router(readiness: Readiness, metrics: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
    let readyz = move || std::future::ready(ReadinessReport::of(&readiness).answer());
    let metrics = move || {
        let text = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        std::future::ready((text, metrics()).into_response())
    };
    Router::new()
        .route("/healthz", get(|| std::future::ready("ok")))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}
