//! Health, readiness and metrics of processes that serve no API.

use std::net::SocketAddr;

use skyloom::api::{ServeLimits, health_router, serve};
use skyloom_model::Readiness;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::exit::MainError;
use crate::telemetry::RenderMetrics;

/// Serves `/healthz`, `/readyz` and `/metrics` on `listen`; nothing without it. Ends only when it cannot serve: the
/// process' own work decides how long it lives.
///
/// # Errors
/// When it cannot listen.
pub async fn serve_health(
    listen: Option<SocketAddr>,
    readiness: Readiness,
    metrics: RenderMetrics,
    shutdown: CancellationToken,
) -> Result<(), MainError> {
    if let Some(listen) = listen {
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|e| MainError::failed(format!("cannot listen on {listen}"), e))?;
        let routes = health_router(readiness, metrics.into_fn());
        serve(listener, routes, None, ServeLimits::default(), shutdown)
            .await
            .map_err(|e| MainError::failed("health cannot be served", e))?;
    }
    std::future::pending().await
}
