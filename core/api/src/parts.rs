//! What an API server is made of.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skyloom_cloud::Cloud;
use skyloom_identity::{Authenticator, Identity, Oidc};
use skyloom_model::{Clock, Ids, Readiness};
use skyloom_store::DynBackend;
use tokio_util::sync::CancellationToken;

use crate::edge::{Edge, EdgeConfig};
use crate::fan::Fans;
use crate::fields::Fields;
use crate::held;
use crate::seats::Seats;

/// The parts that [`crate::router`] is built from. Who composes the process owns them all.
#[derive(Clone)]
pub struct ApiParts {
    /// The API without HTTP.
    pub cloud: Arc<Cloud>,
    /// The store: for watches and the store protocol.
    pub backend: DynBackend,
    /// Whose a bearer's secret is.
    pub authenticator: Arc<dyn Authenticator>,
    /// The users that the cloud keeps itself; `None` where a product has its own: then the routes of identity answer 404.
    pub identity: Option<Identity>,
    /// The identity providers on whose word users log in.
    pub providers: Vec<Oidc>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Request ids.
    pub ids: Arc<dyn Ids>,
    /// The boot phases of the process' parts: shown by `GET /readyz`.
    pub readiness: Readiness,
    /// The metrics in Prometheus' text form: asked at each `GET /metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether `GET /metrics` needs no token: right where only the machine itself can reach the server.
    pub open_metrics: bool,
    /// Bounds.
    pub limits: ApiLimits,
    /// What is let in, how often, and whose word about where it comes from is believed.
    pub edge: EdgeConfig,
    /// Ends the streams, so that a server that shuts down need not wait for their clients.
    pub shutdown: CancellationToken,
}

impl fmt::Debug for ApiParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiParts")
            .field("backend", &self.backend)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds on what clients can make a server hold and do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiLimits {
    /// Longest JSON body in bytes. Image content is streamed, the store protocol has its own limit.
    pub max_body: usize,
    /// Longest time until an answer begins.
    pub request_timeout: Duration,
    /// Longest time for a JSON body to arrive, and longest silence in the middle of image content.
    pub body_timeout: Duration,
    /// Requests under way at a time, of all callers.
    pub max_requests: usize,
    /// Requests under way at a time, of one token.
    pub max_requests_per_token: usize,
    /// Open streams, of all callers.
    pub max_streams: usize,
    /// Open streams, of one token.
    pub max_streams_per_token: usize,
    /// Connections that requests of one token come by. Only [`crate::serve`] counts them.
    pub max_connections_per_token: usize,
    /// Bytes of JSON bodies and of the store protocol's answers that are held, of all callers.
    pub max_bytes: usize,
    /// The same of one token.
    pub max_bytes_per_token: usize,
    /// Longest silence of a stream.
    pub heartbeat: Duration,
    /// Commits that may wait for one stream's client.
    pub watch_buffer: usize,
}

impl Default for ApiLimits {
    /// 1 MiB, 30 s, 10 s; 512 requests, 128 of one token; 8192 streams, 512 of one token; 1024 connections of one token;
    /// 512 MiB, 128 MiB of one token; heartbeats every 5 s.
    fn default() -> Self {
        Self {
            max_body: 1 << 20,
            request_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(10),
            max_requests: 512,
            max_requests_per_token: 128,
            max_streams: 8192,
            max_streams_per_token: 512,
            max_connections_per_token: 1024,
            max_bytes: 512 << 20,
            max_bytes_per_token: 128 << 20,
            heartbeat: Duration::from_secs(5),
            watch_buffer: 4096,
        }
    }
}

impl ApiLimits {
    /// With another longest JSON body.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }
    /// With other bounds on requests under way: of all callers, of one token.
    #[must_use]
    pub fn with_max_requests(mut self, all: usize, per_token: usize) -> Self {
        (self.max_requests, self.max_requests_per_token) = (all, per_token);
        self
    }
    /// With other bounds on open streams: of all callers, of one token.
    #[must_use]
    pub fn with_max_streams(mut self, all: usize, per_token: usize) -> Self {
        (self.max_streams, self.max_streams_per_token) = (all, per_token);
        self
    }
    /// With another number of connections of one token.
    #[must_use]
    pub fn with_max_connections_per_token(mut self, connections: usize) -> Self {
        self.max_connections_per_token = connections;
        self
    }
    /// With other bounds on bytes in flight: of all callers, of one token.
    #[must_use]
    pub fn with_max_bytes(mut self, all: usize, per_token: usize) -> Self {
        (self.max_bytes, self.max_bytes_per_token) = (all, per_token);
        self
    }
    /// With another number of commits that may wait for one stream's client.
    #[must_use]
    pub fn with_watch_buffer(mut self, commits: usize) -> Self {
        self.watch_buffer = commits;
        self
    }
    /// With other longest times: until an answer begins, for a body to arrive.
    #[must_use]
    pub fn with_timeouts(mut self, request: Duration, body: Duration) -> Self {
        (self.request_timeout, self.body_timeout) = (request, body);
        self
    }
    /// With another longest silence of a stream.
    #[must_use]
    pub fn with_heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) parts: ApiParts,
    pub(crate) requests: Arc<Seats>,
    pub(crate) streams: Arc<Seats>,
    pub(crate) connections: Arc<Seats>,
    pub(crate) bytes: Arc<held::Bytes>,
    pub(crate) fans: Arc<Fans>,
    pub(crate) edge: Edge,
    /// Where answers have fields that not everybody sees.
    pub(crate) fields: Fields,
    /// The OpenAPI document.
    pub(crate) document: Bytes,
}

impl AppState {
    pub(crate) fn new(parts: ApiParts, document: &serde_json::Value) -> Self {
        let limits = parts.limits;
        Self(Arc::new(Shared {
            requests: Seats::new(limits.max_requests, limits.max_requests_per_token),
            streams: Seats::new(limits.max_streams, limits.max_streams_per_token),
            connections: Seats::new(usize::MAX, limits.max_connections_per_token),
            bytes: held::Bytes::new(limits.max_bytes, limits.max_bytes_per_token),
            fans: Arc::default(),
            edge: Edge::new(parts.edge.clone(), parts.clock.clone(), &*parts.ids),
            fields: Fields::of(document),
            document: Bytes::from(document.to_string()),
            parts,
        }))
    }
}

impl std::ops::Deref for AppState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}
