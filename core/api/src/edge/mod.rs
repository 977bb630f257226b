//! The edge: what a request has to get through before any route, and what every answer carries.
//!
//! ```text
//! observe ─> guard ──────────────────────────────> routes ─> authenticate ─> rate of the token ─> handler
//!              ├ head: would everybody on the way read this request alike? (400, 414, 431)
//!              ├ source: where it comes from; what only proxies and parts may say is taken out
//!              └ rate of the source: for logins, public routes, and whoever is not let in (429)
//! ```
//!
//! It is part of the router, so a product that nests the router into a server of its own has it too. Such a server tells
//! where requests come from with axum's `ConnectInfo<SocketAddr>`; [`crate::serve`] does it by itself. Requests of which
//! nobody says where they come from count as one source.

mod bucket;
mod depth;
mod head;
mod network;
mod rates;
mod source;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, StatusCode, Version};
use skyloom_model::{Clock, Ids};

pub(crate) use depth::depth;
pub use network::{Network, NotANetwork};
pub use rates::RateLimits;
pub(crate) use rates::{of_source, of_token};
pub use source::Source;

use crate::parts::AppState;
use crate::problem::ApiError;
use bucket::Buckets;
use rates::Class;

/// What the edge lets through. The defaults are right without a proxy in front.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EdgeConfig {
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Nobody else's are.
    pub trusted_proxies: Arc<[Network]>,
    /// How often who may ask what.
    pub rates: RateLimits,
    /// For how long browsers shall insist on TLS, told under TLS only; zero tells them nothing.
    pub hsts: Duration,
    /// Most headers of a request. HTTP/1.1 has at most 100 of them anyhow.
    pub max_headers: usize,
    /// Longest header in bytes, name and value.
    pub max_header: usize,
    /// Longest path with query in bytes.
    pub max_target: usize,
}

impl Default for EdgeConfig {
    /// No proxies; [`RateLimits::default`]; one year; 100 headers of 16 KiB, 8 KiB of path and query.
    fn default() -> Self {
        Self {
            trusted_proxies: Arc::default(),
            rates: RateLimits::default(),
            hsts: Duration::from_secs(365 * 86_400),
            max_headers: 100,
            max_header: 16 << 10,
            max_target: 8 << 10,
        }
    }
}

impl EdgeConfig {
    /// With proxies to believe.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: impl IntoIterator<Item = Network>) -> Self {
        self.trusted_proxies = proxies.into_iter().collect();
        self
    }
    /// With other rates.
    #[must_use]
    pub fn with_rates(mut self, rates: RateLimits) -> Self {
        self.rates = rates;
        self
    }
    /// With another time for browsers to insist on TLS.
    #[must_use]
    pub fn with_hsts(mut self, time: Duration) -> Self {
        self.hsts = time;
        self
    }
    /// With other bounds on heads: number of headers, bytes of each, bytes of path and query.
    #[must_use]
    pub fn with_max_head(mut self, headers: usize, header: usize, target: usize) -> Self {
        (self.max_headers, self.max_header, self.max_target) = (headers, header, target);
        self
    }
}

/// The connection that a request came by, as [`crate::serve`] tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wire {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: bool,
}

/// What the edge remembers.
pub(crate) struct Edge {
    config: EdgeConfig,
    buckets: Buckets,
    hsts: Option<HeaderValue>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Edge {
    pub(crate) fn new(config: EdgeConfig, clock: Arc<dyn Clock>, ids: &dyn Ids) -> Self {
        let seconds = config.hsts.as_secs();
        let hsts = HeaderValue::try_from(format!("max-age={seconds}; includeSubDomains"));
        Self {
            buckets: Buckets::new(config.rates.entries, ids.uuid().as_u128(), clock),
            hsts: hsts.ok().filter(|_| seconds > 0),
            config,
        }
    }
}

/// The outer gate.
pub(crate) async fn guard(State(state): State<AppState>, request: Request, next: Next) -> Response {
    state.edge.pass(request, next).await
}

/// Puts the edge around routes that are not the API's own, such as those of another interface beside it: everything but the
/// rates of tokens, which only who looks at the tokens can tell apart. Its buckets are its own.
pub fn protect(
    routes: axum::Router,
    config: EdgeConfig,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
) -> axum::Router {
    let edge = Arc::new(Edge::new(config, clock, &*ids));
    let gate =
        async move |State((edge, ids)): State<(Arc<Edge>, Arc<dyn Ids>)>, request: Request, next: Next| {
            let mut response = edge.pass(request, next).await;
            let refusal = response.extensions_mut().remove::<ApiError>();
            refusal.map_or(response, |error| {
                let id = format!("req-{}", ids.uuid());
                let mut refusal = error.render(&id);
                crate::observe::finish(refusal.headers_mut(), &id);
                refusal
            })
        };
    routes.layer(from_fn_with_state((edge, ids), gate))
}

impl Edge {
    async fn pass(&self, mut request: Request, next: Next) -> Response {
        let wire = request.extensions().get::<Wire>().copied();
        if let Err(error) = head::check(&self.config, &request, wire.is_some()) {
            let mut refusal = error.into_response();
            if request.version() <= Version::HTTP_11 {
                // Whoever writes such heads may mean something else by what follows.
                refusal
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return refusal;
        }
        let source = Source::of(&request, wire, &self.config.trusted_proxies);
        head::strip(request.headers_mut());
        let known = request.extensions().get::<MatchedPath>().is_some();
        request.extensions_mut().insert(source.clone());
        if rates::is_login(&request)
            && let Err(error) = self.charge(Class::Login, source.name())
        {
            return error.into_response();
        }

        let mut response = next.run(request).await;
        let nobody = [StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED].contains(&response.status());
        if (nobody || !known)
            && let Err(error) = self.charge(Class::Anonymous, source.name())
        {
            response = error.into_response();
        }
        if let Some(hsts) = &self.hsts
            && source.is_secure()
        {
            let headers = response.headers_mut();
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        response
    }
}
