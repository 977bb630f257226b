//! The REST API as a library: a router to nest into a server of your own, and a server for those who have none.
//!
//! ```text
//! HTTP ─> observe (id, span, metrics, panics) ─> guard ─> route ─> limit time ─> authenticate ─> rate ─> handler ─> Cloud
//!           <── problem+json with the request id ─────────────────────── ApiError ──┘
//! ```
//!
//! * [`router`] makes the routes of [`ApiParts`]; [`serve`] runs them on a listener, with or without TLS.
//! * [`openapi`] is the document that `GET /openapi.json` serves; it is made of the handlers and their types.
//! * The handlers hold no rules of the cloud: these are in [`skyloom_cloud::Cloud`]. Here is what HTTP adds: who calls,
//!   how much at a time, in which form, and the store protocol's scopes.

mod answer;
mod auth;
mod edge;
mod extract;
mod fan;
mod fields;
mod health;
mod held;
mod observe;
mod openapi;
mod parts;
mod problem;
mod routes;
mod seats;
mod serve;
mod shown;
mod sse;
mod stream;

use axum::middleware::from_fn_with_state;
use utoipa_axum::router::OpenApiRouter;

pub use edge::{EdgeConfig, Network, NotANetwork, RateLimits, Source, protect};
pub use health::health_router;
pub use openapi::openapi;
pub use parts::{ApiLimits, ApiParts};
pub use problem::Problem;
pub use serve::{ServeLimits, serve};

use parts::AppState;
use problem::ApiError;

/// The whole API as a router.
pub fn router(parts: ApiParts) -> axum::Router {
    let document = serde_json::to_value(openapi()).unwrap_or_default();
    let state = AppState::new(parts, &document);
    let auth = from_fn_with_state(state.clone(), auth::authenticate);
    let time = from_fn_with_state(state.clone(), observe::limit_time);
    let rate = from_fn_with_state(state.clone(), edge::of_token);
    let fields = from_fn_with_state(state.clone(), fields::guard);
    let source_rate = from_fn_with_state(state.clone(), edge::of_source);
    let routes = OpenApiRouter::new()
        .merge(
            routes::timed()
                .route_layer(fields.clone())
                .route_layer(rate.clone())
                .route_layer(auth.clone())
                .route_layer(time.clone()),
        )
        .merge(
            routes::untimed()
                .route_layer(fields)
                .route_layer(rate)
                .route_layer(auth),
        )
        .merge(routes::public().route_layer(source_rate).route_layer(time));
    let (router, _) = routes.split_for_parts();
    router
        .fallback(|| async { ApiError::no_route() })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(from_fn_with_state(state.clone(), edge::guard))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}
